"""What the pages ask of a dataset, and every way in which opening one is refused."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import threading
from pathlib import Path

import duckdb
import numpy as np
import pytest

from nla_core.data import database as derived
from nla_core.data import dataset as dataset_module
from nla_core.data import queries
from nla_core.data.dataset import Dataset
from nla_core.data.manifest import CURRENT, DATABASE, MANIFEST, PARQUET, VECTORS
from nla_core.errors import NLAError
from nla_core.schema import SCHEMA_VERSION, TABLES, Flag
from tests.helpers import (
    CUT_EXPLANATIONS_OF,
    ERROR_PROMPT,
    PROMPTS,
    hash_vectors,
    make_dataset,
    transcript_id_of,
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    make_dataset(root, samples=2)
    return root


@pytest.fixture(scope="module")
def dataset(published: Path) -> Dataset:
    return Dataset.open(published)


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    """A dataset of one's own, without its DuckDB file."""
    root = tmp_path / "copy"
    shutil.copytree(published, root, ignore=shutil.ignore_patterns(DATABASE))
    return root


def version_directory(root: Path) -> Path:
    return root / (root / CURRENT).read_text().strip()


def test_tables_have_the_declared_columns(dataset: Dataset) -> None:
    transcript_id = transcript_id_of("facts-002")
    assert list(dataset.tokens(transcript_id)) == TABLES["tokens"].names
    assert list(dataset.readings(transcript_id)) == TABLES["readings"].names
    listed = [name for name in TABLES["transcripts"].names if name != "messages"]
    assert list(dataset.transcripts()) == [*listed, "max_surprisal", "flags", "sparkline"]
    found = list(dataset.find_readings(limit=1))
    more = ["row", "role", "section", "token", "category", "title"]
    assert found == [*TABLES["readings"].names, *more]


def test_tokens_give_the_transcript_back(dataset: Dataset) -> None:
    tokens = dataset.tokens(transcript_id_of("language-001"))
    assert tokens["position"].tolist() == list(range(len(tokens)))
    text = "".join(tokens["text"])
    assert "挨拶 (aisatsu) 😀" in text
    assert (tokens["text"] == "").any(), "multi-byte characters spread over tokens"


def test_readings_come_by_position_then_sample(dataset: Dataset) -> None:
    readings = dataset.readings(transcript_id_of("facts-001"))
    keys = list(zip(readings["position"], readings["sample"], strict=True))
    assert keys == sorted(keys)
    assert set(readings["sample"]) == {0, 1}


def test_one_transcript_or_none(dataset: Dataset) -> None:
    row = dataset.transcript(transcript_id_of("facts-002"))
    assert row is not None
    assert [m["role"] for m in json.loads(row["messages"])][0] == "system"
    assert dataset.transcript("nope") is None
    assert dataset.tokens("' OR 1=1 --").empty


def test_categories_count_transcripts_and_readings(dataset: Dataset) -> None:
    frame = dataset.categories().set_index("category")
    assert frame.loc["facts", "n_transcripts"] == 2
    assert frame.loc["long text", "n_readings"] == 0
    assert frame["n_readings"].sum() == dataset.manifest.counts["readings"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("PARIS", {"facts-001"}),  # in a message, whatever the case
        ("rhyme-0", {"rhyme-001"}),
        ("東京", {"language-001"}),
        ("geography", {"facts-001", "facts-002"}),  # a tag
        ("<b>", {"markup-001"}),
        ("%", set()),  # no wildcard
        ("role", set()),  # the JSON around the messages is no text
        ("", {prompt[0] for prompt in PROMPTS}),
    ],
)
def test_contains_is_literal(dataset: Dataset, text: str, found: set[str]) -> None:
    assert set(dataset.transcripts(contains=text)["prompt_id"]) == found


