"""``bench run``: what a visitor waits for. One prompt, all positions, through the whole queue.

Knows how a run is started and watched from outside. Knows nothing of how it is computed. The
decision a reader would question: the prompt is read as it stands, without an answer, so that the
number of readings is the number of tokens and two machines do the same; the model is warm because a
run before it has loaded everything. Processor time stands beside wall time, for busy machines.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from nla_core.embed import MiniLM
from nla_core.errors import EXIT_OK, NLAError
from nla_core.runs.models import Pairs
from nla_core.runs.request import RunPrompt, RunRequest, Sampling
from nla_core.runs.runner import JobRunner
from nla_core.runs.settings import WorkerSettings
from precompute.output import say, write_result

FIRST_TARGET_S: Final = 3.0
ALL_TARGET_S: Final = 20.0
"""On two cores that do nothing else, for 40 tokens of the pair that ships."""
WAIT_S: Final = 900.0
POLL_S: Final = 0.02
NAME: Final = "bench"
TEXT: Final = (
    "The old lighthouse keeper wrote down the weather every evening, and in the winter of the "
    "great storm his notes grew longer: he described the waves, the birds that sheltered under the "
    "gallery, a ship that passed without lights, and a letter that he had been meaning to answer "
    "for years."
)


def watch(runner: JobRunner, request: RunRequest) -> dict[str, float]:
    """Seconds from the submission to tokens, first reading, all readings, the published dataset."""
    began, cpu = time.perf_counter(), time.process_time()
    run_id = runner.submit(request, NAME).run_id
    seen: dict[str, float] = {}
    while "published" not in seen and time.perf_counter() - began < WAIT_S:
        now, found = time.perf_counter() - began, runner.snapshot(run_id)
        if found.error or found.failed:
            raise NLAError(
                "The run of the benchmark failed",
                why=found.error or runner.failures(run_id)[0].reason,
                fix="Check the pair with `python -m precompute doctor`",
            )
        if found.n_transcribed:
            seen.setdefault("tokens", now)
        if found.done:
            seen.setdefault("first", now)
        if found.total_is_known and found.n_transcribed and found.done == found.total:
            seen.setdefault("all", now)
            seen.setdefault("all_cpu", time.process_time() - cpu)
        if found.version:
            seen.setdefault("published", now)
        time.sleep(POLL_S)
    return {**seen, "readings": found.done}


def bench_run(runner: JobRunner, n_tokens: int, repeat: int) -> dict[str, Any]:
    """Medians over ``repeat`` prompts of ``n_tokens`` tokens, after one that loads the models."""
    tokenizer = runner.pairs.tokens(NAME).tokenizer
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    if not 1 <= n_tokens < len(ids) - repeat:
        raise NLAError(
            f"The benchmark has no prompt of {n_tokens} tokens",
            why=f"its text has {len(ids)} tokens, and each repetition begins one later",
            fix=f"Use --tokens 1 to {len(ids) - repeat - 1}",
        )
    load = watch(runner, _request("A short text."))
    say(f"loaded and warm after {load['published']:.1f} s")
    seen = []
    for begin in range(repeat):
        text = tokenizer.decode(ids[begin : begin + n_tokens])
        seen.append(watch(runner, _request(text)))
        say(f"first reading {seen[-1]['first']:.1f} s, all {seen[-1]['all']:.1f} s")
    middle = {name: statistics.median(one[name] for one in seen) for name in seen[0]}
    return {
        "prompt_tokens": n_tokens,
        "readings": int(middle["readings"]),
        "repeat": repeat,
        "tokens_s": middle["tokens"],
        "first_reading_s": middle["first"],
        "all_readings_s": middle["all"],
        "all_readings_cpu_s": middle["all_cpu"],
        "published_s": middle["published"],
        "cold_first_reading_s": load["first"],
        "targets": {"first_reading_s": FIRST_TARGET_S, "all_readings_s": ALL_TARGET_S},
        "within_targets": middle["first"] <= FIRST_TARGET_S and middle["all"] <= ALL_TARGET_S,
        "runs": seen,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }


def _request(text: str) -> RunRequest:
    return RunRequest(NAME, (RunPrompt(text=text),), target=Sampling(0))


def main(args: argparse.Namespace) -> int:
    """Print the four times; ``--json`` gets all that was measured."""
    load_before = os.getloadavg()[0]
    settings = WorkerSettings(devices=args.device, dtype=args.dtype, niceness=0)
    with tempfile.TemporaryDirectory(prefix="nla-bench-") as home:
        runner = JobRunner(
            Path(home),
            pairs=Pairs(lambda: {NAME: args.nla}),
            embedder=MiniLM(),
            settings=settings,
        )
        with runner:
            result = bench_run(runner, args.tokens, args.repeat)
    result |= {"load_before": load_before, "note": args.note}
    print(
        f"{result['prompt_tokens']} tokens, {result['readings']} readings, models warm: "
        f"tokens after {result['tokens_s']:.1f} s, first reading {result['first_reading_s']:.1f} s "
        f"(target {FIRST_TARGET_S:.0f}), all {result['all_readings_s']:.1f} s "
        f"(target {ALL_TARGET_S:.0f}; {result['all_readings_cpu_s']:.1f} s of CPU), "
        f"published {result['published_s']:.1f} s"
    )
    write_result(args, result)
    return EXIT_OK
