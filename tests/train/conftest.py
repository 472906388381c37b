"""What the tests of training share: a toy pair, a chat service, a teacher's model, a corpus.

The toy can be learned in a second: vectors made of words, and halves warmed up on them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from nla_core.models.chat import prompt_ids, raw_pieces, with_answer
from nla_core.models.checkpoints import Resolved
from nla_core.models.injection import build_slot
from precompute.train.contract import new_contract
from precompute.train.examples import Examples
from precompute.train.labels import Idf
from precompute.train.record import finish, target_sha256
from precompute.train.runs import train_role
from precompute.train.sft import SftSettings
from precompute.train.tasks import VerbalizerTask
from precompute.train.teachers import LabelRequest, StructuredTeacher
from tests.tiny import D_MODEL, LAYER, MARKER, TEXT, tiny_model, tiny_tokenizer
from tests.train.fake_chat import Service, serving

SCALE = 20.0
TOY_WORDS = ("fox", "dog", "rain", "stone", "bridge", "people", "brown", "lazy")


def toy_examples(n: int, seed: int) -> Examples:
    """``n`` vectors, each the sum of two words' directions; the label names the two."""
    rng = random.Random(seed)
    directions = torch.randn(len(TOY_WORDS), D_MODEL, generator=torch.Generator().manual_seed(7))
    pairs = [rng.sample(range(len(TOY_WORDS)), 2) for _ in range(n)]
    hidden = torch.stack([directions[a] + 0.5 * directions[b] for a, b in pairs])
    rows = pd.DataFrame(
        {
            "doc_id": [f"d{seed}-{i}" for i in range(n)],
            "source": "toy",
            "position": range(n),
            "label": [f"{TOY_WORDS[a]} {TOY_WORDS[b]}" for a, b in pairs],
            "context": [f"they tell of {TOY_WORDS[b]} and {TOY_WORDS[a]}" for a, b in pairs],
        }
    )
    return Examples(rows, hidden.half())


def _base_that_writes(folder: Path) -> None:
    model, tokenizer = tiny_model().requires_grad_(True), tiny_tokenizer()
    av, _ = new_contract(
        tokenizer,
        Resolved(str(folder), folder, None),
        d_model=D_MODEL,
        layer=LAYER,
        injection_scale=SCALE,
        marker=MARKER,
    )
    task = VerbalizerTask(model, tokenizer, build_slot(av, tokenizer), SCALE)
    examples = toy_examples(320, seed=9)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for batch in torch.arange(320).split(8):
        loss = task.loss(
            examples.hidden[batch].float(), examples.rows["label"].iloc[batch].tolist()
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base``, ``data`` with four splits, and the finished runs ``av`` and ``ar``.

    The base itself learns the form of an explanation with all its weights: a LoRA on a random
    model would need minutes for the tags alone.
    """
    root = tmp_path_factory.mktemp("toy")
    _base_that_writes(root / "base")
    for seed, (split, n) in enumerate({"ar": 96, "av": 96, "rl": 70, "val": 16}.items()):
        toy_examples(n, seed).save(root / "data" / split)
    base = Resolved(str(root / "base"), root / "base", None)
    made_from = {"target": {"sha256": target_sha256(base)}, "layer": LAYER}
    finish(root / "data", made_from, {})
    for role, steps in (("av", 5), ("ar", 40)):
        train_role(
            role,
            base_spec=str(root / "base"),
            layer=LAYER,
            data=root / "data",
            out=root / role,
            settings=SftSettings(steps=steps, lr=1e-2, batch_size=16, rank=4, alpha=8, warmup=5),
            injection_scale=SCALE,
            marker=MARKER,
            device="cpu",
            dtype="float32",
        )
    return root


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