def test_category_and_flag_filter(dataset: Dataset) -> None:
    assert len(dataset.transcripts(category="facts")) == 2
    cut = dataset.transcripts(flag=Flag.CUT)
    assert cut["prompt_id"].tolist() == [CUT_EXPLANATIONS_OF]
    assert dataset.transcripts(category="facts", flag=Flag.CUT).empty


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", ["n_tokens", "mean_fve", "flagged_share", "max_surprisal"])
def test_sorts_by_number_with_missing_last(
    dataset: Dataset, sort: dataset_module.TranscriptSort, descending: bool
) -> None:
    frame = dataset.transcripts(sort=sort, descending=descending)
    values = frame[sort].dropna().tolist()
    assert values == sorted(values, reverse=descending)
    if frame[sort].hasnans:
        assert frame["prompt_id"].iloc[-1] == ERROR_PROMPT


def test_sorts_titles_as_people_do_and_limits(dataset: Dataset) -> None:
    titles = dataset.transcripts()["title"].tolist()
    assert titles == sorted(titles, key=str.casefold)
    assert dataset.transcripts(limit=2)["title"].tolist() == titles[:2]


def test_unknown_sort_is_refused(dataset: Dataset) -> None:
    with pytest.raises(NLAError, match="mean_fve"):
        dataset.transcripts(sort="title; DROP TABLE tokens")  # type: ignore[arg-type]


@pytest.mark.parametrize("mangled", ["facts-002x", "fcts-002", "The tallest mountin"])
def test_nearest_by_prompt_id_or_title(dataset: Dataset, mangled: str) -> None:
    assert dataset.nearest_transcripts(mangled)["prompt_id"].iloc[0] == "facts-002"


def test_nearest_by_the_start_of_an_id(dataset: Dataset) -> None:
    transcript_id = transcript_id_of("rhyme-001")
    assert dataset.nearest_transcripts(transcript_id[:5])["transcript_id"].iloc[0] == transcript_id
    assert len(dataset.nearest_transcripts("x" * 100_000, n=2)) == 2
    assert dataset.nearest_transcripts(" ").empty


def test_vectors_follow_the_order_of_readings(dataset: Dataset) -> None:
    vectors = dataset.explanation_vectors()
    assert isinstance(vectors, np.memmap)
    first_id = min(transcript_id_of(prompt[0]) for prompt in PROMPTS if prompt[0] != ERROR_PROMPT)
    texts = dataset.readings(first_id)["explanation"].tolist()
    np.testing.assert_array_equal(vectors[: len(texts)], hash_vectors(texts).astype(np.float16))


def test_reads_from_many_threads_at_once(dataset: Dataset) -> None:
    sizes: list[int] = []
    ids = [transcript_id_of(prompt[0]) for prompt in PROMPTS] * 4
    threads = [
        threading.Thread(target=lambda i=i: sizes.append(len(dataset.tokens(i)))) for i in ids
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sizes) == 4 * dataset.manifest.counts["tokens"]


def test_a_query_that_hangs_is_interrupted(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "QUERY_TIMEOUT", 0.05)
    monkeypatch.setattr(
        queries,
        "CATEGORIES",
        "SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i)=2",
    )
    with pytest.raises(NLAError, match="took too long"):
        dataset.categories()


def test_the_connection_is_hardened(dataset: Dataset, tmp_path: Path) -> None:
    cursor = dataset._connection.cursor()
    with pytest.raises(duckdb.Error, match="read-only"):
        cursor.execute("DELETE FROM tokens")
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(duckdb.Error, match="disabled"):
        cursor.execute("SELECT * FROM read_csv(?)", [str(tmp_path / "secret.csv")])
    with pytest.raises(duckdb.Error, match="locked"):
        cursor.execute("SET enable_external_access=true")


def test_opens_an_older_version_by_name(copy: Path) -> None:
    older = version_directory(copy).name
    newer = make_dataset(copy, samples=1)
    assert Dataset.open(copy).version == newer
    assert Dataset.open(copy, older).version == older


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(NLAError, match="There is no dataset"):
        Dataset.open(tmp_path / "nothing")


def test_current_damaged(copy: Path) -> None:
    (copy / CURRENT).write_text("../../etc")
    with pytest.raises(NLAError, match="CURRENT is damaged"):
        Dataset.open(copy)


