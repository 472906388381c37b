"""Windows of a transcript as sentence embeddings: what an explanation is near to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nla_core.analysis.visible import Span, Visible

WINDOW_WORDS = 12
STRIDE_WORDS = 4

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts to ``[text, d]`` rows of norm 1, such as ``MiniLM.embed``."""


class EmbedOnce:
    """An embedder that remembers: each distinct text is computed once, however often it is asked.

    ``computed`` counts the texts that really went through the model.
    """

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._rows: dict[str, np.ndarray] = {}
        self.computed = 0

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """``[text, d]`` float32, rows in the order of ``texts``."""
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if new:
            self.computed += len(new)
            # Of equal length beside each other: a batch is as slow as its longest text.
            new.sort(key=len)
            for text, row in zip(new, np.asarray(self._embed(new), np.float32), strict=True):
                self._rows[text] = row
        if not texts:
            return np.zeros((0, 0), np.float32)
        return np.stack([self._rows[text] for text in texts])


@dataclass(frozen=True, slots=True)
class Near:
    """The best similarity on one side of a token, -1 to 1, and where it stands."""

    score: float
    span: Span


@dataclass(frozen=True, slots=True)
class SemanticIndex:
    """Embedded pieces of one transcript, in order; ``ends`` and ``starts`` are characters.

    ``before``-look-ups take pieces that end at or before a token's cut, ``after``-look-ups those
    that start there or later.
    """

    visible: Visible
    starts: np.ndarray  # [piece] ascending
    ends: np.ndarray  # [piece] ascending
    vectors: np.ndarray  # [piece, d] float32 of norm 1

    @classmethod
    def of_windows(cls, visible: Visible, embed: Embed) -> SemanticIndex:
        ranges = window_ranges(visible)
        return cls._of(visible, ranges, [visible.text[a:b] for a, b in ranges], embed)

    @classmethod
    def of_words(cls, visible: Visible, embed: Embed) -> SemanticIndex:
        """Every content word, as it stands."""
        kept = [word for word in visible.words if word.is_content and not word.is_number]
        ranges = [(word.start, word.end) for word in kept]
        return cls._of(visible, ranges, [word.text for word in kept], embed)

    @classmethod
    def _of(
        cls, visible: Visible, ranges: list[tuple[int, int]], texts: list[str], embed: Embed
    ) -> SemanticIndex:
        vectors = embed(texts) if texts else np.zeros((0, 1), np.float32)
        starts = np.array([a for a, _ in ranges], np.int64)
        ends = np.array([b for _, b in ranges], np.int64)
        return cls(visible, starts, ends, vectors)

    def similarities(self, vectors: np.ndarray) -> np.ndarray:
        """``[text, piece]`` cosines for ``[text, d]`` rows of norm 1."""
        if not len(self.vectors):
            return np.zeros((len(vectors), 0), np.float32)
        return np.asarray(vectors, np.float32) @ self.vectors.T

    def nearest(self, row: np.ndarray, position: int) -> tuple[Near | None, Near | None]:
        """(best up to the token, best after it) of one row of `similarities`; None where that
        side holds no whole piece."""
        cut = self.visible.cut(position)
        split = int(np.searchsorted(self.ends, cut, side="right"))
        later = int(np.searchsorted(self.starts, cut, side="left"))
        before = self._near(row, 0, split)
        return before, self._near(row, max(later, split), len(row))

    def _near(self, row: np.ndarray, low: int, high: int) -> Near | None:
        if low >= high:
            return None
        best = low + int(np.argmax(row[low:high]))
        where = self.visible.span(int(self.starts[best]), int(self.ends[best]))
        return Near(float(row[best]), where)


def window_ranges(visible: Visible) -> list[tuple[int, int]]:
    """Character ranges of ``WINDOW_WORDS`` words, one every ``STRIDE_WORDS``.

    Shorter windows stand at both ends, so that a token there has something behind it and before
    it. Their number is linear in the length of the text.
    """
    found = visible.words
    n = len(found)
    ranges: dict[tuple[int, int], None] = {}
    for last in range(STRIDE_WORDS, n + WINDOW_WORDS, STRIDE_WORDS):
        first = max(0, last - WINDOW_WORDS)
        if first < n:
            ranges[found[first].start, found[min(last, n) - 1].end] = None
    return list(ranges)


@dataclass(frozen=True, slots=True)
class Divergence:
    """Each ``[reading]`` float32. NaN where a side holds no whole window.

    ``so_far`` and ``to_come`` are the best cosines on either side of the token, ``neither`` is 1
    minus the larger one, ``unrelated`` the best cosine to the windows of another transcript.
    """

    so_far: np.ndarray
    to_come: np.ndarray
    neither: np.ndarray
    unrelated: np.ndarray


def divergence(
    vectors: np.ndarray,
    positions: Sequence[int],
    windows: SemanticIndex,
    unrelated: SemanticIndex | None = None,
) -> Divergence:
    """``vectors[i]`` is the explanation at ``positions[i]``, ``[reading, d]`` of norm 1."""
    rows = windows.similarities(vectors)
    sides = np.full((len(positions), 2), np.nan, np.float32)
    for i, position in enumerate(positions):
        for side, near in enumerate(windows.nearest(rows[i], position)):
            if near is not None:
                sides[i, side] = near.score
    known = ~np.isnan(sides).all(axis=1)
    neither = np.full(len(positions), np.nan, np.float32)
    neither[known] = np.clip(1.0 - np.nanmax(sides[known], axis=1), 0.0, 1.0)
    floor = np.full(len(positions), np.nan, np.float32)
    if unrelated is not None and len(unrelated.vectors):
        floor = unrelated.similarities(vectors).max(axis=1)
    return Divergence(sides[:, 0], sides[:, 1], neither, floor)
