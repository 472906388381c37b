"""Builders shared by the tests: a small dataset, shaped like a real one, without any model.

`make_dataset` sends invented rows through the real publishing code, so that what the tests read is
laid out by what users run. Everything follows from the arguments: the same call gives the same
bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nla_core.data.publish import publish_tables
from nla_core.schema import (
    EARLY_POSITIONS,
    LOW_FIDELITY_FVE,
    TABLES,
    Finish,
    Flag,
    Role,
    Section,
    Status,
)

RAWVAR = 0.481
HIGH_NORM_POSITION = 3  # the first content token where there is no system prompt
PAIR = {
    "pair_id": "tiny-L2",
    "revision": "0123456789abcdef",
    "layer": 2,
    "d_model": 16,
    "target": "tests/tiny",
    "rawvar": RAWVAR,
    "injection_scale": 250.0,
}

# (prompt id, category, title, tags, messages); the last message is the answer.
Prompt = tuple[str, str, str, list[str], list[tuple[str, str]]]

PROMPTS: list[Prompt] = [
    (
        "facts-001",
        "facts",
        "Capital of France",
        ["geography"],
        [("user", "What is the capital of France?"), ("assistant", "The capital is Paris.")],
    ),
    (
        "facts-002",
        "facts",
        "The tallest mountain",
        ["geography", "multi-turn"],
        [
            ("system", "Answer in one short sentence."),
            ("user", "Which mountain is the tallest?"),
            ("assistant", "Mount Everest is the tallest mountain."),
            ("user", "And how tall is it?"),
            ("assistant", "It is 8,849 metres tall, measured from the sea."),
        ],
    ),
    (
        "rhyme-001",
        "rhyme and planning",
        "A couplet about a rabbit",
        [],
        [
            ("user", "Finish the couplet:\nHe saw a carrot and had to grab it,"),
            ("assistant", "His hunger was like a starving rabbit.\n\nThe end."),
        ],
    ),
    (
        "language-001",
        "language switching",
        "Grüße auf 日本語 👋🏽",
        ["multilingual"],
        [
            ("user", "Schreibe „Grüße“ auf Japanisch 👋🏽, bitte."),
            ("assistant", "挨拶 (aisatsu) 😀 — schöne Grüße aus 東京!"),
        ],
    ),
    (
        "markup-001",
        "code",
        "<b>HTML</b> & $math$ in a title",
        ["code"],
        [
            ("user", "Explain `<script>alert(1)</script>` & **bold** | $x^2$."),
            ("assistant", "```html\n<script>alert(1)</script>\n```\nIt opens a dialog. :smile: $5"),
        ],
    ),
    (
        "long-001",
        "long text",
        "Far too long for the context",
        [],
        [("user", "word " * 40)],
    ),
]
ERROR_PROMPT = "long-001"
CUT_EXPLANATIONS_OF = "rhyme-001"
ERROR_TEXT = (
    "The prompt long-001 does not fit. It has 9,001 tokens and the target reads 8,192. "
    "Shorten it or split it in two."
)

_PIECES = re.compile(r"\n|\d| ?[^\W\d]+| ?[^\w\s]| ")
_TOPICS = ["geography of France", "a list of animals", "code and markup", "height of mountains"]
_NEXT = [" the", " Paris", ".", "\n", " rabbit", "挨"]


def make_dataset(
    root: Path,
    prompts: Sequence[Prompt] = PROMPTS,
    *,
    samples: int = 1,
    dimension: int = 16,
    answer_repeats: int = 1,
    **info: Any,
) -> str:
    """Publish a dataset under ``root`` and return its version.

    ``answer_repeats`` makes long transcripts: the answer is repeated that often. ``info``
    replaces the manifest's pair, corpus or settings.
    """
    tables = make_tables(prompts, samples=samples, answer_repeats=answer_repeats)
    manifest = {
        "pair": PAIR,
        "corpus": {"n_prompts": len(prompts), "files": {"prompts.jsonl": "0" * 64}},
        "settings": {"temperature": 0.0, "max_new_tokens": 48, "samples": samples},
    }
    return publish_tables(
        root, tables, embed=lambda texts: hash_vectors(texts, dimension), **(manifest | info)
    )


def make_tables(
    prompts: Sequence[Prompt] = PROMPTS, *, samples: int = 1, answer_repeats: int = 1
) -> dict[str, pa.Table]:
    """The three tables of `make_dataset`, rows in the order of the prompts."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for prompt_id, category, title, tags, messages in prompts:
        if answer_repeats > 1 and messages[-1][0] == Role.ASSISTANT:
            messages = [*messages[:-1], (Role.ASSISTANT, messages[-1][1] * answer_repeats)]
        transcript_id = transcript_id_of(prompt_id)
        failed = prompt_id == ERROR_PROMPT
        tokens = [] if failed else list(_tokens(transcript_id, messages))
        readings = [
            _reading(token, sample, cut=prompt_id == CUT_EXPLANATIONS_OF)
            for token in tokens
            if token["section"] == Section.CONTENT
            for sample in range(samples)
        ]
        flagged = [bool(reading["flags"]) for reading in readings]
        rows["tokens"] += tokens
        rows["readings"] += readings
        rows["transcripts"].append(
            {
                "transcript_id": transcript_id,
                "prompt_id": prompt_id,
                "category": category,
                "title": title,
                "tags": tags,
                "messages": json.dumps(
                    [{"role": role, "content": content} for role, content in messages],
                    ensure_ascii=False,
                ),
                "status": Status.ERROR if failed else Status.OK,
                "error": ERROR_TEXT if failed else None,
                "n_tokens": len(tokens),
                "n_answer_tokens": sum(token["turn"] == len(messages) - 1 for token in tokens),
                "answer_finish": "none" if failed else "stop",
                "n_readings": len(readings),
                "mean_fve": None if failed else float(np.mean([r["fve"] for r in readings])),
                "flagged_share": None if failed else float(np.mean(flagged)),
                "seed": _number(prompt_id) % 1000,
            }
        )
    return {name: pa.Table.from_pylist(rows[name], schema) for name, schema in TABLES.items()}


