"""Publishing: the same bytes from the same rows, nothing overwritten, nothing half there."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nla_core.data import files, publish
from nla_core.data import publish as integrity
from nla_core.data.manifest import CURRENT, MANIFEST, PARQUET, VECTORS, read_manifest
from nla_core.errors import NLAError
from nla_core.schema import SORT_KEYS, TABLES
from tests.helpers import PAIR, hash_vectors, make_dataset, make_tables

INFO = {"pair": PAIR, "corpus": {}, "settings": {}}


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def write_parts(folder: Path, tables: dict[str, pa.Table], n_parts: int) -> dict[str, list[Path]]:
    """The rows of each table, shuffled and dealt to ``n_parts`` files."""
    parts: dict[str, list[Path]] = {}
    for name, table in tables.items():
        order = random.Random(n_parts).sample(range(len(table)), len(table))
        parts[name] = [folder / f"{name}-{i}.parquet" for i in range(n_parts)]
        for i, path in enumerate(parts[name]):
            pq.write_table(table.take(order[i::n_parts]), path)
    return parts


def test_bytes_do_not_depend_on_how_rows_are_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "ROW_GROUP", 50)
    results = []
    for n_parts in (1, 4):
        folder = tmp_path / str(n_parts)
        folder.mkdir()
        parts = write_parts(folder, make_tables(), n_parts)
        root = folder / "out"
        publish.publish(root, parts, embed=hash_vectors, **INFO)
        results.append(contents(root))
    assert results[0] == results[1]


def test_rows_are_sorted_and_in_row_groups_of_fixed_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "ROW_GROUP", 50)
    directory = tmp_path / make_dataset(tmp_path)
    for name, schema in TABLES.items():
        with pq.ParquetFile(directory / PARQUET[name]) as parquet:
            table = parquet.read()
            metadata = parquet.metadata
        assert table.schema.equals(schema)
        keys = list(zip(*(table[key].to_pylist() for key in SORT_KEYS[name]), strict=True))
        assert keys == sorted(keys)
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        assert set(sizes[:-1]) <= {50}
        assert sizes[-1] <= 50
        assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_manifest_names_every_file_and_the_version_follows_from_it(tmp_path: Path) -> None:
    version = make_dataset(tmp_path, git_commit="abc")
    manifest = read_manifest(tmp_path / version)
    assert set(manifest.files) == {*PARQUET.values(), VECTORS}
    assert manifest.counts == {name: len(table) for name, table in make_tables().items()}
    assert manifest.git_commit == "abc"
    assert integrity.problems(tmp_path / version, manifest) == []


def test_publishing_again_changes_no_file(tmp_path: Path) -> None:
    version = make_dataset(tmp_path, git_commit="one")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / version).rglob("*")}
    assert make_dataset(tmp_path, git_commit="two") == version
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / version).rglob("*")}
    assert sorted(path.name for path in tmp_path.iterdir()) == [CURRENT, version]


def test_other_rows_make_another_version_and_keep_the_first(tmp_path: Path) -> None:
    first = make_dataset(tmp_path)
    before = contents(tmp_path / first)
    second = make_dataset(tmp_path, samples=2)
    assert first != second
    assert contents(tmp_path / first) == before
    assert (tmp_path / CURRENT).read_text() == second + "\n"


def test_other_settings_make_another_version(tmp_path: Path) -> None:
    assert make_dataset(tmp_path) != make_dataset(tmp_path, settings={"seed": 1})


def test_a_damaged_copy_of_the_version_is_refused_and_kept(tmp_path: Path) -> None:
    version = make_dataset(tmp_path)
    path = tmp_path / version / PARQUET["tokens"]
    path.write_bytes(b"damaged")
    with pytest.raises(NLAError, match="never overwritten"):
        make_dataset(tmp_path)
    assert path.read_bytes() == b"damaged"


@pytest.mark.parametrize("when", ["pq.ParquetWriter", "files.os.fsync", "files.write_json"])
def test_a_full_disk_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    make_dataset(tmp_path)
    before = contents(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    targets = {
        "pq.ParquetWriter": (publish.pq, "ParquetWriter"),
        "files.os.fsync": (files.os, "fsync"),
        "files.write_json": (publish, "write_json"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*targets[when], full)
        with pytest.raises(NLAError, match="is full"):
            make_dataset(tmp_path, samples=2)
    assert contents(tmp_path) == before
    make_dataset(tmp_path, samples=2)


def test_the_operating_systems_own_refusal_changes_nothing(tmp_path: Path) -> None:
    """A real failed write: the process may not write more than 4 kB to a file."""
    make_dataset(tmp_path)
    before = contents(tmp_path)
    code = (
        "import resource, sys; from pathlib import Path; from tests.helpers import make_dataset\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "make_dataset(Path(sys.argv[1]), samples=2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1
    assert "NLAError" in done.stderr
    assert "cannot be written" in done.stderr
    assert contents(tmp_path) == before


def test_a_kill_before_the_rename_leaves_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_dataset(tmp_path)

    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(publish, "rename_into_place", killed)
    with pytest.raises(KeyboardInterrupt):
        make_dataset(tmp_path, samples=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CURRENT, first]


def test_a_race_for_the_same_version_has_one_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process publishes the same rows between our check and our rename."""
    rename = publish.rename_into_place

    def overtaken(temporary: Path, final: Path) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(publish, "rename_into_place", rename)
            make_dataset(tmp_path)
        return rename(temporary, final)

    monkeypatch.setattr(publish, "rename_into_place", overtaken)
    version = make_dataset(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CURRENT, version]
    assert (tmp_path / version / MANIFEST).is_file()


