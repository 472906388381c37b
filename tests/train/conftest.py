"""What the tests of teachers and of `train data` share: a service, a model, requests, a corpus."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nla_core.nla.layout import prompt_ids, raw_pieces, with_answer
from precompute.train.labels import Idf
from precompute.train.teachers.base import LabelRequest
from precompute.train.teachers.structured import StructuredTeacher
from tests.tiny import TEXT, tiny_model, tiny_tokenizer
from tests.train.fake_chat import Service, serving

WORDS = TEXT.split()[:30]
KEY = "sk-secret-0123456789"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A chat service on this machine, with keys for it in the environment."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def teacher_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose context holds a teacher's question."""
    folder = tmp_path_factory.mktemp("teacher")
    model = tiny_model(seed=5)
    model.config.max_position_embeddings = 4096
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def stand_in() -> StructuredTeacher:
    return StructuredTeacher(Idf.fit(["the quick brown fox", "rain falls", "people say that"]))


@pytest.fixture(scope="session")
def requests() -> list[LabelRequest]:
    """Raw prefixes and chats, short and long, with what the target expects next."""
    tokenizer = tiny_tokenizer()
    rng = random.Random(0)
    found = []
    for i in range(7):
        text = " ".join(rng.choices(WORDS, k=6 + 2 * i))
        if i % 2:
            prompt = prompt_ids(tokenizer, [{"role": "user", "content": text}])
            _, pieces = with_answer(tokenizer, prompt, tokenizer("rain falls on")["input_ids"])
        else:
            pieces = raw_pieces(tokenizer, tokenizer(text)["input_ids"])
        found.append(LabelRequest(tuple(pieces), (" the", " fox", "."), (0.5, 0.2, 0.01), i))
    return found


def write_corpus(path: Path, n: int = 120) -> Path:
    documents: list[dict[str, Any]] = [
        {
            "doc_id": f"d{i}",
            "source": "even" if i % 2 else "odd",
            "text": " ".join(WORDS[(i * 7 + k * 3) % 30] for k in range(40))
            + "\n\n"
            + " ".join(WORDS[(i * 5 + k) % 30] for k in range(40)),
        }
        for i in range(n)
    ]
    path.write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    return path
