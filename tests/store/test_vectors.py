"""What every index of vectors promises, and what the approximate one adds to it."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nla_core.data import vectors as store
from nla_core.data.dataset import Dataset
from nla_core.data.vector_shards import RowReader
from nla_core.data.vectors import (
    FILE,
    ApproximateIndex,
    ExactIndex,
    VectorIndex,
    build,
    open_index,
    scores_of,
)
from nla_core.errors import NLAError
from tests.helpers import make_dataset

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs faiss")

ROWS, DIMENSION = 3_000, 32


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Clusters of unit vectors, in float16 as they are stored; rows 100-109 are the same."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, DIMENSION))
    made = centres[rng.integers(30, size=ROWS)] + 0.5 * rng.normal(size=(ROWS, DIMENSION))
    made[100:110] = made[100]
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)


def exact(rows: np.ndarray, _: Path) -> VectorIndex:
    return ExactIndex(rows)


def approximate(rows: np.ndarray, folder: Path) -> VectorIndex:
    return ApproximateIndex(rows, build(rows, folder / "x.faiss"))


@pytest.fixture(params=[exact, pytest.param(approximate, marks=needs_faiss)])
def index(
    request: pytest.FixtureRequest,
    rows: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> VectorIndex:
    monkeypatch.setattr(store, "EXACT_SUBSET", 100)  # so that subsets reach the index, too
    make: Callable[[np.ndarray, Path], VectorIndex] = request.param
    return make(rows, tmp_path)


def brute(rows: np.ndarray, query: np.ndarray, k: int, allowed: np.ndarray) -> list[int]:
    scores = rows.astype(np.float64) @ query.astype(np.float64)
    return sorted(np.flatnonzero(allowed).tolist(), key=lambda row: (-scores[row], row))[:k]


def queries(rows: np.ndarray, n: int = 20) -> np.ndarray:
    rng = np.random.default_rng(1)
    made = rows[rng.integers(ROWS, size=n)].astype(np.float32)
    return made + 0.1 * rng.normal(size=made.shape).astype(np.float32)


@pytest.mark.parametrize("share", [None, 0.5, 0.1, 0.01])
def test_the_nearest_are_found(index: VectorIndex, rows: np.ndarray, share: float | None) -> None:
    assert isinstance(index, VectorIndex)
    allowed = None if share is None else np.random.default_rng(2).random(ROWS) < share
    everywhere = np.ones(ROWS, dtype=bool) if allowed is None else allowed
    hits, wanted = 0, 0
    for query in queries(rows):
        found, scores = index.nearest(query, 10, allowed)
        truth = brute(rows, query, 10, everywhere)
        hits, wanted = hits + len({*found.tolist()} & {*truth}), wanted + len(truth)
        assert len(found) == len(truth)
        assert everywhere[found].all()
        np.testing.assert_allclose(scores, rows[found].astype(np.float32) @ query, atol=1e-5)
        assert (np.diff(scores) <= 0).all()
    assert hits / wanted >= (1.0 if index.kind == "exact" else 0.97)


def test_a_filter_that_follows_the_clusters_costs_no_recall(
    index: VectorIndex, rows: np.ndarray
) -> None:
    """What is allowed is far from what is asked for: other lists than the nearest must be read."""
    for query in queries(rows, 10):
        allowed = rows.astype(np.float32) @ query < 0.1
        found, _ = index.nearest(query, 10, allowed)
        assert len({*found.tolist()} & {*brute(rows, query, 10, allowed)}) >= 9


def test_equal_rows_come_in_their_order(index: VectorIndex, rows: np.ndarray) -> None:
    found, scores = index.nearest(rows[100].astype(np.float32), 5)
    assert found.tolist() == [100, 101, 102, 103, 104]
    assert len(set(scores.tolist())) == 1
    assert (found.dtype, scores.dtype) == (np.int64, np.float32)


def test_no_more_come_back_than_there_are(index: VectorIndex, rows: np.ndarray) -> None:
    query = queries(rows, 1)[0]
    nothing = np.zeros(ROWS, dtype=bool)
    assert len(index.nearest(query, 10, nothing)[0]) == 0
    few = nothing.copy()
    few[[7, 2_000]] = True
    assert sorted(index.nearest(query, 10, few)[0].tolist()) == [7, 2_000]
    assert len(index.nearest(query, 0)[0]) == 0
    assert len(np.unique(index.nearest(query, ROWS)[0])) > 0.9 * ROWS


def test_threads_share_it(index: VectorIndex, rows: np.ndarray) -> None:
    asked = queries(rows, 8)
    allowed = np.arange(ROWS) % 3 == 0
    expected = [index.nearest(query, 5, allowed)[0].tolist() for query in asked]
    found: list[bool] = []

    def ask() -> None:
        found.extend(
            index.nearest(query, 5, allowed)[0].tolist() == rows
            for query, rows in zip(asked, expected, strict=True)
        )

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 48


def test_scores_of_some_rows(rows: np.ndarray) -> None:
    chosen = np.array([0, 5, 2_999])
    query = queries(rows, 1)[0]
    np.testing.assert_allclose(
        scores_of(rows.__getitem__, chosen, query),
        rows[chosen].astype(np.float32) @ query,
        atol=1e-6,
    )


def test_scattered_rows_are_read_as_they_are_mapped(rows: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    rng = np.random.default_rng(3)
    reader = RowReader(mapped)
    (tmp_path / "rows.npy").unlink()
    for chosen in ([], [0], [ROWS - 1], range(ROWS), rng.choice(ROWS, 500, replace=False)):
        wanted = np.sort(np.array(chosen, dtype=np.int64))
        for one in (reader, RowReader(mapped), RowReader(rows)):
            np.testing.assert_array_equal(one.read(wanted), rows[wanted])


# ---- beside a dataset ----------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    make_dataset(tmp_path, samples=2)
    return Dataset.open(tmp_path)


def test_a_small_dataset_needs_no_index(dataset: Dataset) -> None:
    index = open_index(dataset)
    assert (index.kind, index.note) == ("exact", None)
    assert not (dataset.directory / FILE).exists()


@needs_faiss
def test_a_large_one_gets_an_index_and_keeps_it(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_index(dataset, approximate_from=10).kind == "approximate"
    assert not list(dataset.directory.rglob(".tmp-*"))
    monkeypatch.setattr(store, "build", lambda *_: pytest.fail("it was built again"))
    assert open_index(dataset, approximate_from=10).kind == "approximate"


@needs_faiss
@pytest.mark.parametrize("content", [b"", b"IwSq", b"nothing of faiss" * 100])
def test_a_damaged_index_is_built_anew(dataset: Dataset, content: bytes) -> None:
    (dataset.directory / FILE).write_bytes(content)
    index = open_index(dataset, approximate_from=10)
    assert index.kind == "approximate"
    assert len(index.nearest(np.ones(16, dtype=np.float32), 3)[0]) == 3
    assert (dataset.directory / FILE).read_bytes() != content


@needs_faiss
def test_an_index_of_other_vectors_is_built_anew(dataset: Dataset, rows: np.ndarray) -> None:
    build(rows, dataset.directory / FILE)
    index = open_index(dataset, approximate_from=10)
    query = dataset.explanation_vectors()[3].astype(np.float32)
    assert index.nearest(query, 1)[0].tolist() == [3]


@needs_faiss
def test_an_index_deleted_while_open_goes_on(dataset: Dataset) -> None:
    index = open_index(dataset, approximate_from=10)
    (dataset.directory / FILE).unlink()
    query = dataset.explanation_vectors()[3].astype(np.float32)
    assert index.nearest(query, 1)[0].tolist() == [3]


def test_without_faiss_search_is_exact_and_says_so(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.importlib.util, "find_spec", lambda _: None)
    index = open_index(dataset, approximate_from=10)
    assert index.kind == "exact"
    assert "faiss is not installed" in (index.note or "")


@needs_faiss
def test_an_index_that_cannot_be_written_is_done_without(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise NLAError("The disk is full", why="no space", fix="Free some space")

    monkeypatch.setattr(store, "build", full)
    index = open_index(dataset, approximate_from=10)
    assert index.kind == "exact"
    assert "The disk is full" in (index.note or "")
