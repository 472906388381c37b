"""Every way in which a prompt file can be wrong, and that the message says where and what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nla_core import prompts
from nla_core.errors import NLAError
from precompute import corpus
from precompute.corpus import read_corpus
from tests.precompute.conftest import PROMPTS, WriteCorpus, prompt

pytestmark = pytest.mark.unit

USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "hello"}
SYSTEM = {"role": "system", "content": "be kind"}


def test_reads_sorted_by_id_with_the_hash_of_the_file(corpus_file: Path) -> None:
    read = read_corpus([corpus_file])
    assert [p.id for p in read.prompts] == sorted(p["id"] for p in PROMPTS)
    ((name, digest),) = read.files
    assert (name, len(digest)) == ("prompts.jsonl", 64)
    assert read.prompts[2].messages[0]["content"] == "Where do rabbits sleep 🐇"
    assert read.first(2).prompts == read.prompts[:2]


def test_the_order_of_files_makes_no_difference(tmp_path: Path) -> None:
    paths = []
    for name in "ab":
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text(json.dumps(prompt(name, name)))
    assert read_corpus(paths) == read_corpus(paths[::-1])


def test_windows_files_and_blank_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    text = "\r\n".join(json.dumps(prompt(name, name)) for name in "ab")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n\r\n")
    assert [p.id for p in read_corpus([path]).prompts] == ["a", "b"]


def test_the_projects_own_corpus_reads() -> None:
    folder = Path(__file__).parents[2] / "data" / "prompts"
    assert len(read_corpus(sorted(folder.glob("*.jsonl"))).prompts) >= 150


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": ""}, ["field 'id'", '""']),
        ({"id": 3}, ["field 'id'", "found 3"]),
        ({"id": "a/b"}, ["field 'id'", "a/b"]),
        ({"title": ["x"]}, ["field 'title'", 'found ["x"]']),
        ({"title": "x" * 201}, ["field 'title'", "found 201"]),
        ({"category": None}, ["field 'category'", "found null"]),
        ({"tags": "x"}, ["field 'tags'", 'found "x"']),
        ({"tags": ["x", 1]}, ["field 'tags[1]'", "found 1"]),
        ({"mesages": []}, ["'mesages' is unknown"]),
        ({"messages": []}, ["field 'messages'", "found []"]),
        ({"messages": "hi"}, ["field 'messages'", 'found "hi"']),
        ({"messages": ["hi"]}, ["field 'messages[0]'", 'found "hi"']),
        ({"messages": [{"role": "user"}]}, ["field 'messages[0]'", '{"role": "user"}']),
        ({"messages": [{"role": "human", "content": "x"}]}, ["messages[0].role", '"human"']),
        ({"messages": [{"role": ["user"], "content": "x"}]}, ["messages[0].role"]),
        ({"messages": [USER, ASSISTANT]}, ["ending with user", "found user, assistant"]),
        ({"messages": [USER, USER]}, ["in turn", "found user, user"]),
        ({"messages": [USER, SYSTEM, USER]}, ["found user, system, user"]),
        ({"messages": [SYSTEM]}, ["found system"]),
        ({"messages": [{"role": "user", "content": " \n"}]}, ["messages[0].content"]),
        ({"messages": [{"role": "user", "content": "x\ud83d"}]}, ["surrogate", "character 1"]),
    ],
)
def test_a_wrong_field_is_named_with_what_was_found(
    tmp_path: Path, changes: dict[str, Any], said: list[str]
) -> None:
    path = tmp_path / "wrong.jsonl"
    lines = [prompt("ok-1", "fine"), {**prompt("wrong", "x"), **changes}]
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(NLAError) as error:
        read_corpus([path])
    assert f"{path} line 2, " in error.value.why
    for words in said:
        assert words in error.value.why


def test_a_missing_field(tmp_path: Path) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text('{"id": "x"}')
    with pytest.raises(NLAError, match="line 1, field 'category' is missing"):
        read_corpus([path])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "is not JSON: .* at column"),
        (b"[1]", r"expected a JSON object, found \[1\]"),
        (b'{"id": "caf\xe9"}', "is not UTF-8: found the byte 0xe9 at column 12"),
        ("{}".encode("utf-16"), "is not UTF-8: found the byte 0xff"),
        (b"[" * 100_000, "is not a prompt: .* nested too deeply"),
    ],
)
def test_lines_that_are_no_json_object(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_bytes(json.dumps(prompt("a", "x")).encode() + b"\n" + line)
    with pytest.raises(NLAError, match=f"line 2, {said}"):
        read_corpus([path])


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(content)
    with pytest.raises(NLAError, match="is empty"):
        read_corpus([path])


def test_oversized_file_and_line(
    tmp_path: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "MAX_LINE_BYTES", 200)
    with pytest.raises(NLAError, match=r"line 4, the line has \d+ bytes and the limit is 200"):
        read_corpus([corpus_file])
    monkeypatch.setattr(corpus, "MAX_FILE_BYTES", 100)
    with pytest.raises(NLAError, match="too large"):
        read_corpus([corpus_file])


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NLAError, match="No such file"):
        read_corpus([tmp_path / "none.jsonl"])
    with pytest.raises(NLAError, match="is a folder"):
        read_corpus([tmp_path])


def test_ids_are_unique_over_all_files(tmp_path: Path) -> None:
    paths = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for text, path in zip("xy", paths, strict=True):
        path.write_text(json.dumps(prompt("same", text)))
    with pytest.raises(NLAError) as error:
        read_corpus(paths)
    assert "two.jsonl line 1, repeats id 'same'" in error.value.why
    assert "one.jsonl line 1" in error.value.why


def test_many_mistakes_are_counted_and_the_first_ones_listed(write_corpus: WriteCorpus) -> None:
    path = write_corpus([prompt(f"p-{i}", f"x{i}", title="") for i in range(9)])
    with pytest.raises(NLAError) as error:
        read_corpus([path])
    assert error.value.why.count("field 'title'") == corpus.SHOWN_PROBLEMS
    assert "and 4 more" in error.value.why
