"""Search by meaning, exactly and through the index, over growing numbers of vectors; by words.

Vectors are drawn from the real ones of a dataset: one of them, moved towards another, with noise,
so that they cluster as real ones do, which decides recall. The exact search over the same vectors
is the reference. Searches for words and for a phrase go through the whole search of the dataset as
it stands, with words of its own texts.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import harness
from benchmarks.harness import Figure
from nla_core.data import vector_shards, vectors
from nla_core.data.dataset import Dataset
from nla_core.data.query import Query
from nla_core.data.search import Search
from nla_core.embed import MiniLM

NAME = "search"
NEAREST: Final = 10
BLOCK: Final = 1024
PAGE: Final = 20
TO_OTHER, NOISE = 0.35, 0.15


def drawn(real: np.ndarray, n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """``n`` rows of length one, in blocks."""
    for start in range(0, n, BLOCK):
        rows = min(BLOCK, n - start)
        one, other = rng.choice(len(real), size=(2, rows))
        noise = rng.normal(size=(rows, real.shape[1])) / np.sqrt(real.shape[1])
        made = real[one] + TO_OTHER * (real[other] - real[one]) + NOISE * noise
        yield (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def by_size(real: np.ndarray, sizes: Sequence[int], n_queries: int) -> dict[str, Figure]:
    """Milliseconds of processor time of a query each way, recall, and the ratio."""
    figures: dict[str, Figure] = {}
    for size in sizes:
        rng = np.random.default_rng(size)
        with tempfile.TemporaryDirectory(prefix="nla-bench-") as home:
            folder = Path(home)
            (folder / "vectors").mkdir()
            names = vector_shards.write(folder, size, drawn(real, size, rng))
            rows = vector_shards.read(folder, names)
            queries = np.concatenate([*drawn(real, n_queries, rng)])
            truth, exact_ms = ask(vectors.ExactIndex(rows), queries)
            began = time.process_time()
            index = vectors.ApproximateIndex(
                rows, vectors.build(rows, folder / Path(vectors.FILE).name)
            )
            build_s = time.process_time() - began
            found, index_ms = ask(index, queries)
        hits = sum(len(one & true) for one, true in zip(found, truth, strict=True))
        recall = hits / sum(map(len, truth))
        at = f"{size:,} vectors"
        figures |= {
            f"exact_{size}_ms": Figure(exact_ms, f"exact search, {at}", "ms"),
            f"index_{size}_ms": Figure(index_ms, f"search through the index, {at}", "ms"),
            f"index_{size}_against_exact": Figure(
                exact_ms / index_ms, f"times as fast through the index, {at}", "×", "higher"
            ),
            f"recall_{size}": Figure(
                recall, f"share of the ten nearest that the index finds, {at}", "", "higher"
            ),
            f"build_{size}_s": Figure(build_s, f"building the index, {at}", "s"),
        }
        harness.say(f"{at}: exact {exact_ms:.1f} ms, index {index_ms:.1f} ms, recall {recall:.3f}")
    return figures


def ask(index: vectors.VectorIndex, queries: np.ndarray) -> tuple[list[set[int]], float]:
    """The neighbours of each query, and the median of processor milliseconds."""
    index.nearest(queries[0], NEAREST)
    found: list[set[int]] = []

    def nearest(query: np.ndarray) -> None:
        found.append({*index.nearest(query, NEAREST)[0].tolist()})

    taken = [_processor_ms(nearest, query) for query in queries]
    return found, float(np.median(taken))


def by_words(dataset: Dataset, n_queries: int) -> dict[str, Figure]:
    """The first page of hits for words of the texts and, with the encoder, for phrases."""
    encoder = MiniLM()
    search = Search.over(dataset, encoder.embed, encoder.name)
    search.prepare()
    rng = np.random.default_rng(7)
    texts = [text.split() for text in dataset.some_explanations(500)]
    long = [words for words in texts if len(words) > 6] or texts

    def phrase(n: int) -> str:
        words = long[rng.integers(len(long))]
        start = rng.integers(max(1, len(words) - n))
        return " ".join(words[start : start + n])

    def page(query: Query) -> None:
        search.search(query, limit=PAGE)

    page(Query("warm"))
    asked = {
        "keyword": [Query(phrase(1), mode="keyword") for _ in range(n_queries)],
        "hybrid": [Query(phrase(4)) for _ in range(n_queries)],
    }
    what = {"keyword": "a word", "hybrid": "four words, by words and by meaning"}
    n = dataset.manifest.counts["readings"]
    figures = {}
    for mode, queries in asked.items():
        taken = [_processor_ms(page, query) for query in queries]
        for name, share, said in (("p50", 0.5, "median"), ("p95", 0.95, "95 % below")):
            figures[f"{mode}_{name}_ms"] = Figure(
                float(np.quantile(taken, share)),
                f"first page for {what[mode]}, {n:,} readings, {said}",
                "ms",
            )
    return figures


def _processor_ms(call: Callable[[Any], None], argument: Any) -> float:
    began = time.process_time()
    call(argument)
    return 1000 * (time.process_time() - began)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = harness.parser(NAME, __doc__)
    parser.add_argument("--dataset", type=Path, default=harness.DATASET, metavar="DIR")
    sizes = [10_000, 50_000, 200_000]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes, metavar="N")
    parser.add_argument("--queries", type=int, default=50)
    args = parser.parse_args(argv)
    load_before = os.getloadavg()[0]
    dataset = Dataset.open(args.dataset)
    real = np.asarray(dataset.explanation_vectors(), dtype=np.float32)
    figures = by_size(real, args.sizes, args.queries) | by_words(dataset, args.queries)
    return harness.finish(
        args,
        NAME,
        harness.cores_label(),
        figures,
        load_before=load_before,
        settings={
            "dataset": args.dataset.name,
            "dimension": real.shape[1],
            "queries": args.queries,
            "index_from": vectors.APPROXIMATE_FROM,
        },
    )


if __name__ == "__main__":
    main()
