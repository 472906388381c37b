"""Labels without any LLM: what a model would be using here to predict the next token.

Knows how to word the last token, the words before it, the target's own next-token predictions and
the topic of what came earlier. Knows nothing of vectors. The decision a reader would question: the
last token comes first, then the tail it ends, because the AV writes left to right and the last
token is what its vector shows most plainly; topic words that stand in the tail are not repeated.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nla_core.nla.layout import Piece
from nla_core.schema import Section

TAIL_TOKENS = 6
NEXT_TOKENS = 3
TOPIC_WORDS = 2
MIN_NEXT_PROB = 0.03
RECENCY = 0.985  # a topic word's weight falls by this factor per token of distance

_WORD = re.compile(r"[A-Za-z][A-Za-z'-]{3,}")


@dataclass(frozen=True, slots=True)
class Idf:
    """Inverse document frequencies of lower-cased words; unseen words count as rarest."""

    weights: dict[str, float]
    default: float

    @classmethod
    def fit(cls, texts: Iterable[str]) -> Idf:
        counts: Counter[str] = Counter()
        n = 0
        for text in texts:
            n += 1
            counts.update({w.lower() for w in _WORD.findall(text)})
        weights = {w: math.log((n + 1) / (c + 1)) for w, c in counts.items() if c > 1}
        return cls(weights, math.log(n + 1))

    def __getitem__(self, word: str) -> float:
        return self.weights.get(word, self.default)


def structured_label(
    pieces: Sequence[Piece], top_tokens: Sequence[str], top_probs: Sequence[float], idf: Idf
) -> str:
    """The label of the last token of ``pieces``; ``top_*`` are the target's predictions there."""
    tail = tail_text(pieces)
    last = tidy(pieces[-1].text) or "\\n"
    parts = [f'At "{last}": "{tail}".']
    if following := next_words(top_tokens, top_probs):
        parts.append(f"Next: {' / '.join(following)}.")
    if topic := topic_words(pieces, tail, idf):
        parts.append(f"About: {', '.join(topic)}.")
    return " ".join(parts)


def tail_text(pieces: Sequence[Piece], length: int = TAIL_TOKENS) -> str:
    """The last words verbatim; where a turn began within them, its speaker stands in brackets."""
    last = pieces[-1]
    start = len(pieces) - 1
    while start > 0 and len(pieces) - start < length and _same_turn(pieces[start - 1], last):
        start -= 1
    opened = start > 0 and not _same_turn(pieces[start - 1], last)
    if not opened:
        # Begin at a word, not in the middle of one, as long as two tokens remain.
        while start < len(pieces) - 2 and not pieces[start].text[:1].isspace():
            start += 1
    text = tidy("".join(p.text for p in pieces[start:]))
    return f"[{last.role}] {text}" if opened else text


def next_words(top_tokens: Sequence[str], top_probs: Sequence[float]) -> list[str]:
    """Up to three distinct likely continuations; end-of-turn markup reads ``[end]``."""
    found: list[str] = []
    for token, prob in zip(top_tokens, top_probs, strict=True):
        word = "[end]" if token.startswith("<|") else tidy(token)
        if word and word not in found and (prob >= MIN_NEXT_PROB or not found):
            found.append(word)
    return found[:NEXT_TOKENS]


def topic_words(pieces: Sequence[Piece], tail: str, idf: Idf) -> list[str]:
    """Words before the tail by TF-IDF, recent ones weighing more."""
    weights: dict[str, float] = {}
    text, ends = "", []
    for piece in pieces:
        text += piece.text if piece.section is Section.CONTENT else "\n"
        ends.append(len(text))
    in_tail = {w.lower() for w in _WORD.findall(tail)}
    index = 0
    for match in _WORD.finditer(text):
        while ends[index] < match.end():
            index += 1
        word = match.group().lower()
        if word not in in_tail:
            recency = RECENCY ** (len(pieces) - 1 - index)
            weights[word] = weights.get(word, 0.0) + idf[word] * recency
    return sorted(weights, key=lambda word: -weights[word])[:TOPIC_WORDS]


def tidy(text: str) -> str:
    """One line, no double quotes: what can stand between quotes in a label."""
    text = text.replace("�", "").replace('"', "'").replace("\r", "")
    return text.replace("\n", "\\n").replace("\t", "\\t").strip()


def _same_turn(piece: Piece, last: Piece) -> bool:
    return piece.section is Section.CONTENT and piece.turn == last.turn
