"""``bench roofline``, ``ar`` and ``extract``: what the stages of a reading reach of their floors.

Knows how fast the machine multiplies and reads memory, and how much of both each stage asks for.
Does not know the stages (see reading.py). The decision a reader would question: the floor counts
useful work alone. Padding, attention scores, norms and sampling cost time and are in no floor, so a
share tells how much of the time went into products that no implementation could leave out.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nla_core.errors import EXIT_OK
from nla_core.nla.pair import find_pair, load_pair, pair_home
from precompute.benches.flops import clock, matmul_peak
from precompute.benches.machine import conditions
from precompute.benches.reading import STAGES, Material, Stage
from precompute.output import say, write_result
from precompute.testset import FOLDER, TestSet

TRIAD_BYTES = 1 << 28
TRIAD_SECONDS = 0.5
REPEATS = 3
TARGET_SHARE = {"ar": 0.7, "extract": 0.7}
FORMULA = (
    "floor = sum over passes of max(operations / matrix peak, bytes / bandwidth); operations 2 P a "
    "position and 2 H a position whose next token is asked for, bytes those of the weights "
    "once a pass and of keys and values that are read; P weights of the blocks' matrices, H of the "
    "head; padding, attention scores, norms, embeddings and sampling are in no floor"
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Rates by the clock and by processor time of all threads; on a GPU only the clock counts."""

    gflop_per_s: float
    gflop_per_cpu_s: float
    gbyte_per_s: float
    gbyte_per_cpu_s: float

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype) -> Machine:
        return cls(**matmul_peak(device, dtype), **bandwidth(device))

    def best(self, other: Machine) -> Machine:
        """Of two measurements the better one of each: load beside them comes and goes."""
        return Machine(*map(max, asdict(self).values(), asdict(other).values()))


def bandwidth(device: torch.device) -> dict[str, float]:
    """Best rate of ``a = b + s c`` over arrays larger than any cache, in 10^9 bytes a second."""
    a, b, c = (torch.ones(TRIAD_BYTES // 4, device=device) for _ in range(3))
    best = {"gbyte_per_s": 0.0, "gbyte_per_cpu_s": 0.0}
    began = time.perf_counter()
    torch.add(b, c, alpha=2.0, out=a)
    while time.perf_counter() - began < TRIAD_SECONDS:
        with clock(device) as spent:
            torch.add(b, c, alpha=2.0, out=a)
        gbyte = 3 * TRIAD_BYTES / 1e9
        best["gbyte_per_s"] = max(best["gbyte_per_s"], gbyte / spent.wall_s)
        best["gbyte_per_cpu_s"] = max(best["gbyte_per_cpu_s"], gbyte / spent.cpu_s)
    return best


def measure(stages: list[Stage], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """``machine`` and, by stage, its time, its floor and floor / time by either clock.

    The fastest of some runs of a stage counts, and the best peak before and after each.
    """
    machine = Machine.of(device, dtype)
    taken = {}
    for stage in stages:
        stage.run()  # what is done once is no stage's work
        best_wall = best_cpu = float("inf")
        for _ in range(REPEATS):
            with clock(device) as spent:
                work = stage.run()
            best_wall, best_cpu = min(best_wall, spent.wall_s), min(best_cpu, spent.cpu_s)
        machine = machine.best(Machine.of(device, dtype))
        taken[stage.name] = (work, best_wall, best_cpu)
        say(f"{stage.name}: {best_wall:.2f} s, {best_cpu:.2f} s of processor time")
    found: dict[str, Any] = {}
    for name, (work, wall, cpu) in taken.items():
        floor = work.floor(machine.gflop_per_s, machine.gbyte_per_s)
        floor_cpu = work.floor(machine.gflop_per_cpu_s, machine.gbyte_per_cpu_s)
        reached = floor / wall if device.type == "cuda" else floor_cpu / cpu
        found[name] = {
            "units": work.units,
            "passes": len(work.passes),
            "gflop": sum(work.passes_gflop),
            "gbyte": sum(work.passes_gbyte),
            "bound_by": work.bound_by(machine.gflop_per_s, machine.gbyte_per_s),
            "seconds": wall,
            "cpu_seconds": cpu,
            "floor_s": floor,
            "floor_cpu_s": floor_cpu,
            "reached": reached,
        }
    return {"machine": asdict(machine), "stages": found}


def table(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        f"matrix product {machine['gflop_per_s']:,.0f} GFLOP/s, memory "
        f"{machine['gbyte_per_s']:.1f} GB/s ({result['dtype']}, {result['threads']} thread(s))"
    ]
    lines += [
        f"{name:8} {found['cpu_seconds']:8.2f} s of processor time, floor "
        f"{found['floor_cpu_s']:8.2f} s ({found['bound_by']}), reached {found['reached']:.0%}"
        for name, found in result["stages"].items()
    ]
    return "\n".join(lines)


def main(args: argparse.Namespace) -> int:
    """Print machine and shares; ``--json`` gets all of it."""
    load_before = os.getloadavg()[0]
    loaded = load_pair(find_pair(args.nla), device=args.device, dtype=args.dtype)
    tests = TestSet.load(pair_home(args.nla) / FOLDER)
    material = Material.of(loaded, tests, args.vectors, args.explanation_tokens)
    names = list(STAGES) if args.what == "roofline" else [args.what]
    stages = [STAGES[name](material) for name in names]
    parts = loaded.verbalizer.parts
    result = {
        **conditions(parts.device, parts.product_dtype, args.note, load_before),
        "pair_id": loaded.pair.pair_id,
        "vectors": len(material.vectors),
        "max_new_tokens": args.explanation_tokens,
        "formula": FORMULA,
        **measure(stages, parts.device, parts.product_dtype),
        "targets": TARGET_SHARE,
    }
    print(table(result))
    write_result(args, result)
    return EXIT_OK
