"""``bench publish``: memory and time of publishing datasets of growing size, and of opening them.

Knows how a synthetic dataset is published and opened in processes of their own. Knows nothing of
what is in it. The decision a reader would question: peak memory is that of the process as the
system counts it, the making of the synthetic rows included; they are made block by block, so what
grows with the size is the publishing.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from nla_core.errors import EXIT_OK, NLAError
from nla_core.store.dataset import Dataset
from nla_core.store.manifest import current_version
from precompute.benches.machine import exponent
from precompute.benches.million import make_million
from precompute.output import say, write_result

SIZES: Final = (10_000, 100_000, 1_000_000)


def child(*words: str) -> tuple[float, float]:
    """Run this module in a process of its own: seconds of wall time, peak memory in megabytes.

    Raises NLAError where it fails.
    """
    began = time.perf_counter()
    command = [sys.executable, "-m", "precompute.benches.publish", *words]
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise NLAError(
            f"A step of the benchmark ended with code {process.returncode}",
            why=f"`{' '.join(command)}`",
            fix="Read what it said above; a code of -9 mostly means that memory ran out",
        )
    return time.perf_counter() - began, used.ru_maxrss / 1024


def bench_publish(source: Path, sizes: tuple[int, ...], home: Path) -> dict[str, Any]:
    """Publish and open a synthetic dataset of each size under ``home``."""
    found: list[dict[str, Any]] = []
    for rows in sizes:
        root = home / f"readings-{rows}"
        seconds, memory = child("make", str(source), str(root), str(rows))
        first_s, first_mb = child("open", str(root))  # builds the database of the pages
        again_s, again_mb = child("open", str(root))
        version = root / current_version(root)
        size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
        found.append(
            {
                "readings": rows,
                "publish_s": round(seconds, 1),
                "publish_peak_mb": round(memory),
                "first_open_s": round(first_s, 2),
                "first_open_peak_mb": round(first_mb),
                "open_s": round(again_s, 2),
                "open_peak_mb": round(again_mb),
                "disk_mb": round(size / 1e6),
            }
        )
        say(
            f"{rows:,} readings: published in {seconds:.0f} s with {memory:.0f} MB at most, "
            f"opened in {again_s:.2f} s"
        )
    return {
        "sizes": found,
        "seconds_exponent": growth(found, "publish_s"),
        "memory_exponent": growth(found, "publish_peak_mb"),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "processor": platform.processor() or platform.machine(),
    }


def growth(found: list[dict[str, Any]], what: str) -> float | None:
    """`exponent` of ``what``: 1 grows in step with the readings, 0 does not grow."""
    slope = exponent([one["readings"] for one in found], [max(one[what], 1e-9) for one in found])
    return None if slope is None else round(slope, 3)


def main(args: argparse.Namespace) -> int:
    """Print a line a size; ``--json`` gets all of it."""
    sizes = tuple(args.sizes or SIZES)
    with tempfile.TemporaryDirectory(prefix="nla-publish-", dir=args.dir) as home:
        result = bench_publish(args.dataset, sizes, Path(home))
    if args.note:
        result["note"] = args.note
    write_result(args, result)
    return EXIT_OK


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", source, root, rows]:
            make_million(Dataset.open(Path(source)), Path(root), int(rows))
        case ["open", root]:
            opened = Dataset.open(Path(root))
            opened.transcripts(sort="mean_fve", descending=True, limit=50)
        case other:
            raise SystemExit(f"make SOURCE ROOT ROWS, or open ROOT; not {other}")
