"""``bench search``: times, recall and memory of search over a large synthetic dataset.

Knows which queries are asked and what is measured. Does not know how the dataset is made (see
`million.py`) nor how search works. The decision a reader would question: making and building happen
in another process, so that the memory reported is that of a process that only searches.

No query is asked twice, so nothing comes from a cache but pages of files. The targets are those of
the two-core machine that the app has to run on, and are held against wall time; processor time (of
all threads of the process) stands beside it, because a busy machine says little by its clock.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from nla_core.embed import MiniLM
from nla_core.errors import EXIT_CHECK_FAILED, EXIT_OK
from nla_core.schema import Flag, Role
from nla_core.search import Filters, Query, Search
from nla_core.search.facets import Facets
from nla_core.store import fts, vectors
from nla_core.store.dataset import Dataset
from nla_core.store.manifest import CURRENT
from nla_core.store.vector_shards import Rows
from precompute.benches.million import make_million
from precompute.output import say, write_result

TARGETS = {"hybrid_p95_ms": 150, "keyword_p95_ms": 30, "recall_at_10": 0.97, "resident_mb": 2048}
PAGE = 20
BLOCK = 16_384
FILTERS = {
    "answers": Filters(roles=(Role.ASSISTANT,)),
    "faithful": Filters(fve_min=0.5),
    "unflagged": Filters(no_flags=(*Flag,)),
    "late": Filters(positions=(100, None)),
    "one category": Filters(categories=("facts",)),
    "narrow": Filters(
        roles=(Role.ASSISTANT,), categories=("facts",), fve_min=0.5, no_flags=(Flag.CUT,)
    ),
}


def main(args: argparse.Namespace) -> int:
    """Print a table; exit code 1 where a target is missed."""
    with _folder(args.dir) as root:
        result = measure(root, args.dataset, args.rows, args.queries)
    result["note"] = args.note
    for name, value in result.items():
        print(f"{name:>24}  {_shown(value)}")
    missed = [name for name, met in result["targets_met"].items() if not met]
    print("All targets are met." if not missed else f"Missed: {', '.join(missed)}")
    write_result(args, {"ok": not missed, **result})
    return EXIT_CHECK_FAILED if missed else EXIT_OK


def measure(root: Path, source: Path, rows: int, queries: int) -> dict[str, Any]:
    """All figures; times in ms where their name does not say s."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as other:
        built = other.submit(make_and_build, root, source, rows).result()
    say("made and built; searching")
    started = time.perf_counter()
    dataset, encoder = Dataset.open(root), MiniLM()
    search = Search.over(dataset, encoder.embed, encoder.name)
    open_s = time.perf_counter() - started
    started = time.perf_counter()
    search.prepare()
    result: dict[str, Any] = {
        **built,
        "rows": dataset.manifest.counts["readings"],
        "transcripts": dataset.manifest.counts["transcripts"],
        "open_s": round(open_s, 2),
        "encoder_and_index_s": round(time.perf_counter() - started, 2),
    }
    phrases = Phrases(search, np.random.default_rng(7))
    asked = timings(search, phrases, queries)
    result["embed_ms"] = quantiles(
        seconds(lambda text: encoder.embed([text]), phrases.several(queries))
    )
    result |= asked
    result["resident_mb"] = resident_mb()
    say("comparing the index with exact search")
    truth = np.concatenate(
        [encoder.embed([*phrases.several(60)]), dataset.explanation_vectors()[:: rows // 60][:60]]
    ).astype(np.float32)
    result["recall_at_10"] = recalls(dataset, Facets(dataset), truth)
    result["cores"], result["processor"] = os.cpu_count(), platform.machine()
    result["load_average"] = [round(one, 1) for one in os.getloadavg()]
    result["omp_threads"] = os.environ.get("OMP_NUM_THREADS", "all")
    result["targets"] = TARGETS
    result["targets_met"] = {
        "hybrid_p95_ms": result["hybrid_ms"]["p95"] < TARGETS["hybrid_p95_ms"],
        "keyword_p95_ms": result["keyword_ms"]["p95"] < TARGETS["keyword_p95_ms"],
        "recall_at_10": min(result["recall_at_10"].values()) >= TARGETS["recall_at_10"],
        "resident_mb": result["resident_mb"] < TARGETS["resident_mb"],
    }
    return result


def make_and_build(root: Path, source: Path, rows: int) -> dict[str, Any]:
    """Seconds and MB of the dataset and of each derived file; an existing dataset is used as is,
    its derived files are built again."""
    made = None
    if not (root / CURRENT).exists():
        started = time.perf_counter()
        make_million(Dataset.open(source), root, rows)
        made = round(time.perf_counter() - started, 1)
    dataset = Dataset.open(root)
    started = time.perf_counter()
    fts.build(dataset)
    words_s = time.perf_counter() - started
    started = time.perf_counter()
    (dataset.directory / vectors.FILE).unlink(missing_ok=True)
    index = vectors.open_index(dataset)
    sizes = {"fts_mb": "fts.sqlite", "index_mb": "vectors/*.ivf-*", "vectors_mb": "vectors/*.npy"}
    return {
        "make_s": made,
        "fts_build_s": round(words_s, 1),
        "index_build_s": round(time.perf_counter() - started, 1),
        "index": index.kind,
        **{
            name: round(sum(file.stat().st_size for file in found) / 2**20)
            for name, pattern in sizes.items()
            if (found := [*dataset.directory.glob(pattern)])
        },
    }


# ---- what is asked -------------------------------------------------------------------------------


MOST_TRIES = 200
"""Draws for a phrase that was not asked for yet."""


class Phrases:
    """Queries drawn from the texts themselves, none of them twice."""

    def __init__(self, search: Search, rng: np.random.Generator) -> None:
        total = search.dataset.manifest.counts["readings"]
        rows = rng.choice(total, size=min(4_000, total), replace=False)
        self._text = fts.FullText(search.dataset)
        self._total, self._known = total, dict[str, bool]()
        texts = self._text.readings(rows.tolist())
        self._words = [texts[row][1].split() for row in sorted(texts)]
        self._rng = rng
        self._asked: set[str] = set()

    def _fresh(self, n: int, make: Callable[[list[str]], str]) -> Iterator[str]:
        """Phrases that were not asked for; a small dataset has fewer of them, and then they repeat
        (or, where none can be made, two words of a text stand in)."""
        for _ in range(n):
            text = ""
            for _ in range(MOST_TRIES):
                words = self._words[self._rng.integers(len(self._words))]
                made = make(words).strip() if len(words) > 6 else ""
                text = made or text
                if made and made not in self._asked:
                    break
            text = text or " ".join(map(_bare, words[:2]))
            self._asked.add(text)
            yield text

    def several(self, n: int) -> Iterator[str]:
        """Two to five telling words of one text, in their order: a subject to search for."""

        def make(words: list[str]) -> str:
            telling = [word for word in map(_bare, words) if self._tells(word)]
            start = self._rng.integers(max(len(telling) - 1, 1))
            chosen = telling[start : start + self._rng.integers(2, 6)]
            return " ".join(chosen) if len(chosen) > 1 else ""

        return self._fresh(n, make)

    def _tells(self, word: str) -> bool:
        """Letters only, and not in a tenth of all texts as the words of their fixed form are."""
        if word not in self._known:
            share = self._text.documents(word)[0] / self._total
            self._known[word] = len(word) > 2 and word.isalpha() and share < 0.1
        return self._known[word]

    def keywords(self, n: int) -> Iterator[str]:
        """Words, prefixes of every length, pairs, phrases and minus words, in equal parts; drawn as
        often as they stand in the texts, so the words of their fixed form are among them."""

        def make(words: list[str]) -> str:
            first, second, third = self._rng.choice(len(words) - 1, size=3, replace=False)
            one, two = (_bare(words[place]) for place in (first, second))
            pair = " ".join(words[third : third + 2]).replace('"', "")
            forms = [
                f"{one} ",
                one[: self._rng.integers(1, max(len(one), 2))],
                f"{one} {two}",
                f'"{pair}"',
                f"{one} -{two}",
            ]
            return str(forms[self._rng.integers(len(forms))])

        return self._fresh(n, make)


def _bare(word: str) -> str:
    return word.strip("\"'.,:;?!()[]…")


def timings(search: Search, phrases: Phrases, n: int) -> dict[str, Any]:
    """p50 and p95 of a first page, by kind of query."""

    def ask(query: Query) -> None:
        search.search(query, limit=PAGE)

    def page(texts: Iterator[str], **settings: Any) -> dict[str, float]:
        return quantiles(seconds(ask, (Query(text, **settings) for text in texts)))

    page(phrases.keywords(10), mode="keyword")  # the first touch of a file is the disk's time
    result: dict[str, Any] = {
        "keyword_ms": page(phrases.keywords(n), mode="keyword"),
        "visible_ms": page(phrases.keywords(n), mode="keyword", within="visible"),
        "unspoken_ms": page(phrases.keywords(n), mode="keyword", unspoken=True),
        "semantic_ms": page(phrases.several(n), mode="semantic"),
        "hybrid_ms": page(phrases.several(n)),
        "hybrid_words_ms": page(phrases.keywords(n)),
    }
    for mode, texts in (("keyword", phrases.keywords), ("hybrid", phrases.several)):
        result[f"{mode}_filtered_ms"] = {
            name: page(texts(max(n // 4, 5)), mode=mode, filters=filters)
            for name, filters in FILTERS.items()
        }
    return result


Taken = list[tuple[float, float]]
"""(wall, processor) seconds of each call."""


def seconds(call: Callable[[Any], Any], inputs: Iterable[Any]) -> Taken:
    taken = []
    for one in inputs:
        wall, processor = time.perf_counter(), time.process_time()
        call(one)
        taken.append((time.perf_counter() - wall, time.process_time() - processor))
    return taken


def quantiles(taken: Taken) -> dict[str, float]:
    wall, processor = np.array(taken).T * 1000
    return {
        "p50": round(float(np.median(wall)), 1),
        "p95": round(float(np.quantile(wall, 0.95)), 1),
        "max": round(float(wall.max()), 1),
        "cpu_p50": round(float(np.median(processor)), 1),
        "cpu_p95": round(float(np.quantile(processor, 0.95)), 1),
    }


# ---- recall and memory ---------------------------------------------------------------------------


def recalls(dataset: Dataset, facets: Facets, queries: np.ndarray) -> dict[str, float]:
    """Share of the ten exactly nearest rows that the index finds, unfiltered and by filter."""
    index = vectors.open_index(dataset)
    masks = {"no filter": None} | {name: facets.mask(one) for name, one in FILTERS.items()}
    best = exact_tens(dataset.explanation_vectors(), queries, masks)
    shares = {}
    for name, mask in masks.items():
        if best[name][0]:  # a filter that leaves nothing has no recall
            found = [{*index.nearest(query, 10, mask)[0].tolist()} for query in queries]
            hits = [
                len(one & true) / len(true) for one, true in zip(found, best[name], strict=True)
            ]
            shares[name] = round(float(np.mean(hits)), 4)
    return shares


def exact_tens(
    rows: Rows, queries: np.ndarray, masks: dict[str, np.ndarray | None]
) -> dict[str, list[set[int]]]:
    """The ten nearest rows of each query under each mask, in one pass over the vectors."""
    held = {name: (np.empty((len(queries), 0)), np.empty((len(queries), 0), int)) for name in masks}
    for start in range(0, len(rows), BLOCK):
        scores = queries @ rows[start : start + BLOCK].astype(np.float32).T
        numbers = np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)
        for name, mask in masks.items():
            here = slice(None) if mask is None else np.flatnonzero(mask[start : start + BLOCK])
            both = np.concatenate([held[name][0], scores[:, here]], axis=1)
            which = np.concatenate([held[name][1], numbers[:, here]], axis=1)
            if both.shape[1] > 10:
                top = np.argpartition(-both, 10, axis=1)[:, :10]
            else:
                top = np.argsort(-both, axis=1)
            held[name] = (
                np.take_along_axis(both, top, axis=1),
                np.take_along_axis(which, top, axis=1),
            )
    return {name: [set(row.tolist()) for row in which] for name, (_, which) in held.items()}


def resident_mb() -> int:
    """Memory of this process that is in RAM, mapped files included."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmRSS"))
        return int(line.split()[1]) // 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="nla-search-") as name:
        yield Path(name) / "dataset"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return f"({value})" if isinstance(value, str) and value else str(value)
