"""``bench publish``: memory and time of publishing datasets of growing size, and of opening them.

Knows how a synthetic dataset is published and opened in processes of their own. Knows nothing of
what is in it. The decision a reader would question: times are of processor time, and beside the
openings stands the clock; opening is what the app does before its first page and its first search,
without the imports, which are the same for every size and are told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from nla_core.errors import EXIT_CHECK_FAILED, EXIT_OK, NLAError
from nla_core.search import Query, Search
from nla_core.store import vectors
from nla_core.store.dataset import Dataset
from nla_core.store.manifest import current_version
from precompute.benches.machine import conditions, exponent
from precompute.benches.million import make_million
from precompute.output import say, write_result
from precompute.publish import derive

SIZES: Final = (10_000, 100_000, 1_000_000)
OPEN_TARGET_S: Final = 3.0
GROWN: Final = ("publish_s", "publish_own_mb", "derive_s", "derive_own_mb", "open_cpu_s")
"""What is told an exponent of: 1 grows in step with the readings, 0 does not grow."""


def child(*words: str) -> dict[str, float]:
    """Run this module in a process of its own: what it says, and its peak memory in megabytes,
    all of it and what is its `own_mb`.

    Raises NLAError where it fails.
    """
    command = [sys.executable, "-m", "precompute.benches.publish", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    own = 0.0
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        own = max(own, own_mb(process.pid))
        time.sleep(0.05)
    _, status, used = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stdout is not None
    with process.stdout as stream:  # a line or two, which a pipe holds until they are read
        said = stream.read().strip().splitlines()
    if process.returncode or not said:
        raise NLAError(
            f"A step of the benchmark ended with code {process.returncode}",
            why=f"`{' '.join(command)}`",
            fix="Read what it said above; a code of -9 mostly means that memory ran out",
        )
    return {**json.loads(said[-1]), "peak_mb": used.ru_maxrss / 1024, "own_mb": own}


def own_mb(pid: int) -> float:
    """Memory of a process that no file backs, in megabytes; 0 where the system does not tell it.

    Pages of mapped files count as resident, too, but the system takes them back when it likes.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return 0.0
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def bench_publish(source: Path, sizes: tuple[int, ...], home: Path) -> dict[str, Any]:
    """Publish, derive and open a synthetic dataset of each size under ``home``, one at a time."""
    found: list[dict[str, Any]] = []
    for rows in sizes:
        root = home / f"readings-{rows}"
        made = child("make", str(source), str(root), str(rows))
        derived = child("derive", str(root))
        opened = child("open", str(root))
        version = root / current_version(root)
        published = sum(file.bytes for file in Dataset.open(root).manifest.files.values())
        whole = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
        found.append(
            {
                "readings": int(made["readings"]),
                "publish_s": round(made["publish_s"], 1),
                "publish_rows_per_s": round(made["readings"] / made["publish_s"]),
                "publish_peak_mb": round(made["peak_mb"]),
                "publish_own_mb": round(made["own_mb"]),
                "making_s": round(made["rows_s"] + made["vectors_s"], 1),
                "derive_s": round(derived["cpu_s"], 1),
                "derive_peak_mb": round(derived["peak_mb"]),
                "derive_own_mb": round(derived["own_mb"]),
                **{name: round(opened[name], 2) for name in opened if name.endswith("_s")},
                "open_peak_mb": round(opened["peak_mb"]),
                "bytes_a_reading": round(published / made["readings"]),
                "derived_bytes_a_reading": round((whole - published) / made["readings"]),
            }
        )
        last = found[-1]
        say(
            f"{last['readings']:,} readings: {last['publish_rows_per_s']:,} a second published, "
            f"{last['publish_peak_mb']:,} MB at most, page open in {last['open_s']:.2f} s"
        )
        shutil.rmtree(root)
    return {
        "sizes": found,
        "exponents": {name: growth(found, name) for name in GROWN},
        "largest_open_s": found[-1]["open_s"],
        "open_target_s": OPEN_TARGET_S,
    }


def growth(found: list[dict[str, Any]], what: str) -> float | None:
    """`exponent` of ``what`` over the readings."""
    slope = exponent([one["readings"] for one in found], [max(one[what], 1e-3) for one in found])
    return None if slope is None else round(slope, 3)


def opening(root: Path) -> dict[str, float]:
    """Seconds, and seconds of processor time, until there is a page, a search and a first hit."""
    began, spent = time.perf_counter(), time.process_time()
    dataset = Dataset.open(root)
    listed = dataset.transcripts(sort="mean_fve", descending=True, limit=50)
    dataset.tokens(listed["transcript_id"].iloc[0])
    dataset.readings(listed["transcript_id"].iloc[0])
    page, page_cpu = time.perf_counter() - began, time.process_time() - spent
    Search.over(dataset, _no_encoder).search(Query("river", mode="keyword"))
    words, words_cpu = time.perf_counter() - began, time.process_time() - spent
    began, spent = time.perf_counter(), time.process_time()
    vectors.open_index(dataset).nearest(dataset.explanation_vectors()[0].astype("float32"), 10)
    return {
        "open_s": page,
        "open_cpu_s": page_cpu,
        "first_words_s": words,
        "first_words_cpu_s": words_cpu,
        "first_nearest_s": time.perf_counter() - began,
        "first_nearest_cpu_s": time.process_time() - spent,
    }


def _no_encoder(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError("words are searched for without an encoder")


def main(args: argparse.Namespace) -> int:
    """Print a line a size; ``--json`` gets all of it. Fails where the largest opens too slowly."""
    load_before = os.getloadavg()[0]
    sizes = tuple(args.sizes or SIZES)
    with tempfile.TemporaryDirectory(prefix="nla-publish-", dir=args.dir) as home:
        result = bench_publish(args.dataset, sizes, Path(home))
    result["ok"] = result["largest_open_s"] <= OPEN_TARGET_S
    result |= conditions(torch.device("cpu"), torch.float32, args.note, load_before)
    write_result(args, result)
    return EXIT_OK if result["ok"] else EXIT_CHECK_FAILED


def _step(words: list[str]) -> dict[str, float]:
    match words:
        case ["make", source, root, rows]:
            spent: dict[str, float] = {}
            make_million(Dataset.open(Path(source)), Path(root), int(rows), spent=spent)
            counts = json.loads(
                (Path(root) / current_version(Path(root)) / "manifest.json").read_text("utf-8")
            )["counts"]
            return {**spent, "readings": counts["readings"]}
        case ["derive", root]:
            began = time.process_time()
            derive(Path(root), current_version(Path(root)))
            return {"cpu_s": time.process_time() - began}
        case ["open", root]:
            return opening(Path(root))
    raise SystemExit(f"make SOURCE ROOT ROWS, derive ROOT, or open ROOT; not {words}")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_step(sys.argv[1:])) + "\n")
