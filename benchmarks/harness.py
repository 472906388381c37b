"""What all benchmarks share: flags, clocks, facts about the machine, and the form of a record.

A record holds figures. A figure with ``better`` is a ratio against a reference that was measured in
the same run, so it can be compared between machines and days; the others belong to one machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "docs" / "benchmarks"
PAIR = ROOT / "data/nla/smollm2-135m-L20"
DATASET = ROOT / "data/demo"
PACKAGES = ("torch", "transformers", "streamlit", "duckdb", "numpy")
MATMUL_SIZES = (512, 1024, 2048)
MATMUL_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, what it means, and for a ratio which way is better."""

    value: float
    what: str
    unit: str = ""
    better: Literal["higher", "lower"] | None = None


@dataclass(slots=True)
class Spent:
    """Seconds by the clock, and of processor time of all threads of this process."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def on(self, device: str) -> float:
        """What counts: processor time on a CPU, which other work disturbs least; else the clock."""
        return self.cpu_s if device == "cpu" else self.wall_s


@contextmanager
def clock(device: str = "cpu") -> Iterator[Spent]:
    """Time what is inside; on a GPU until its work has ended."""
    spent = Spent()
    _synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield spent
    finally:
        _synchronize(device)
        spent.wall_s = time.perf_counter() - wall
        spent.cpu_s = time.process_time() - cpu


def _synchronize(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def matmul_gflop_per_s(device: str, dtype: Any) -> float:
    """Best rate of a square matrix product, over the seconds of `Spent.on`."""
    import torch

    best = 0.0
    for size in MATMUL_SIZES:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        torch.mm(left, right)
        began, repeats = time.perf_counter(), 0
        with clock(device) as spent:
            while repeats < 4 or time.perf_counter() - began < MATMUL_SECONDS:
                torch.mm(left, right)
                repeats += 1
        best = max(best, 2 * size**3 * repeats / 1e9 / spent.on(device))
    return best


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """The slope of log values over log sizes by least squares; None for fewer than two."""
    if len(sizes) < 2:
        return None
    x, y = [math.log(n) for n in sizes], [math.log(s) for s in values]
    middle = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - middle[0]) * (b - middle[1]) for a, b in zip(x, y, strict=True))
    return over / sum((a - middle[0]) ** 2 for a in x)


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that every benchmark has."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--out", type=Path, metavar="DIR", help="write the record into this folder")
    made.add_argument("--note", default="", help="what else the machine was doing")
    return made


def add_model_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("--nla", type=Path, default=PAIR, metavar="DIR")
    made.add_argument("--device", default="auto", help="auto, cpu or cuda")
    made.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")


def model_label(device: str, dtype: Any) -> str:
    """``cuda``, ``cpu``, or ``cpu-bf16`` where the CPU multiplies bfloat16."""
    return "cpu-bf16" if device == "cpu" and "bfloat16" in str(dtype) else device


def cores_label() -> str:
    return f"{os.cpu_count()}-cores"


def machine() -> dict[str, Any]:
    """Processor, cores, threads and versions; the GPU where torch was loaded and sees one."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {},
    }
    for package in PACKAGES:
        try:
            found["packages"][package] = version(package)
        except PackageNotFoundError:
            continue
    if torch := sys.modules.get("torch"):
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def finish(
    args: argparse.Namespace,
    name: str,
    label: str,
    figures: Mapping[str, Figure],
    *,
    load_before: float,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Print the figures, and write the record where ``--out`` says; returns the record."""
    record = {
        "benchmark": name,
        "label": label,
        "figures": {key: asdict(figure) for key, figure in figures.items()},
        "settings": dict(settings),
        "machine": machine(),
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "note": args.note,
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    for figure in figures.values():
        sys.stdout.write(f"{shown(figure.value, figure.unit):>12}  {figure.what}\n")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, indent=2) + "\n"
        (args.out / f"{name}-{label}.json").write_text(text, encoding="utf-8")
    return record


def shown(value: float, unit: str) -> str:
    """Three digits or whole numbers, with the unit."""
    number = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:#.3g}"
    return number + ("" if unit in ("", "×", "%") else " ") + unit


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
