"""``bench vectors``: exact search for neighbours against the approximate index, by size.

Knows which rows are searched and what is measured. Does not know how either search works. The
decision a reader would question: rows are drawn from the real vectors of a dataset the way
`million.py` makes synthetic ones, without texts, because how directions cluster decides recall.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from nla_core.errors import EXIT_OK
from nla_core.store import vector_shards, vectors
from nla_core.store.dataset import Dataset
from precompute.benches.machine import conditions
from precompute.benches.million import synthetic_vectors
from precompute.output import say, write_result

SIZES: Final = (10_000, 20_000, 50_000, 100_000, 200_000)
NEAREST: Final = 10


def measure(rows: vector_shards.Rows, queries: np.ndarray, folder: Path) -> dict[str, Any]:
    """One record: processor milliseconds of a query each way, recall, build and size."""
    exact = vectors.ExactIndex(rows)
    truth, exact_ms = _asked(exact, queries)
    path = folder / Path(vectors.FILE).name
    began = time.process_time()
    index = vectors.ApproximateIndex(rows, vectors.build(rows, path))
    build_s = time.process_time() - began
    found, approximate_ms = _asked(index, queries)
    hits = sum(len(one & true) for one, true in zip(found, truth, strict=True))
    return {
        "rows": len(rows),
        "exact_ms": round(exact_ms, 2),
        "approximate_ms": round(approximate_ms, 2),
        "recall_at_10": round(hits / sum(map(len, truth)), 4),
        "build_s": round(build_s, 2),
        "index_mb": round(sum(one.stat().st_size for one in folder.glob("*.ivf-*")) / 1e6, 3),
    }


def _asked(index: vectors.VectorIndex, queries: np.ndarray) -> tuple[list[set[int]], float]:
    """The neighbours of each query, and the median of processor milliseconds."""
    found, taken = [], []
    index.nearest(queries[0], NEAREST)
    for query in queries:
        began = time.process_time()
        rows, _ = index.nearest(query, NEAREST)
        taken.append(time.process_time() - began)
        found.append({*rows.tolist()})
    return found, 1000 * float(np.median(taken))


def main(args: argparse.Namespace) -> int:
    """Print a line a size; ``--json`` gets all of it."""
    load_before = os.getloadavg()[0]
    dataset, sizes = Dataset.open(args.dataset), tuple(args.sizes or SIZES)
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="nla-vectors-", dir=args.dir) as home:
            folder = Path(home)
            (folder / "vectors").mkdir()
            made = itertools.islice(synthetic_vectors(dataset, size), size)
            blocks = iter(lambda: [*itertools.islice(made, 1024)], [])  # noqa: B023
            names = vector_shards.write(folder, size, map(np.stack, blocks))
            rows = vector_shards.read(folder, names)
            rng = np.random.default_rng(1)
            asked = rows[rng.choice(size, args.queries)].astype(np.float32)
            asked += 0.3 * rng.normal(size=asked.shape).astype(np.float32) / asked.shape[1] ** 0.5
            found.append(measure(rows, asked, folder))
        last = found[-1]
        say(
            f"{size:,} rows: exact {last['exact_ms']} ms, index {last['approximate_ms']} ms with "
            f"recall {last['recall_at_10']}"
        )
    result = {
        "sizes": found,
        "queries": args.queries,
        "dimension": int(dataset.explanation_vectors().shape[1]),
        "approximate_from": vectors.APPROXIMATE_FROM,
        **conditions(torch.device("cpu"), torch.float32, args.note, load_before),
    }
    write_result(args, result)
    return EXIT_OK
