"""Published figures of GPUs that people rent: what a plan for a machine that is not here goes by.

Knows data sheets and rough prices. Measures nothing. The decision a reader would question: prices
are assumptions in US dollars an hour, since they change from week to week and from seller to
seller; ``plan --usd-per-hour`` replaces them, and a plan says which it used.
"""

from __future__ import annotations

from dataclasses import dataclass

from nla_core.errors import NLAError


@dataclass(frozen=True, slots=True)
class Gpu:
    """Dense bf16 (T4: fp16) peak, memory bandwidth and size as published; an assumed price."""

    gflop_per_s: float
    gbyte_per_s: float
    memory_gib: float
    usd_per_hour: float


GPUS: dict[str, Gpu] = {
    "t4": Gpu(65_000, 320, 16, 0.4),
    "l4": Gpu(121_000, 300, 24, 0.8),
    "a10": Gpu(125_000, 600, 24, 1.0),
    "rtx4090": Gpu(165_000, 1008, 24, 0.6),
    "a100-40": Gpu(312_000, 1555, 40, 1.5),
    "a100-80": Gpu(312_000, 2039, 80, 2.0),
    "h100": Gpu(989_000, 3350, 80, 3.0),
    "h200": Gpu(989_000, 4800, 141, 4.0),
}
LAUNCH_S = 8e-6
LAUNCHES_A_BLOCK = 15
"""Kernels that one block of a decoder starts in eager mode, and what starting one takes."""


def gpu(name: str) -> Gpu:
    """The row of the table. Raises NLAError for a name that is not in it."""
    if name not in GPUS:
        raise NLAError(
            f"No figures of a GPU '{name}'",
            why=f"known are {', '.join(GPUS)}",
            fix="Choose one of these, or add a row to precompute/gpus.py",
        )
    return GPUS[name]
