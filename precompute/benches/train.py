"""``bench train``: how fast each stage of training is here, beside what the machine can multiply.

Knows clocks, threads and the form of the record. Does not know what a stage does (see stages.py)
nor how arithmetic is counted (see flops.py). The decision a reader would question: every rate is
given twice, by the clock and by processor time. On a machine that does other work the clock says
how long one waits, and processor time what the work costs whoever else is there. With several
threads processor time also counts what they spend waiting for each other.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nla_core.errors import EXIT_OK, NLAError
from nla_core.nla.devices import cpu_has_bf16, pick_device, pick_dtype
from nla_core.nla.pair import find_pair, pair_home
from precompute.benches.flops import FORMULA, Spent, Weights, clock, counting, matmul_peak
from precompute.benches.machine import processor
from precompute.benches.stages import GROUP, Bench, Stage, labelling, learning, sampling
from precompute.evaluation.throughput import section
from precompute.output import say, write_result
from precompute.testset import FOLDER, TestSet
from precompute.train.halves import find_halves

GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Taken:
    """What one stage took with one number of threads."""

    tokens: int
    spent: Spent
    gflop: float


def measure(bench: Bench, threads: Sequence[int], repeats: int) -> dict[str, Any]:
    """``weights`` by role, and ``threads``: the peaks and the stages with each number of them.

    One model after another is loaded and measured with every number of threads, first those that a
    pair may lack. The best of several peaks counts, and the fastest of ``repeats`` runs of a stage:
    load beside them comes and goes. Raises NLAError for a pair without adapters to train.
    """
    peaks: dict[int, dict[str, dict[str, float]]] = {n: {} for n in threads}
    taken: dict[int, dict[str, Taken]] = {n: {} for n in threads}
    weights: dict[str, dict[str, int]] = {}

    def measure_stage(stage: Stage) -> None:
        for role, model in stage.models.items():
            weights[role] = asdict(Weights.of(model))
        stage.run(2)  # what is done once, such as making room, is no stage's work
        for n in threads:
            torch.set_num_threads(n)
            _raise_peaks(peaks[n], bench)
            taken[n][stage.name] = _timed(stage, bench, repeats)
            say(f"{stage.name}: {taken[n][stage.name].spent.wall_s:.1f} s, {n} thread(s)")

    before = torch.get_num_threads()
    try:
        for load in (learning, labelling, sampling):
            _each(measure_stage, load(bench))
            gc.collect()
    finally:
        torch.set_num_threads(before)
    dtype = _name(bench.dtype)
    return {
        "weights": weights,
        "threads": {
            str(n): {
                "peak": peaks[n],
                "stages": {k: _figures(v, peaks[n][dtype]) for k, v in taken[n].items()},
            }
            for n in threads
        },
    }


def _each(work: Callable[[Stage], None], stages: Sequence[Stage]) -> None:
    """``work`` on every stage; afterwards nothing here holds their models any more."""
    for stage in stages:
        work(stage)


def _raise_peaks(peaks: dict[str, dict[str, float]], bench: Bench) -> None:
    """Take the peak of each number format once more; the better one is kept."""
    has_bf16 = bench.device.type == "cuda" or cpu_has_bf16()
    for dtype in {torch.float32, bench.dtype} | ({torch.bfloat16} if has_bf16 else set()):
        old = peaks.setdefault(_name(dtype), {})
        for name, value in matmul_peak(bench.device, dtype).items():
            old[name] = max(value, old.get(name, 0.0))


def _timed(stage: Stage, bench: Bench, repeats: int) -> Taken:
    """The fastest of several equal runs, by each clock."""
    best, tokens, gflop = Spent(math.inf, math.inf), 0, 0.0
    for _ in range(repeats):
        with ExitStack() as stack:
            counted = [stack.enter_context(counting(model)) for model in stage.models.values()]
            with clock(bench.device) as spent:
                tokens = stage.run(bench.batch)
        gflop = sum(c.operations for c in counted) / GIGA
        best = Spent(min(best.wall_s, spent.wall_s), min(best.cpu_s, spent.cpu_s))
    return Taken(tokens, best, gflop)


def _figures(taken: Taken, peak: dict[str, float]) -> dict[str, float]:
    wall, cpu = taken.spent.wall_s, taken.spent.cpu_s
    return {
        "tokens": taken.tokens,
        "gflop": taken.gflop,
        "seconds": wall,
        "cpu_seconds": cpu,
        "tokens_per_s": _whole(taken.tokens / wall),
        "tokens_per_cpu_s": _whole(taken.tokens / cpu),
        "gflop_per_s": _whole(taken.gflop / wall),
        "share_of_peak": taken.gflop / wall / peak["gflop_per_s"],
        "share_of_peak_cpu": taken.gflop / cpu / peak["gflop_per_cpu_s"],
    }


def _whole(rate: float) -> float:
    """A rate as documents quote it; more digits would be of this run, not of the machine."""
    return round(rate) if rate >= 10 else round(rate, 2)


def main(args: argparse.Namespace) -> int:
    """Print the report's section; ``--json`` gets the record that ``eval --throughput`` takes."""
    cores = os.cpu_count() or 1
    device = pick_device(args.device)
    threads = args.threads or ([1, cores] if cores > 1 and device.type == "cpu" else [1])
    if min([*threads, args.repeats]) < 1 or args.batch_size < 2:
        raise NLAError(
            "Nothing can be measured like that",
            why=f"--threads {threads}, --repeats {args.repeats}, --batch-size {args.batch_size}",
            fix="Use at least one thread, one repeat and a batch of two",
        )
    tests = TestSet.load(pair_home(args.nla) / FOLDER)
    if len(tests.rows) < args.batch_size:
        raise NLAError(
            f"The test set of {args.nla} is smaller than a batch",
            why=f"It has {len(tests.rows)} vectors, --batch-size is {args.batch_size}",
            fix="Use a smaller --batch-size",
        )
    pair = find_pair(args.nla)
    bench = Bench(
        find_halves(pair=args.nla),
        pair.reference,
        tests,
        device,
        pick_dtype(device, args.dtype),
        args.batch_size,
        args.explanation_tokens,
    )
    load_before = os.getloadavg()[0]
    measured = measure(bench, list(dict.fromkeys(threads)), args.repeats)
    record: dict[str, Any] = {
        "pair_id": pair.pair_id,
        "target": pair.target,
        "processor": processor(device),
        "cores": cores,
        "device": device.type,
        "dtype": _name(bench.dtype),
        "torch": torch.__version__,
        "batch_size": bench.batch,
        "group": GROUP,
        "repeats": args.repeats,
        "explanation_tokens": bench.explanation_tokens,
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        "note": args.note,
        "formula": FORMULA,
        **measured,
    }
    print(section(record))
    write_result(args, record)
    return EXIT_OK


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
