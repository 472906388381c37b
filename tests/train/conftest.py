"""A toy that can be learned in a second: vectors made of words, and halves warmed up on them."""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd
import pytest
import torch

from nla_core.nla.checkpoints import Resolved
from nla_core.nla.injection import build_slot
from precompute.train.contract import new_contract
from precompute.train.examples import Examples
from precompute.train.runs import train_role
from precompute.train.sft import SftSettings
from precompute.train.tasks import VerbalizerTask
from tests.tiny import D_MODEL, LAYER, MARKER, tiny_model, tiny_tokenizer

SCALE = 20.0
WORDS = ("fox", "dog", "rain", "stone", "bridge", "people", "brown", "lazy")


def toy_examples(n: int, seed: int) -> Examples:
    """``n`` vectors, each the sum of two words' directions; the label names the two."""
    rng = random.Random(seed)
    directions = torch.randn(len(WORDS), D_MODEL, generator=torch.Generator().manual_seed(7))
    pairs = [rng.sample(range(len(WORDS)), 2) for _ in range(n)]
    hidden = torch.stack([directions[a] + 0.5 * directions[b] for a, b in pairs])
    rows = pd.DataFrame(
        {
            "doc_id": [f"d{seed}-{i}" for i in range(n)],
            "source": "toy",
            "position": range(n),
            "label": [f"{WORDS[a]} {WORDS[b]}" for a, b in pairs],
            "context": [f"they tell of {WORDS[b]} and {WORDS[a]}" for a, b in pairs],
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
