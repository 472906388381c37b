"""``bench engines``: what Ray costs beside the local engine, and what a second worker gains.

Knows how the same shards are done by each engine and what is compared: readings a second from the
moment every worker has finished one shard. Knows nothing of how a shard is computed. The decision a
reader would question: start-up is left out, and told by itself, because loading models and starting
Ray is paid once a run, however long it is.

Two ranks are two processes of ``run`` with an even share of the cores, as the README has them; the
one that they are compared with has all cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from nla_core.errors import EXIT_OK, NLAError
from nla_core.nla.devices import pick_device, pick_dtype
from nla_core.nla.pair import find_pair
from precompute.corpus import Corpus, read_corpus
from precompute.engines import Engine, LocalEngine, RayEngine
from precompute.output import say, write_result
from precompute.plan import Plan, Settings, make_plan
from precompute.progress import Progress
from precompute.run import MakeWorker, load_explainer
from precompute.workspace import Workspace

OVERHEAD_TARGET: Final = 0.10
PROMPTS: Final = Path("data/prompts")
NEW_TOKENS, EXPLANATION_TOKENS, NAME = 8, 24, "bench"
LOOK_SECONDS: Final = 0.1


def timed(
    engine: Engine, plan: Plan, out: Path, make_explainer: Any, workers: int
) -> dict[str, float]:
    """What `pace` says of the shards in the order in which ``engine`` finished them."""
    workspace = Workspace.create(out, plan)
    shards = list(plan.shards)
    progress = Progress(shards, total=len(shards), answer_tokens=NEW_TOKENS)
    began = time.perf_counter()
    done = [
        (time.perf_counter() - began, receipt.counts["readings"])
        for _, receipt in engine.run(MakeWorker(plan, workspace, make_explainer, progress), shards)
    ]
    return pace(done, workers)


def pace(done: Sequence[tuple[float, int]], workers: int) -> dict[str, float]:
    """Readings a second after every worker has finished one shard; ``done`` are (when, readings).

    Raises NLAError where too few shards are left to tell.
    """
    if len(done) <= workers:
        raise NLAError(
            f"{len(done)} shards say nothing of {workers} workers",
            why="the first shard of each worker is start-up",
            fix="Use more --prompts",
        )
    measured = sum(readings for _, readings in done[workers:])
    return {
        "first_shard_s": done[0][0],
        "all_s": done[-1][0],
        "readings_per_s": measured / (done[-1][0] - done[workers - 1][0]),
        "readings": sum(readings for _, readings in done),
    }


def timed_ranks(folder: Path, plan: Plan, out: Path, ranks: int) -> dict[str, float]:
    """The same of so many processes of ``run``, each with its share of the cores.

    Raises NLAError where one of them fails.
    """
    settings = plan.settings
    command = [
        sys.executable, "-m", "precompute", "run", "--nla", str(folder), "--out", str(out),
        "--corpus", *map(str, _prompts()), "--limit", str(sum(len(s.prompts) for s in plan.shards)),
        "--max-new-tokens", str(settings.max_new_tokens), "--shard-size", str(settings.shard_size),
        "--explanation-tokens", str(settings.explanation_tokens), "--device", settings.device,
        "--dtype", settings.dtype, "--name", NAME, "--world-size", str(ranks), "--no-publish",
    ]  # fmt: skip
    share = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // ranks))}
    workspace = Workspace.create(out, plan)
    began, done, seen = time.perf_counter(), list[tuple[float, int]](), set[str]()
    processes = [
        subprocess.Popen([*command, "--rank", str(rank)], env=share, stderr=subprocess.DEVNULL)
        for rank in range(ranks)
    ]
    try:
        while len(done) < len(plan.shards):
            ended = all(process.poll() is not None for process in processes)
            for name, receipt in workspace.receipts().items():
                if receipt is not None and name not in seen:
                    seen.add(name)
                    done.append((time.perf_counter() - began, receipt.counts["readings"]))
            if ended and len(done) < len(plan.shards):
                raise NLAError(
                    "A rank ended before its work",
                    why=f"exit codes {[process.returncode for process in processes]}",
                    fix=f"See what it says: {' '.join(command)} --rank 0",
                )
            time.sleep(LOOK_SECONDS)
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    return pace(done, ranks)


def corpus_of(n: int) -> Corpus:
    """The first ``n`` prompts of our own. Raises NLAError where that is too few to compare."""
    if n < 4:
        raise NLAError(
            f"--prompts {n} is too few to compare engines",
            why="the first shard of each worker is start-up",
            fix="Use 4 or more",
        )
    return read_corpus(_prompts()).first(n)


def _prompts() -> list[Path]:
    return sorted(PROMPTS.glob("*.jsonl"))


def bench(folder: Path, n_prompts: int, device: str, dtype: str) -> dict[str, Any]:
    """The three runs over the same shards of one prompt each."""
    where = pick_device(device)
    kind = str(pick_dtype(where, dtype)).removeprefix("torch.")
    settings = Settings(
        max_new_tokens=NEW_TOKENS,
        explanation_tokens=EXPLANATION_TOKENS,
        shard_size=1,
        device=where.type,
        dtype=kind,
    )
    plan = make_plan(
        corpus_of(n_prompts),
        pair=find_pair(folder).describe(),
        settings=settings,
        name=NAME,
        limit=None,
    )
    make_explainer = partial(load_explainer, folder.resolve(), str(where), kind)
    gpu = where.type == "cuda"
    several = (torch.cuda.device_count() if gpu else os.cpu_count() or 1) > 1
    engines: dict[str, tuple[Engine, int]] = {
        "local": (LocalEngine(), 1),
        "ray": (RayEngine(None, 1, gpu), 1),
    }
    if several:
        engines["ray_two"] = RayEngine(None, 2, gpu), 2
    found = {}
    with tempfile.TemporaryDirectory(prefix="nla-bench-") as home:
        for name, (engine, workers) in engines.items():
            found[name] = timed(engine, plan, Path(home) / name, make_explainer, workers)
            say(f"{name}: {found[name]['readings_per_s']:.2f} readings/s")
        if several and not gpu:  # on GPUs each rank would have to be told which is its own
            found["two_ranks"] = timed_ranks(folder, plan, Path(home) / "two_ranks", 2)
            say(f"two_ranks: {found['two_ranks']['readings_per_s']:.2f} readings/s")
    speed = {name: one["readings_per_s"] for name, one in found.items()}
    overhead = speed["local"] / speed["ray"] - 1
    two = speed.get("two_ranks", speed.get("ray_two"))
    one = speed["local" if "two_ranks" in speed else "ray"]
    return {
        "prompts": n_prompts,
        "engines": found,
        "ray_overhead": overhead,
        "ray_overhead_target": OVERHEAD_TARGET,
        "two_against_one": None if two is None else two / one,
        "within_targets": overhead <= OVERHEAD_TARGET,
        "cores": os.cpu_count(),
    }


def main(args: argparse.Namespace) -> int:
    """Print the comparison; ``--json`` gets all that was measured."""
    load_before = os.getloadavg()[0]
    result = bench(args.nla, args.prompts, args.device, args.dtype)
    gain = result["two_against_one"]
    print(
        f"Ray takes {result['ray_overhead']:+.1%} of the local engine's time beyond start-up "
        f"(target {OVERHEAD_TARGET:.0%})"
        + (f"; two workers are {gain:.2f} times as fast as one" if gain else "")
    )
    write_result(args, result | {"load_before": load_before, "note": args.note})
    return EXIT_OK