@pytest.mark.parametrize("version", ["v-000000000000", "../elsewhere"])
def test_version_missing(copy: Path, version: str) -> None:
    with pytest.raises(NLAError, match="no version") as error:
        Dataset.open(copy, version)
    assert version_directory(copy).name in error.value.why


def test_manifest_missing(copy: Path) -> None:
    (version_directory(copy) / MANIFEST).unlink()
    with pytest.raises(NLAError, match="no readable manifest"):
        Dataset.open(copy)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 1}', '{"schema_version": "x"}'])
def test_manifest_damaged(copy: Path, text: str) -> None:
    (version_directory(copy) / MANIFEST).write_text(text)
    with pytest.raises(NLAError, match="is damaged"):
        Dataset.open(copy)


def test_manifest_edited(copy: Path) -> None:
    path = version_directory(copy) / MANIFEST
    data = json.loads(path.read_text())
    data["counts"]["readings"] += 1
    path.write_text(json.dumps(data))
    with pytest.raises(NLAError, match="not the one this version was published with"):
        Dataset.open(copy)


def test_newer_schema(copy: Path) -> None:
    path = version_directory(copy) / MANIFEST
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1, "novel": {}}))
    with pytest.raises(NLAError, match="newer than this program") as error:
        Dataset.open(copy)
    assert "git pull" in error.value.fix


def test_tampered_parquet(copy: Path) -> None:
    path = version_directory(copy) / PARQUET["tokens"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(NLAError, match="tokens.parquet has sha256"):
        Dataset.open(copy)
    assert not (version_directory(copy) / DATABASE).exists()


@pytest.mark.parametrize("name", [PARQUET["readings"], VECTORS])
def test_missing_or_half_written_file(copy: Path, name: str) -> None:
    Dataset.open(copy)  # the DuckDB file is there: the check must not depend on building it
    path = version_directory(copy) / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(NLAError, match="the manifest says"):
        Dataset.open(copy)
    path.unlink()
    with pytest.raises(NLAError, match=f"{Path(name).name} is missing"):
        Dataset.open(copy)


@pytest.mark.parametrize("damage", ["storage version", "garbage", "other rows"])
def test_foreign_duckdb_file(copy: Path, damage: str) -> None:
    path = version_directory(copy) / DATABASE
    if damage == "other rows":
        with duckdb.connect(str(path)) as connection:
            for name in TABLES:
                connection.execute(f"CREATE TABLE {name} (x INTEGER)")
    elif damage == "garbage":
        path.write_bytes(b"no database" * 2000)
    else:
        with duckdb.connect(str(path)) as connection:
            connection.execute("CREATE TABLE readings (x INTEGER)")
        data = bytearray(path.read_bytes())
        data[12:20] = (9_999).to_bytes(8, "little")
        path.write_bytes(data)
    with pytest.raises(NLAError, match="cannot be used") as error:
        Dataset.open(copy)
    assert "delete it" in error.value.fix


def _open_and_count(root: Path, barrier: threading.Barrier, results: list[int]) -> None:
    barrier.wait()
    results.append(int(Dataset.open(root).categories()["n_readings"].sum()))


def test_two_processes_build_the_database_at_once(copy: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.list()
        barrier = manager.Barrier(2)
        workers = [
            context.Process(target=_open_and_count, args=(copy, barrier, results)) for _ in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0, 0]
        assert len(set(results)) == 1
        assert len(results) == 2
    leftovers = [path.name for path in version_directory(copy).iterdir()]
    assert sorted(leftovers) == sorted([DATABASE, MANIFEST, "parquet", "vectors"])


def test_vectors_damaged_after_the_first_start(copy: Path) -> None:
    """Same size, other bytes: found when the vectors are read, as hashes are checked once."""
    dataset = Dataset.open(copy)
    path = dataset.directory / VECTORS
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(NLAError, match="vectors .* cannot be read") as error:
        dataset.explanation_vectors()
    assert "verify" in error.value.fix


def test_a_folder_that_cannot_be_written_is_told(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(derived.tempfile, "mkdtemp", refuse)
    with pytest.raises(NLAError, match="Permission denied"):
        Dataset.open(copy)
