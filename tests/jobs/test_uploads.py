"""Prompts out of files: the five kinds, columns, mistakes by line, and files made to do harm."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import time
import zipfile
from dataclasses import fields
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nla_core.errors import NLAError
from nla_core.jobs.settings import LIMITS_VARIABLE, WORKER_VARIABLE, Limits, WorkerSettings
from nla_core.jobs.uploads import MOST_PROBLEMS, SUFFIXES, Columns, Upload, read_upload

LIMITS = Limits(prompts=50)
CHAT = [{"role": "user", "content": "Hi"}]


def texts(upload: Upload) -> list[str]:
    return [prompt.messages[-1]["content"] for prompt in upload.require()]


def parquet(**columns: list[object]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def jsonl(*rows: object) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def test_texts_are_split_as_asked() -> None:
    data = "﻿one\n\ntwo\nthree\r\n\n\nfour\n".encode()
    assert texts(read_upload("a.txt", data, LIMITS)) == ["one", "two", "three", "four"]
    found = read_upload("a.txt", data, LIMITS, split="paragraph")
    assert texts(found) == ["one", "two\nthree", "four"]
    assert [p.where for p in found.prompts] == ["a.txt line 1", "a.txt line 3", "a.txt line 7"]
    assert len(read_upload("a.md", data, LIMITS).prompts) == 1


def test_json_lines_of_messages_texts_and_strings() -> None:
    begun = [*CHAT, {"role": "assistant", "content": "Hello"}]
    data = jsonl({"messages": CHAT, "title": "A"}, {"messages": begun}, {"id": 3})
    found = read_upload("a.jsonl", data, LIMITS)
    assert [p.label for p in found.prompts] == ["A", "Hi"]
    assert found.problems == ("a.jsonl line 3, field 'messages' is missing",)
    plain = jsonl({"prompt": "x", "system": "be brief"}, {"prompt": "y"})
    assert read_upload("a.jsonl", plain, LIMITS).prompts[0].messages[0]["role"] == "system"
    assert texts(read_upload("a.jsonl", jsonl("x", "y"), LIMITS)) == ["x", "y"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_columns_to_choose(delimiter: str) -> None:
    out = io.StringIO()
    rows = [["name", "prompt", "other"], ["a", 'two\nlines, "quoted"', "1"], ["b", "=1+1", "2"]]
    csv.writer(out, delimiter=delimiter).writerows(rows)
    found = read_upload("a.csv", out.getvalue().encode(), LIMITS)
    assert found.columns == ("name", "prompt", "other")
    assert found.mapping == Columns(text="prompt", title="name")
    assert texts(found) == ['two\nlines, "quoted"', "=1+1"]
    assert found.prompts[1].where == "a.csv line 4", "a row can be of several lines"
    other = read_upload("a.csv", out.getvalue().encode(), LIMITS, mapping=Columns(text="other"))
    assert texts(other) == ["1", "2"]
    with pytest.raises(NLAError, match="no column “nothing”"):
        read_upload("a.csv", out.getvalue().encode(), LIMITS, mapping=Columns(text="nothing"))


def test_parquet_with_texts_and_nested_messages() -> None:
    found = read_upload("a.parquet", parquet(text=["x", "y"], n=[1, 2]), LIMITS)
    assert texts(found) == ["x", "y"]
    assert found.prompts[1].where == "a.parquet row 2"
    nested = read_upload("a.parquet", parquet(messages=[CHAT, CHAT[:0]]), LIMITS)
    assert nested.prompts[0].messages == tuple(CHAT)
    assert nested.n_problems == 1
    as_json = read_upload("a.parquet", parquet(messages=[json.dumps(CHAT)]), LIMITS)
    assert texts(as_json) == ["Hi"]


def test_mistakes_are_told_by_line_and_counted() -> None:
    bad = [{"prompt": ""}] * 3 + [{"prompt": 5}, {"messages": "x"}, {"prompt": "ok"}, [1], 2]
    data = jsonl(*bad) + b"\n{broken\n\xff\xfe"
    found = read_upload("a.jsonl", data, LIMITS)
    assert found.n_problems > len(found.problems) == 5
    assert any("line 9, is not JSON" in problem for problem in found.problems)
    assert texts_of(found) == ["ok"]
    with pytest.raises(NLAError, match=r"line \d+, .*and \d+ more"):
        found.require()


def texts_of(upload: Upload) -> list[str]:
    return [prompt.messages[-1]["content"] for prompt in upload.prompts]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "robot", "content": "x"}], "robot"),
        ([{"role": "assistant", "content": "x"}], "found assistant"),
        ([*CHAT, *CHAT], "found user, user"),
        ([{"role": "user", "content": "\ud800"}], "surrogate"),
        ([{"role": "user"}], "role, content"),
        ({"role": "user", "content": "x"}, "list of messages"),
    ],
)
def test_invalid_roles_and_messages(messages: object, said: str) -> None:
    (problem,) = read_upload("a.jsonl", jsonl({"messages": messages}), LIMITS).problems
    assert problem.startswith("a.jsonl line 1, field 'messages")
    assert said in problem


def test_repeats_are_taken_once() -> None:
    found = read_upload("a.txt", b"a\nb\na\na\n", LIMITS)
    assert (texts(found), found.repeated) == (["a", "b"], 2)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", parquet(text=["x"]), "found a Parquet file"),
        ("a.txt", b"PK\x03\x04rest", "found a zip archive"),
        ("a.jsonl", b"\x1f\x8b\x08rest", "found a gzip archive"),
        ("a.md", b"%PDF-1.7", "found a PDF"),
        ("a.txt", b"text\x00text", "found binary data"),
        ("a.parquet", b"prompt\nx\n", "expected a Parquet file"),
        ("a.parquet", parquet(text=["x"])[:-3], "cut short"),
        ("a.parquet", b"PAR1\x00\x00\xff\xff\xff\x7fPAR1", "cannot be read as Parquet"),
        ("a.exe", b"x", "Upload one of"),
        ("a", b"x", "Upload one of"),
        ("a.txt", b"caf\xe9\n", "line 1 holds the byte 0xe9"),
        ("a.csv", b"", "no columns"),
        ("a.csv", b"a,a\n1,2\n", "told apart"),
        ("a.csv", b"x,y\n1,2\n", "not clear which column"),
        ("a.txt", b" \n\n", "no prompt"),
    ],
)
def test_files_that_are_not_what_they_say(name: str, data: bytes, said: str) -> None:
    with pytest.raises(NLAError) as error:
        read_upload(name, data, LIMITS)
    assert said in str(error.value)


def test_a_csv_that_breaks_off() -> None:
    found = read_upload("a.csv", b'prompt,x\nfine,1\nshort\n"open,2\n', LIMITS)
    assert texts_of(found) == ["fine"]
    assert "line 3, expected 2 columns, found 1" in found.problems[0]
    assert "line 4, is not CSV" in found.problems[1]


def test_a_million_lines_are_refused_at_once() -> None:
    data = b"x\n" * 1_000_000
    for name, more in (("a.txt", b""), ("a.csv", b"prompt\n"), ("a.jsonl", b"")):
        began = time.monotonic()
        with pytest.raises(NLAError, match="upload_rows is 10,000"):
            read_upload(name, more + data, LIMITS)
        assert time.monotonic() - began < 20
    with pytest.raises(NLAError, match="limit prompts"):
        read_upload("a.txt", b"".join(b"%d\n" % n for n in range(51)), LIMITS)
    with pytest.raises(NLAError, match="upload_bytes is 100"):
        read_upload("a.txt", b"x" * 101, Limits(upload_bytes=100))


def test_a_small_file_that_unfolds_to_gigabytes() -> None:
    """One long text, five thousand times, through a dictionary; and as many claimed rows."""
    once = pa.array(["x" * 1_000_000])
    again = pa.DictionaryArray.from_arrays(pa.array([0] * 5_000, pa.int32()), once)
    bomb = parquet(text=again)
    assert len(bomb) < 2_000_000
    before, began = pa.total_allocated_bytes(), time.monotonic()
    found = read_upload("a.parquet", bomb, LIMITS)
    assert found.n_problems == MOST_PROBLEMS
    assert "prompt_characters" in found.problems[0]
    assert pa.total_allocated_bytes() - before < 500_000_000
    assert time.monotonic() - began < 20
    many = parquet(text=pa.nulls(3_000_000, pa.string()))
    assert len(many) < 100_000
    with pytest.raises(NLAError, match="3,000,000 and the limit upload_rows"):
        read_upload("a.parquet", many, LIMITS)
    wide = parquet(text=[None] * 9_000, blob=["y" * 30_000 + str(n) for n in range(9_000)])
    assert len(wide) < LIMITS.upload_bytes * 10
    with pytest.raises(NLAError, match=r"unfolds to more|too large"):
        read_upload("a.parquet", wide, LIMITS)


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt": [b"abc"]},
        {"prompt": [date(2026, 1, 1)]},
        {"messages": [[{"role": "user", "content": b"x"}]]},
        {"prompt": ["x"], "system": [b"x"]},
    ],
)
def test_cells_that_are_no_text_are_told_by_row(columns: dict[str, list[object]]) -> None:
    found = read_upload("a.parquet", parquet(**columns), LIMITS)
    assert found.prompts == ()
    assert found.problems[0].startswith("a.parquet row 1, field '")


@pytest.mark.parametrize("row", [{"prompt": "x", "title": "\ud800"}, {"prompt": "x", "\ud800": 1}])
def test_half_a_surrogate_pair_is_told_wherever_it_stands(row: dict[str, object]) -> None:
    found = read_upload("a.jsonl", jsonl(row), LIMITS)
    assert found.prompts == ()
    assert "half of a surrogate pair" in found.problems[0]


def test_lines_with_ever_new_columns_are_refused() -> None:
    with pytest.raises(NLAError, match="too many columns"):
        read_upload("a.jsonl", jsonl(*({"prompt": "x", f"c{i}": 1} for i in range(300))), LIMITS)


def test_brackets_without_end_are_refused() -> None:
    with pytest.raises(NLAError, match=r"a\.json .*\n?.*nested too deeply"):
        read_upload("a.json", b"[" * 200_000, LIMITS)


@pytest.mark.parametrize("name", ["é" * 150 + ".json", "a\x00.json"])
def test_a_name_that_no_disk_takes(name: str) -> None:
    found = read_upload(name, json.dumps([{"messages": CHAT}]).encode(), LIMITS)
    assert found.prompts[0].where == f"{name} entry 1"


@given(data=st.binary(max_size=300), suffix=st.sampled_from(SUFFIXES))
def test_any_bytes_are_read_or_refused(data: bytes, suffix: str) -> None:
    with contextlib.suppress(NLAError):
        assert isinstance(read_upload("a" + suffix, data, LIMITS), Upload)


def test_settings_are_read_and_wrong_ones_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMITS_VARIABLE, "prompts=7, queue_total=9")
    assert (Limits.from_environment().prompts, Limits.from_environment().queue_total) == (7, 9)
    monkeypatch.setenv(WORKER_VARIABLE, "devices=cuda:0+cuda:1,stall_s=7.5")
    assert WorkerSettings.from_environment().device_names == ("cuda:0", "cuda:1")
    assert WorkerSettings.from_environment().stall_s == 7.5
    for text, said in (("promts=7", "no setting “promts”"), ("prompts=-1", "0 or more"),
                       ("prompts=many", "many"), ("prompts", "no setting")):  # fmt: skip
        monkeypatch.setenv(LIMITS_VARIABLE, text)
        with pytest.raises(NLAError, match=said):
            Limits.from_environment()


@pytest.mark.parametrize("settings", [Limits(), WorkerSettings()], ids=["limits", "worker"])
def test_every_setting_is_documented_with_its_default(settings: Limits | WorkerSettings) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for field in fields(settings):
        assert f"| `{field.name}` | {getattr(settings, field.name)} |" in readme


def test_a_file_of_chats_is_read_with_its_answers() -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    data = json.dumps([{"title": "a chat", "messages": chat}]).encode()
    found = read_upload("chats.json", data, Limits())
    (prompt,) = found.require()
    assert prompt.messages == tuple(chat)
    assert prompt.title == "a chat"
    assert prompt.where == "chats.json entry 1"


def test_a_log_that_would_unpack_to_too_much_is_refused_unread() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples/1.json", b"0" * 3_000_000)
    with pytest.raises(NLAError, match="unpacked it has 3,000,000 bytes"):
        read_upload("bomb.eval", buffer.getvalue(), Limits(upload_bytes=100_000))


@pytest.mark.parametrize(("name", "data"), [("a.eval", b"%PDF-1.7"), ("b.json", b"PK\x03\x04")])
def test_a_log_that_is_none_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(NLAError, match="is not"):
        read_upload(name, data, Limits())


def test_a_file_without_conversations_is_refused_by_its_own_name() -> None:
    with pytest.raises(NLAError) as refused:
        read_upload("odd.json", b'{"numbers": [1]}', Limits())
    assert "odd.json" in str(refused.value)
    assert "/tmp" not in str(refused.value)


def test_a_system_column_goes_before_messages() -> None:
    talk = [{"role": "user", "content": "Hello?"}]
    led = [{"role": "system", "content": "be brief"}, *talk]
    found = read_upload(
        "a.jsonl",
        jsonl(
            {"messages": talk, "system": "be brief"},
            {"messages": [*led, {"role": "assistant", "content": "Yes."}], "system": "be brief"},
            {"messages": led, "system": ""},
            {"messages": [led[0], {"role": "user", "content": "You?"}], "system": "be long"},
            {"messages": [{"role": "user", "content": "None?"}], "system": None},
        ),
        LIMITS,
    )
    assert [p.messages[0]["content"] for p in found.prompts] == ["be brief", "be brief", "None?"]
    assert [len(p.messages) for p in found.prompts] == [2, 3, 1]
    assert found.repeated == 1, "the third says what the first does"
    assert found.n_problems == 1
    (problem,) = found.problems
    assert problem.startswith("a.jsonl line 4, field 'system'")
    assert "be brief" in problem
    assert "be long" in problem
    without = read_upload(
        "a.jsonl",
        jsonl({"messages": led, "system": "be long"}),
        LIMITS,
        mapping=Columns(messages="messages"),
    )
    assert without.prompts[0].messages == tuple(led)