def _without_tokens(tables: dict[str, pa.Table]) -> None:
    tables["tokens"] = tables["tokens"].slice(0, 10)


def _twice(tables: dict[str, pa.Table]) -> None:
    tables["readings"] = pa.concat_tables([tables["readings"], tables["readings"].slice(0, 1)])


def _not_a_number(tables: dict[str, pa.Table]) -> None:
    values = tables["readings"]["fve"].to_pylist()
    values[3] = float("nan")
    index = tables["readings"].schema.get_field_index("fve")
    tables["readings"] = tables["readings"].set_column(
        index, TABLES["readings"].field("fve"), pa.array(values, pa.float32())
    )


def _strange_role(tables: dict[str, pa.Table]) -> None:
    index = tables["tokens"].schema.get_field_index("role")
    roles = pa.array(["narrator"] * len(tables["tokens"]))
    tables["tokens"] = tables["tokens"].set_column(index, TABLES["tokens"].field("role"), roles)


def _null(tables: dict[str, pa.Table]) -> None:
    index = tables["readings"].schema.get_field_index("explanation")
    texts = pa.nulls(len(tables["readings"]), pa.string())
    tables["readings"] = tables["readings"].set_column(
        index, TABLES["readings"].field("explanation"), texts
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without_tokens, "readings without a token"),
        (_twice, "repeat the key"),
        (_not_a_number, "not finite"),
        (_strange_role, "narrator"),
        (_null, "null values to non-nullable"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(tmp_path: Path, spoil, said: str) -> None:
    tables = make_tables()
    spoil(tables)
    with pytest.raises(NLAError, match=said):
        publish.publish_tables(
            tmp_path, tables, embed=lambda t: hash_vectors([str(x) for x in t]), **INFO
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("embed", "said"),
    [
        (lambda texts: np.full((len(texts), 4), np.nan), "NaN"),
        (lambda texts: np.zeros((1, 4)), "fewer than"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(tmp_path: Path, embed, said: str) -> None:
    with pytest.raises(NLAError, match=said):
        publish.publish_tables(tmp_path, make_tables(), embed=embed, **INFO)


def test_a_dataset_without_readings(tmp_path: Path) -> None:
    tables = make_tables()
    only_error = tables["transcripts"].filter(
        pa.compute.equal(tables["transcripts"]["status"], "error")
    )
    empty = {name: schema.empty_table() for name, schema in TABLES.items()}
    version = publish.publish_tables(
        tmp_path, {**empty, "transcripts": only_error}, embed=hash_vectors, **INFO
    )
    assert read_manifest(tmp_path / version).counts == {
        "transcripts": 1,
        "tokens": 0,
        "readings": 0,
    }


def test_write_atomic_leaves_the_old_file_on_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.write_atomic(path, "old")
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_left_is_cleared_a_day_later(tmp_path: Path) -> None:
    old, young = tmp_path / ".tmp-old", tmp_path / ".tmp-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "rows").write_text("half")
    os.utime(old, (0, 0))
    make_dataset(tmp_path)
    assert not old.exists()
    assert young.exists(), "its process may still be at work"
