"""`precompute run` end to end: what 1,000 readings take, and how that grows with the corpus.

Each size is a run of the command in a process of its own. What a run of one prompt takes is
subtracted, so that loading the models, which is paid once, is in no rate. The exponent of growth is
the ratio: 1 means that ten times the readings take ten times as long.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import ROOT, Figure, Spent
from nla_core.errors import NLAError

NAME = "corpus"


def run(prompts: int, flags: Sequence[str]) -> tuple[int, Spent]:
    """Readings of a run over the first ``prompts``, and what its process took."""
    files = sorted((ROOT / "data/prompts").glob("*.jsonl"))
    with tempfile.TemporaryDirectory(prefix="nla-bench-") as home:
        result = Path(home) / "result.json"
        command = [sys.executable, "-m", "precompute", "run", "--corpus", *map(str, files)]
        command += ["--limit", str(prompts), "--out", f"{home}/out", "--json", str(result), *flags]
        began = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        spent = Spent(time.perf_counter() - began, usage.ru_utime + usage.ru_stime)
        found = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
    if process.returncode or not found.get("n_readings"):
        raise NLAError(
            "A run of the benchmark failed",
            why=str(found.get("error", f"exit code {process.returncode}")),
            fix=f"Run it by hand: {' '.join(command)}",
        )
    return int(found["n_readings"]), spent


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = harness.parser(NAME, __doc__)
    harness.add_model_arguments(parser)
    parser.add_argument("--prompts", type=int, nargs="+", default=[3, 25], metavar="N")
    parser.add_argument("--explanation-tokens", type=int, default=32)
    parser.add_argument("--answer-tokens", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args(argv)
    from nla_core.models.devices import pick_device, pick_dtype

    load_before = os.getloadavg()[0]
    place = pick_device(args.device)
    device, dtype = place.type, pick_dtype(place, args.dtype)
    flags = ["--nla", str(args.nla), "--device", args.device, "--dtype", args.dtype]
    flags += ["--explanation-tokens", str(args.explanation_tokens)]
    flags += ["--max-new-tokens", str(args.answer_tokens), "--batch-size", str(args.batch_size)]
    once_readings, once = run(1, flags)
    harness.say(f"one prompt: {once.on(device):.1f} s")
    figures = {"once_s": Figure(once.on(device), "a run of one prompt, models loaded and all", "s")}
    sizes, seconds = [], []
    for prompts in args.prompts:
        readings, spent = run(prompts, flags)
        more = spent.on(device) - once.on(device)
        sizes.append(readings - once_readings)
        seconds.append(more)
        figures[f"s_per_1000_at_{prompts}_prompts"] = Figure(
            1000 * more / sizes[-1],
            f"1,000 readings of a corpus of {prompts} prompts, published",
            "s",
        )
        harness.say(f"{readings} readings: {spent.on(device):.1f} s")
    if (slope := harness.exponent(sizes, seconds)) is not None:
        figures["growth_exponent"] = Figure(
            slope, "growth with readings: 1 is in proportion", "", "lower"
        )
    return harness.finish(
        args,
        NAME,
        harness.model_label(device, dtype),
        figures,
        load_before=load_before,
        settings={
            "explanation_tokens": args.explanation_tokens,
            "answer_tokens": args.answer_tokens,
            "batch_size": args.batch_size,
            "readings": sizes,
            "dtype": str(dtype).removeprefix("torch."),
        },
    )


if __name__ == "__main__":
    main()
