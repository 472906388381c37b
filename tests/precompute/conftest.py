"""A small corpus on disk, with one prompt that cannot be answered and one that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from precompute import publish as publish_verb
from precompute.corpus import read_corpus
from precompute.plan import Plan
from tests.precompute.fake import BROKEN, UNREADABLE, fake_plan, published, run_fake

WriteCorpus = Callable[[list[dict[str, Any]]], Path]


def prompt(id: str, text: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": id,
        "category": "facts",
        "title": f"Title of {id}",
        "tags": ["short"],
        "messages": [{"role": "user", "content": text}],
        **changes,
    }


PROMPTS = [
    prompt("p-3", "Where do rabbits sleep 🐇"),
    prompt("p-1", "Name a river in Poland"),
    prompt("p-5", f"this one is {BROKEN}"),
    prompt(
        "p-2",
        "And in France",
        messages=[
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "Name a river in Spain"},
            {"role": "assistant", "content": "The Ebro"},
            {"role": "user", "content": "And in France"},
        ],
    ),
    prompt("p-4", f"this one is {UNREADABLE} inside"),
    prompt("p-6", "日本語 で 書いて ください"),
    prompt("p-7", "the last\nof them"),
]


@pytest.fixture
def write_corpus(tmp_path: Path) -> WriteCorpus:
    def write(prompts: list[dict[str, Any]]) -> Path:
        path = tmp_path / "prompts.jsonl"
        lines = (json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in prompts)
        path.write_text("".join(lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def corpus_file(write_corpus: WriteCorpus) -> Path:
    return write_corpus(PROMPTS)


@pytest.fixture(autouse=True)
def _one_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may commit or change files of this checkout while the tests run."""
    monkeypatch.setattr(publish_verb, "git_commit", lambda: "test")


@pytest.fixture
def plan(corpus_file: Path) -> Plan:
    return fake_plan(read_corpus([corpus_file]), shard_size=2)


@pytest.fixture
def reference(plan: Plan, tmp_path: Path) -> dict[str, bytes]:
    """What an undisturbed run publishes."""
    out = tmp_path / "reference"
    run_fake(plan, out)
    return published(out)