def transcript_id_of(prompt_id: str) -> str:
    """The id that `make_dataset` gives the transcript of a prompt."""
    return hashlib.sha256(prompt_id.encode()).hexdigest()[:16]


def hash_vectors(texts: Sequence[str], dimension: int = 16) -> np.ndarray:
    """[text, dimension] unit vectors that follow from each text alone."""
    rows = [np.random.default_rng(_number(text)).normal(size=dimension) for text in texts]
    vectors = np.array(rows).reshape(len(texts), dimension)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _pieces(messages: Sequence[tuple[str, str]]) -> list[tuple[str, str, int, list[str]]]:
    """(role, section, turn, texts of the tokens of one chip) in reading order, ChatML style.

    A character beyond U+0800 takes as many tokens as UTF-8 bytes minus one: the first holds the
    text, the others are empty.
    """
    found: list[tuple[str, str, int, list[str]]] = []
    for turn, (role, content) in enumerate(messages):
        found += [(role, Section.TEMPLATE, turn, [text]) for text in ("<|im_start|>", role, "\n")]
        for piece in _PIECES.findall(content):
            wide = [c for c in piece if ord(c) >= 0x800]
            for part in list(piece) if wide else [piece]:
                spread = max(len(part.encode()) - 2, 0) if ord(part[0]) >= 0x800 else 0
                found.append((role, Section.CONTENT, turn, [part] + [""] * spread))
        found += [(role, Section.TEMPLATE, turn, [text]) for text in ("<|im_end|>", "\n")]
    return found


def _tokens(transcript_id: str, messages: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for chip, (role, section, turn, texts) in enumerate(_pieces(messages)):
        for text in texts:
            position = len(rows)
            rng = np.random.default_rng(_number(f"{transcript_id}/{position}"))
            probs = np.sort(rng.dirichlet(np.ones(6)))[::-1][:5]
            high = position == HIGH_NORM_POSITION
            rows.append(
                {
                    "transcript_id": transcript_id,
                    "position": position,
                    "token_id": int(rng.integers(0, 49_152)),
                    "chip": chip,
                    "text": text,
                    "role": role,
                    "section": section,
                    "turn": turn,
                    "norm": 4000.0 if high else float(rng.normal(237, 12)),
                    "norm_pct": 100.0 if high else float(rng.uniform(0, 100)),
                    "surprisal": None if position == 0 else float(rng.exponential(2.5)),
                    "top_tokens": [_NEXT[i] for i in rng.permutation(len(_NEXT))[:5]],
                    "top_probs": [float(p) for p in probs],
                }
            )
    return rows


def _reading(token: dict[str, Any], sample: int, *, cut: bool) -> dict[str, Any]:
    """A reading whose numbers agree with each other; every fourth one is below the mean."""
    position = token["position"]
    key = f"{token['transcript_id']}/{position}/{sample}"
    rng = np.random.default_rng(_number(key))
    low = _number(key) % 4 == 0
    fve = float(rng.uniform(-0.6, LOW_FIDELITY_FVE)) if low else float(rng.uniform(0.05, 0.7))
    mse = (1 - fve) * RAWVAR
    cut = cut and position % 3 == 0
    flags = {
        Flag.EARLY: position < EARLY_POSITIONS,
        Flag.HIGH_NORM: position == HIGH_NORM_POSITION,
        Flag.CUT: cut,
        Flag.LOW_FIDELITY: fve < LOW_FIDELITY_FVE,
    }
    topic = _TOPICS[_number(key) % len(_TOPICS)]
    text = f"topic: {topic}.\nreading: …'{token['text']}'"
    return {
        "reading_id": hashlib.sha256(key.encode()).hexdigest()[:16],
        "transcript_id": token["transcript_id"],
        "position": position,
        "sample": sample,
        "explanation": text if cut else f"{text}\nnext: {' / '.join(token['top_tokens'][:3])}.",
        "finish": Finish.CUT if cut else Finish.CLOSED,
        "n_tokens": 40 if cut else 24,
        "mse_nrm": mse,
        "cosine": 1 - mse / 2,
        "centred_cosine": float(rng.uniform(-0.1, 0.8)),
        "fve": fve,
        "flags": [flag for flag, holds in flags.items() if holds],
        "seed": 7 + sample,
    }
