"""Vectors in one file or in many: the same rows, read the same way."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from nla_core.data import publish as integrity
from nla_core.data import vector_shards, vectors
from nla_core.data.dataset import Dataset
from nla_core.data.manifest import VECTORS, read_manifest
from nla_core.data.vector_shards import RowReader, ShardedRows, names_for, names_in, read, write
from nla_core.errors import NLAError
from tests.helpers import make_dataset

ROWS, WIDTH = 25, 3


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_shards, "SHARD_ROWS", 10)


@pytest.fixture
def rows() -> np.ndarray:
    return np.arange(ROWS * WIDTH, dtype=np.float16).reshape(ROWS, WIDTH)


@pytest.fixture
def sharded(rows: np.ndarray, tmp_path: Path) -> ShardedRows:
    (tmp_path / "vectors").mkdir()
    found = read(tmp_path, write(tmp_path, ROWS, np.array_split(rows, 4)))
    assert isinstance(found, ShardedRows)
    return found


def test_few_rows_keep_the_name_they_always_had() -> None:
    assert names_for(0) == names_for(10) == [VECTORS]
    assert len(names_for(11)) == 2
    assert names_in(["manifest.json", *reversed(names_for(25))]) == names_for(25)


def test_shards_are_full_but_for_the_last(sharded: ShardedRows) -> None:
    assert [len(shard) for shard in sharded.shards] == [10, 10, 5]
    assert (sharded.shape, len(sharded), sharded.dtype) == ((ROWS, WIDTH), ROWS, np.float16)


@pytest.mark.parametrize(
    "index",
    [
        0,
        24,
        -1,
        np.int64(10),
        slice(None),
        slice(3, 8),
        slice(8, 23),
        slice(20, 99),
        slice(7, 7),
        slice(12, 3),
        slice(None, None, 6),
        slice(20, 2, -5),
        [0, 24, 9, 10, 10],
        np.array([], dtype=int),
        np.array([-1, 3]),
        np.arange(ROWS) % 3 == 0,
    ],
)
def test_they_are_indexed_like_one_array(
    sharded: ShardedRows, rows: np.ndarray, index: object
) -> None:
    np.testing.assert_array_equal(sharded[index], rows[index])  # type: ignore[call-overload]


def test_no_row_is_beyond_the_last(sharded: ShardedRows) -> None:
    with pytest.raises(IndexError):
        sharded[ROWS]
    np.testing.assert_array_equal(np.asarray(sharded, np.float32), sharded.astype(np.float32))


@pytest.mark.parametrize("wanted", [[], [0], [9, 10], [*range(ROWS)], [1, 2, 11, 24]])
def test_scattered_rows_are_read(sharded: ShardedRows, rows: np.ndarray, wanted: list[int]) -> None:
    asked = np.array(wanted, dtype=np.int64)
    np.testing.assert_array_equal(RowReader(sharded).read(asked), rows[asked])


def test_batches_that_do_not_make_the_rows_are_refused(rows: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "vectors").mkdir()
    with pytest.raises(NLAError, match="more than 20"):
        write(tmp_path, 20, [rows])
    with pytest.raises(NLAError, match="fewer than 25"):
        write(tmp_path, ROWS, [rows[:20]])
    with pytest.raises(NLAError, match="some have 3 dimensions, some 2"):
        write(tmp_path, ROWS, [rows[:5], rows[5:, :2]])


def test_a_dataset_in_shards_is_the_same_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / "many")
    monkeypatch.setattr(vector_shards, "SHARD_ROWS", 10_000)
    make_dataset(tmp_path / "one")
    many, one = Dataset.open(tmp_path / "many"), Dataset.open(tmp_path / "one")
    assert isinstance(many.explanation_vectors(), ShardedRows)
    assert len(names_in(many.manifest.files)) > 2
    np.testing.assert_array_equal(many.explanation_vectors()[:], one.explanation_vectors()[:])
    assert many.manifest.counts == one.manifest.counts


def test_a_shard_that_is_short_or_not_finite_is_named(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    directory = Dataset.open(tmp_path).directory
    manifest = read_manifest(directory)
    second = names_in(manifest.files)[1]
    whole = np.load(directory / second)
    np.save(directory / second, whole[:-1])
    assert "rows for" in " ".join(integrity._vector_problems(directory, manifest))
    whole[0, 0] = np.nan
    np.save(directory / second, whole)
    (problem,) = integrity._vector_problems(directory, manifest)
    assert problem == f"{second}: 1 rows hold NaN or infinity"


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs faiss")
def test_an_index_merged_on_disk_finds_what_one_in_memory_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    made = rng.normal(size=(500, 16)).astype(np.float16)
    (tmp_path / "vectors").mkdir()
    monkeypatch.setattr(vector_shards, "SHARD_ROWS", 200)
    rows = read(tmp_path, write(tmp_path, 500, [made]))
    queries = rng.normal(size=(10, 16)).astype(np.float32)
    held = vectors.ApproximateIndex(rows, vectors.build(rows, tmp_path / vectors.FILE))
    expected = [held.nearest(query, 5)[0].tolist() for query in queries]
    assert not (tmp_path / vectors.LISTS_FILE).exists()

    monkeypatch.setattr(vectors, "IN_MEMORY_ROWS", 150)
    vectors.build(rows, tmp_path / vectors.FILE)
    assert (tmp_path / vectors.LISTS_FILE).exists()
    assert not list(tmp_path.rglob(".tmp-*"))
    (tmp_path / "vectors").rename(tmp_path / "moved")  # as a dataset that is copied elsewhere
    mapped = vectors._read(tmp_path / "moved" / Path(vectors.FILE).name, rows)
    found = [vectors.ApproximateIndex(rows, mapped).nearest(q, 5)[0].tolist() for q in queries]
    assert found == expected
