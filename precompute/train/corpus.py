"""Training documents and the windows that are cut from them.

Knows splits by document hash, and two ways to show a text to the target: raw, or as a chat. Knows
nothing of the files documents come from, of labels and of vectors. The decision a reader would
question: the split is a pure function of the document's id, so that no later change of sampling can
leak a training document into the held-out set.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nla_core.errors import NLAError
from nla_core.models.chat import Piece, prompt_ids, raw_pieces, with_answer

SPLITS: dict[str, float] = {"ar": 0.35, "av": 0.50, "rl": 0.10, "val": 0.05}
CHAT_SHARE = 0.6
ANSWER_SHARE = 0.5
"""Of the chats, those that the target itself is left to answer: what it writes is what it reads."""
MIN_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Document:
    doc_id: str
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Window:
    """Token ids as the target reads them, and what each of them is."""

    doc_id: str
    source: str
    ids: tuple[int, ...]
    pieces: tuple[Piece, ...]
    is_chat: bool
    wants_answer: bool = False
    notes: Mapping[int, str] | None = field(default=None, hash=False)
    """Of an annotated text: the note that labels each token which has one."""


def split_of(doc_id: str) -> str:
    """The split of a document: a hash of its id against the cumulative shares of SPLITS."""
    digest = hashlib.sha256(f"nla-split:{doc_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in SPLITS.items():
        if place < share:
            return name
        place -= share
    return next(iter(SPLITS))


def windows(
    documents: Sequence[Document], tokenizer: Any, *, count: int, max_tokens: int, seed: int
) -> list[Window]:
    """Up to ``count`` windows, one a document and round, sources balanced by square root.

    Raises NLAError where the documents are too few to cut a single window.
    """
    rng = random.Random(seed)
    by_source: dict[str, list[Document]] = {}
    for document in documents:
        by_source.setdefault(document.source, []).append(document)
    if not by_source:
        raise NLAError(
            "The corpus is too small for its splits",
            why="One of the splits holds no document",
            fix="Give at least a few hundred documents",
        )
    sources = sorted(by_source)
    weights = [len(by_source[s]) ** 0.5 for s in sources]
    result: list[Window] = []
    for _ in range(count * 3):
        if len(result) >= count:
            break
        document = rng.choice(by_source[rng.choices(sources, weights)[0]])
        window = cut_window(document, tokenizer, max_tokens=max_tokens, rng=rng)
        if window is not None:
            result.append(window)
    return result


def cut_window(
    document: Document, tokenizer: Any, *, max_tokens: int, rng: random.Random
) -> Window | None:
    """One random stretch of a document, raw or as a chat; None where it is too short.

    Lengths are drawn between 64 and ``max_tokens`` (shorter texts are taken whole); a chat is
    either the document's own, or its question alone, for the target to answer (``wants_answer``).
    """
    text = document.text.replace("Â", "")
    limit = rng.randint(min(MIN_TOKENS, max_tokens), max_tokens)
    wants_answer = False
    if tokenizer.chat_template and rng.random() < CHAT_SHARE:
        question, _, answer = text.partition("\n\n")
        words = question.split(" ")
        question = " ".join(words[: rng.randint(8, max(9, limit // 2))]).strip()
        if not question:
            return None
        ids, pieces = prompt_ids(tokenizer, [{"role": "user", "content": question}])
        wants_answer = len(ids) < max_tokens and rng.random() < ANSWER_SHARE
        if not wants_answer:
            reply = tokenizer(answer.strip()[:1200], add_special_tokens=False)["input_ids"]
            ids, pieces = with_answer(tokenizer, (ids, pieces), reply)
            ids, pieces = ids[:limit], pieces[:limit]
    else:
        start = rng.randrange(max(1, len(text) - 400))
        start = text.find(" ", start) + 1 if start else 0
        encoded = tokenizer(text[start : start + 8 * max_tokens])["input_ids"]
        ids = encoded[:limit]
        pieces = raw_pieces(tokenizer, ids)
    if len(ids) < 12:
        return None
    is_chat = any(p.turn > 0 for p in pieces)
    return Window(
        document.doc_id, document.source, tuple(ids), tuple(pieces), is_chat, wants_answer
    )
