"""``bench engines``: what Ray costs beside the local engine, and what a second worker gains.

Knows how the same shards are done by each engine and what is compared: the pace between the first
finished shard and the last. Knows nothing of how a shard is computed. The decision a reader would
question: start-up is left out, and told by itself, because loading models and starting Ray is paid
once a run, however long it is.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from nla_core.errors import EXIT_OK, NLAError
from nla_core.nla.devices import pick_device, pick_dtype
from nla_core.nla.pair import find_pair
from precompute.corpus import Corpus, read_corpus
from precompute.engines.base import Engine
from precompute.engines.local import LocalEngine
from precompute.engines.ray import RayEngine
from precompute.output import say, write_result
from precompute.plan import Plan, Settings, make_plan
from precompute.progress import Progress
from precompute.run import MakeWorker, load_explainer
from precompute.workspace import Workspace

OVERHEAD_TARGET: Final = 0.10
PROMPTS: Final = Path("data/prompts")
NEW_TOKENS, EXPLANATION_TOKENS = 8, 24


def timed(engine: Engine, plan: Plan, out: Path, make_explainer: Any) -> dict[str, float]:
    """Seconds until the first shard is done, and shards a second from then on."""
    workspace = Workspace.create(out, plan)
    shards = list(plan.shards)
    progress = Progress(shards, total=len(shards), answer_tokens=NEW_TOKENS)
    began, at = time.perf_counter(), []
    readings = 0
    for _, receipt in engine.run(MakeWorker(plan, workspace, make_explainer, progress), shards):
        at.append(time.perf_counter() - began)
        readings += receipt.counts["readings"]
    return {
        "first_shard_s": at[0],
        "all_s": at[-1],
        "shards_per_s": (len(at) - 1) / (at[-1] - at[0]),
        "readings": readings,
    }


def corpus_of(n: int) -> Corpus:
    """The first ``n`` prompts of our own. Raises NLAError where that is too few to compare."""
    if n < 4:
        raise NLAError(
            f"--prompts {n} is too few to compare engines",
            why="the first shard of each worker is start-up",
            fix="Use 4 or more",
        )
    return read_corpus(sorted(PROMPTS.glob("*.jsonl"))).first(n)


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
        name="bench",
        limit=None,
    )
    make_explainer = partial(load_explainer, folder.resolve(), str(where), kind)
    gpu = where.type == "cuda"
    engines: dict[str, Engine] = {"local": LocalEngine(), "ray": RayEngine(None, 1, gpu)}
    if (torch.cuda.device_count() if gpu else os.cpu_count() or 1) > 1:
        engines["ray_two"] = RayEngine(None, 2, gpu)
    found = {}
    with tempfile.TemporaryDirectory(prefix="nla-bench-") as home:
        for name, engine in engines.items():
            found[name] = timed(engine, plan, Path(home) / name, make_explainer)
            say(f"{name}: {found[name]['shards_per_s']:.2f} prompts/s after the first")
    overhead = found["local"]["shards_per_s"] / found["ray"]["shards_per_s"] - 1
    return {
        "prompts": n_prompts,
        "engines": found,
        "ray_overhead": overhead,
        "ray_overhead_target": OVERHEAD_TARGET,
        "two_against_one": found["ray_two"]["shards_per_s"] / found["ray"]["shards_per_s"]
        if "ray_two" in found
        else None,
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
