"""Recurring themes: what neighbouring explanations keep saying, beyond what all of them say.

Knows words and pairs of words, how often they return in a stretch of readings and how often one
would expect them to. Does not know claims, vectors or models. The decision a reader would question:
a term counts once a reading and is ranked by how much it exceeds its share in the whole dataset; so
the wording that every explanation uses ("next", "text") needs no list of its own. The paper's own
advice is to trust what returns and not what one reading says (Anthropic 2026, on reading NLAs).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MOST: Final = 12
LEAST_COUNT: Final = 2
BACKGROUND_READINGS: Final = 4_000
"""Readings that the shares of the whole dataset are estimated from; more would not change them."""

_WORD: Final = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_PIECE: Final = re.compile(r"[.:;,!?/\"“”()\[\]\n]+")
_FUNCTION_WORDS_TEXT: Final = """
a about after all also am an and any are as at be because been before but by can could did
do does for from had has have he her here him his how i if in into is it its just like me
more most my no not of on one or our out over s she so some such t than that the their
them then there these they this to up us was we were what when where which who will with
would you your i'm it's i'll don't user assistant end
"""
_FUNCTION_WORDS: Final = frozenset(_FUNCTION_WORDS_TEXT.split())


@dataclass(frozen=True, slots=True)
class Theme:
    """A term, the positions whose explanations hold it, and how many one would expect there."""

    term: str
    positions: tuple[int, ...]
    expected: float

    @property
    def count(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, slots=True)
class Background:
    """In what share of all explanations a term stands, estimated from ``n`` of them."""

    n: int
    counts: Mapping[str, int]

    @classmethod
    def of(cls, explanations: Iterable[str]) -> Background:
        counts: Counter[str] = Counter()
        n = 0
        for text in explanations:
            counts.update(terms(text))
            n += 1
        return cls(n, counts)

    def share(self, term: str) -> float:
        """0 to 1; a term that was not seen gets the share of half a sighting."""
        return max(self.counts.get(term, 0), 0.5) / max(self.n, 1)


def terms(text: str) -> set[str]:
    """Words and pairs of neighbouring words, case forgotten; none that is function words alone."""
    found: set[str] = set()
    for piece in _PIECE.split(text):
        words = [match[0].casefold() for match in _WORD.finditer(piece)]
        telling = [_telling(word) for word in words]
        found.update(word for word, counts in zip(words, telling, strict=True) if counts)
        for i in range(len(words) - 1):
            if telling[i] and telling[i + 1] and words[i] != words[i + 1]:
                found.add(f"{words[i]} {words[i + 1]}")
    return found


def _telling(word: str) -> bool:
    return word not in _FUNCTION_WORDS and not (len(word) == 1 and word.isascii())


def themes(
    readings: Sequence[tuple[int, str]], background: Background, *, most: int = MOST
) -> tuple[Theme, ...]:
    """What returns in ``readings``, (position, explanation) in order, the most telling first.

    A term has to stand in at least two readings and in more than its share of the dataset would
    make one expect. A word that nearly always comes with a neighbour is told as the pair.
    """
    found: dict[str, list[int]] = {}
    for position, text in readings:
        for term in terms(text):
            found.setdefault(term, []).append(position)
    total = len(readings)
    scored = []
    for term, positions in found.items():
        expected = total * background.share(term)
        if len(positions) >= LEAST_COUNT and len(positions) > 1.5 * expected:
            theme = Theme(term, tuple(sorted(positions)), expected)
            scored.append((len(positions) * math.log(len(positions) / expected), theme))
    scored.sort(key=lambda pair: (-pair[0], pair[1].term))
    kept: list[Theme] = []
    for _, theme in scored:
        if any(_told_already(theme, other) for other in kept):
            continue
        kept.append(theme)
        if len(kept) == most:
            break
    return tuple(kept)


def _told_already(theme: Theme, other: Theme) -> bool:
    """Whether ``other`` says it: one holds the other's words, in nearly the same readings."""
    mine, theirs = set(theme.term.split()), set(other.term.split())
    if not (mine <= theirs or theirs <= mine):
        return False
    shared = len(set(theme.positions) & set(other.positions))
    return shared >= 0.7 * min(theme.count, other.count)
