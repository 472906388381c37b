"""Conversations from elsewhere become a corpus, and are read as they stand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from nla_core.conversations import normalised
from nla_core.data.dataset import Dataset
from nla_core.errors import NLAError
from precompute.cli import main
from precompute.corpus import read_corpus
from tests.tiny import tiny_pair

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "the quick brown"},
    {"role": "assistant", "content": "fox jumps"},
]


def convert(tmp_path: Path, name: str, content: str) -> list[dict[str, Any]]:
    source, out = tmp_path / name, tmp_path / "out.jsonl"
    source.write_text(content, encoding="utf-8")
    assert main(["transcripts", str(source), "--out", str(out)]) == 0
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat.json", json.dumps(CHAT)),
        ("chats.json", json.dumps([{"messages": CHAT, "title": "A chat"}])),
        ("chats.jsonl", json.dumps({"conversation": CHAT}) + "\n\n"),
        (
            "shared.jsonl",
            json.dumps(
                {"conversations": [{"from": m["role"], "value": m["content"]} for m in CHAT]}
            ),
        ),
    ],
)
def test_the_forms_that_chats_are_kept_in(tmp_path: Path, name: str, content: str) -> None:
    (prompt,) = convert(tmp_path, name, content)
    assert prompt["messages"] == CHAT
    assert prompt["category"] == Path(name).stem
    read = read_corpus([tmp_path / "out.jsonl"], answered=True)
    assert list(read.prompts[0].messages) == CHAT


def test_the_same_conversation_is_taken_once(tmp_path: Path) -> None:
    line = json.dumps({"messages": CHAT}) + "\n"
    assert len(convert(tmp_path, "twice.jsonl", line * 2)) == 1


def test_turns_of_tools_and_neighbours_are_told_in_two_voices() -> None:
    turns = normalised(
        [
            {"role": "assistant", "content": "Hello."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "What is"}, {"text": "the time?"}],
            },
            {"role": "assistant", "content": ""},
            {"role": "tool", "content": "12:00"},
            {"role": "system", "content": "Hurry."},
            {"role": "assistant", "content": "Noon."},
        ]
    )
    assert [t["role"] for t in turns] == ["user", "assistant", "user", "assistant"]
    assert turns[2]["content"] == "What is\nthe time?\n\n[tool result]\n12:00\n\n[system]\nHurry."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"messages": [{"role": "wizard", "content": "x"}]}', "messages[0].role"),
        ('{"messages": [{"role": "user", "content": 3}]}', "messages[0].content"),
        ('{"text": "no messages"}', "holds no conversation"),
        ("{not json", "neither JSON nor JSON lines"),
        ('{"messages": []}', "expected a list of messages"),
        ("", "no transcripts"),
    ],
)
def test_a_mistake_is_told_by_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    source = tmp_path / "bad.jsonl"
    source.write_text(content)
    assert main(["transcripts", str(source), "--out", str(tmp_path / "out.jsonl")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_an_inspect_log_without_inspect_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    (tmp_path / "log.eval").write_bytes(b"PK")
    assert main(["transcripts", str(tmp_path / "log.eval"), "--out", str(tmp_path / "o")]) == 2
    assert "pip install inspect-ai" in capsys.readouterr().err


def test_an_inspect_log_is_read_by_inspect(tmp_path: Path) -> None:
    """With Inspect itself where it is installed."""
    log = pytest.importorskip("inspect_ai.log", reason="Inspect is not installed")
    model = pytest.importorskip("inspect_ai.model")
    sample = log.EvalSample(
        id="s1",
        epoch=1,
        input="the quick brown",
        target="fox",
        messages=[
            model.ChatMessageUser(content="the quick brown"),
            model.ChatMessageAssistant(content="fox jumps"),
        ],
    )
    spec = log.EvalSpec(
        created="2026-01-01T00:00:00+00:00",
        task="animals",
        dataset=log.EvalDataset(),
        model="tests/none",
        config=log.EvalConfig(),
    )
    path = tmp_path / "log.eval"
    log.write_eval_log(log.EvalLog(eval=spec, samples=[sample]), str(path))
    assert main(["transcripts", str(path), "--out", str(tmp_path / "out.jsonl")]) == 0
    (prompt,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert prompt["category"] == "animals"
    assert [m["content"] for m in prompt["messages"]] == ["the quick brown", "fox jumps"]


def test_a_conversation_is_read_as_it_stands(tmp_path: Path) -> None:
    convert(tmp_path, "chat.json", json.dumps(CHAT))
    corpus, out = tmp_path / "out.jsonl", tmp_path / "dataset"
    command = [
        *("run", "--nla", str(tiny_pair(tmp_path)), "--corpus", str(corpus), "--out", str(out)),
        *("--max-new-tokens", "0", "--explanation-tokens", "4", "--device", "cpu"),
    ]
    assert main(command) == 0
    dataset = Dataset.open(out)
    (row,) = dataset.transcripts().to_dict("records")
    assert row["answer_finish"] == "none"
    tokens = dataset.tokens(row["transcript_id"])
    said = tokens[tokens["section"] == "content"]
    assert "".join(said.loc[said["role"] == "assistant", "text"]) == "fox jumps"
    assert len(dataset.readings(row["transcript_id"])) > 0


def test_without_that_an_answered_conversation_is_refused(tmp_path: Path) -> None:
    convert(tmp_path, "chat.json", json.dumps(CHAT))
    with pytest.raises(NLAError, match="ending with user"):
        read_corpus([tmp_path / "out.jsonl"])
