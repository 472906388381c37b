"""Training text from every form of file, and every refusal naming the file and the line or row."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nla_core.errors import NLAError
from precompute.train import sources, tables
from precompute.train.corpus import SPLITS, split_of
from precompute.train.sources import Reading, check_splits, digest_of, load_documents

TEXTS = ["the first text", "ein zweiter Text, größer", "第三の文章"]


def _jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def _parquet(path: Path, **columns: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def _arrow(path: Path, texts: list[str]) -> None:
    """As save_to_disk writes it: a stream of record batches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"text": texts})
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


def _texts(corpus: Path | str, **reading: Any) -> list[str]:
    return [d.text for d in load_documents(corpus, Reading(**reading))]


# ---- what can be read ----------------------------------------------------------------------------


def test_json_lines_plain_and_packed(tmp_path: Path) -> None:
    rows = [{"doc_id": i, "source": "s", "text": text} for i, text in enumerate(TEXTS)]
    plain = _jsonl(tmp_path / "a.jsonl", *rows)
    packed = tmp_path / "b.jsonl.xz"
    packed.write_bytes(lzma.compress(b"\xef\xbb\xbf" + plain.read_bytes() + b"\n"))
    assert load_documents(plain) == load_documents(packed)
    assert [d.doc_id for d in load_documents(plain)] == ["0", "1", "2"]
    assert {d.source for d in load_documents(plain)} == {"s"}
    assert _texts(plain) == TEXTS
    assert _texts(tmp_path) == TEXTS * 2


def test_a_folder_of_text_files_is_a_document_each(tmp_path: Path) -> None:
    for i, text in enumerate(TEXTS):
        (tmp_path / f"{i}.txt").write_text(text + "\n\nmore", encoding="utf-8")
    documents = load_documents(tmp_path)
    assert [d.text for d in documents] == [text + "\n\nmore" for text in TEXTS]
    assert {d.source for d in documents} == {tmp_path.name}


def test_one_text_file_is_cut_at_blank_lines(tmp_path: Path) -> None:
    paragraphs = [f"{i} " + "word " * 150 for i in range(9)]
    path = tmp_path / "book.txt"
    path.write_bytes("\r\n \r\n\r\n".join(paragraphs).encode())
    texts = _texts(path)
    assert len(texts) == 3
    assert "\n\n".join(texts).split("\n\n") == paragraphs
    assert all(len(text) >= sources.CHUNK_CHARACTERS for text in texts)


def test_a_document_is_named_by_its_text_so_copies_share_a_split(tmp_path: Path) -> None:
    _parquet(tmp_path / "a.parquet", text=TEXTS)
    _parquet(tmp_path / "b.parquet", text=TEXTS[::-1])
    ids: dict[str, set[str]] = {}
    for document in load_documents(tmp_path):
        ids.setdefault(document.text, set()).add(document.doc_id)
    assert len(ids) == 3
    assert all(len(found) == 1 for found in ids.values())


@pytest.mark.parametrize("name", ["text", "content", "anything"])
def test_the_text_column_is_found(tmp_path: Path, name: str) -> None:
    path = _parquet(tmp_path / "a.parquet", **{"id": ["x", "y", "z"], "n": [1, 2, 3], name: TEXTS})
    documents = load_documents(path)
    assert [d.text for d in documents] == TEXTS
    assert [d.doc_id for d in documents] == ["x", "y", "z"]


def test_the_text_column_can_be_named(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "a.parquet", question=["q"] * 3, reply=TEXTS)
    assert _texts(path, text_column="reply") == TEXTS


def test_rows_without_text_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _parquet(tmp_path / "a.parquet", text=["", TEXTS[0], None, " \n", TEXTS[1]])
    assert _texts(path) == TEXTS[:2]
    assert "3 rows without text were left out, 2 kept" in capsys.readouterr().err


def test_a_saved_data_set_without_its_caches(tmp_path: Path) -> None:
    for split, texts in (("train", TEXTS[:2]), ("test", TEXTS[2:])):
        _arrow(tmp_path / split / "data-00000-of-00001.arrow", texts)
        _arrow(tmp_path / split / "cache-0123.arrow", ["a repeated text"])
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
        (tmp_path / split / "state.json").write_text(json.dumps(state))
        (tmp_path / split / "dataset_info.json").write_text("{}")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert sorted(_texts(tmp_path)) == sorted(TEXTS)


def test_reading_stops_at_the_number_of_documents(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "a.jsonl", *({"doc_id": t, "text": t} for t in TEXTS))
    path.write_bytes(path.read_bytes() + b"not read any more")
    assert _texts(path, max_documents=2) == TEXTS[:2]


def test_a_hub_name_fetches_parquet_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set without Parquet of its own is taken from the hub's converted copy."""
    asked = []

    def snapshot_download(name: str, *, repo_type: str, revision: str | None, **more: Any) -> str:
        asked.append((name, repo_type, revision, more["allow_patterns"]))
        folder = tmp_path / str(revision).replace("/", "-")
        folder.mkdir()
        if revision == tables.CONVERTED:
            _parquet(folder / "default/train/0000.parquet", text=TEXTS)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert _texts("owner/name") == TEXTS
    assert asked == [
        ("owner/name", "dataset", None, ["*.parquet"]),
        ("owner/name", "dataset", "refs/convert/parquet", ["*.parquet"]),
    ]


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"not json", "is not JSON"),
        (b"[]", "holds list"),
        (b'{"text": "b"}', "no field 'doc_id'"),
        (b'{"doc_id": 1}', "no field 'text'"),
        (b'{"doc_id": [], "text": "b"}', "field 'doc_id' is list"),
        (b'{"doc_id": 1, "text": 5}', "field 'text' is int"),
        (b'{"doc_id": 1, "text": null}', "field 'text' is NoneType"),
        (b'{"doc_id": 1, "text": " \\n"}', "empty text"),
        (b'{"doc_id": 1, "text": "\xff"}', "not UTF-8: byte 0xff at column 24"),
        (b'{"doc_id": 1, "text": "\\ud800"}', "surrogate"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "text.jsonl"
    path.write_bytes(b'{"doc_id": "a", "text": "b"}\n' + line)
    with pytest.raises(NLAError, match=r"text\.jsonl, line 2 is not a document") as refused:
        load_documents(path)
    assert said in refused.value.why


def test_an_oversized_line_and_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _jsonl(tmp_path / "a.jsonl", {"doc_id": 1, "text": "x" * 500})
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 400)
    with pytest.raises(NLAError, match="line 1 .* over 400 bytes"):
        load_documents(path)
    monkeypatch.undo()
    monkeypatch.setattr(sources, "MAX_DOCUMENT_CHARACTERS", 400)
    table = _parquet(tmp_path / "a.parquet", text=["short", "x" * 500])
    with pytest.raises(NLAError, match=r"a\.parquet, row 2 .* 500 characters .* limit is 400"):
        load_documents(table)
    monkeypatch.setattr(sources, "MAX_CORPUS_CHARACTERS", 3)
    with pytest.raises(NLAError, match="--max-documents"):
        load_documents(table)


def test_a_text_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\nfine\ncaf\xe9\n")
    with pytest.raises(NLAError, match=r"a\.txt, line 3 .*byte 0xe9"):
        load_documents(tmp_path / "a.txt")
    with pytest.raises(NLAError, match=r"a\.txt, line 3 .*byte 0xe9"):
        load_documents(tmp_path)


def test_a_table_row_that_is_not_utf8(tmp_path: Path) -> None:
    binary = pa.array([b"fine", b"caf\xe9"], pa.binary())
    pq.write_table(pa.table({"text": binary.view(pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(NLAError, match=r"a\.parquet, row 2 is not UTF-8"):
        load_documents(tmp_path / "a.parquet")


def test_a_broken_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.xz"
    path.write_bytes(lzma.compress(b'{"doc_id": 1, "text": "x"}\n' * 50)[:-20])
    with pytest.raises(NLAError, match=r"a\.jsonl\.xz cannot be unpacked"):
        load_documents(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_table_that_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(NLAError, match="not a readable"):
        load_documents(tmp_path / name)


def test_a_table_without_a_clear_text_column(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "a.parquet", question=["q"], reply=["r"], n=[1])
    with pytest.raises(NLAError, match=r"question \(string\), reply \(string\), n \(int64\)"):
        load_documents(path)
    with pytest.raises(NLAError, match="'n' is of type int64"):
        load_documents(path, Reading(text_column="n"))
    with pytest.raises(NLAError, match="'body' is not there"):
        load_documents(path, Reading(text_column="body"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet"])
def test_an_empty_corpus(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.parquet":
        _parquet(path, text=pa.array([], pa.string()))
    else:
        path.write_text("\n \n")
    with pytest.raises(NLAError, match="is empty"):
        load_documents(path)


def test_paths_that_are_no_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NLAError, match="No corpus at"):
        load_documents(tmp_path / "none.jsonl")
    with pytest.raises(NLAError, match="It is not clear what to read"):
        load_documents(tmp_path)
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(NLAError, match=r"ends in '\.csv'"):
        load_documents(tmp_path / "a.csv")

    def unreachable(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(NLAError, match="no such data set could be fetched.*no network"):
        load_documents("owner/name")
    with pytest.raises(NLAError, match="No corpus at texts/none.jsonl"):
        load_documents("texts/none.jsonl")


def test_too_few_documents_are_counted_split_by_split(tmp_path: Path) -> None:
    rows = [{"doc_id": f"d{i}", "text": f"text {i}"} for i in range(40)]
    documents = load_documents(_jsonl(tmp_path / "a.jsonl", *rows))
    got = {name: sum(split_of(d.doc_id) == name for d in documents) for name in SPLITS}
    check_splits(documents, {"ar": 32 * got["ar"], "av": 32 * got["av"], "rl": 0, "val": 0})
    with pytest.raises(NLAError, match="too small for its splits") as refused:
        check_splits(documents, {"ar": 32 * got["ar"] + 1, "av": 1, "rl": 0, "val": 960})
    why = refused.value.why
    assert f"ar got {got['ar']} and needs {got['ar'] + 1}" in why
    assert f"val got {got['val']} and needs 30" in why
    assert "rl" not in why
    assert "about 600 documents" in refused.value.fix


def test_the_digest_tells_corpora_apart(tmp_path: Path) -> None:
    a = load_documents(_jsonl(tmp_path / "a.jsonl", {"doc_id": "a", "text": "bc"}))
    b = load_documents(_jsonl(tmp_path / "b.jsonl", {"doc_id": "ab", "text": "c"}))
    assert digest_of(a) == digest_of(list(a))
    assert digest_of(a) != digest_of(b)
