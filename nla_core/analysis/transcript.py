"""All comparisons for one transcript at once, and how many neighbours make the same claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nla_core.analysis.claims import Claim, split_claims
from nla_core.analysis.semantic import Divergence, Embed, SemanticIndex, divergence
from nla_core.analysis.standing import (
    Expectation,
    Meaning,
    Thresholds,
    Verdict,
    content_words,
    expectation,
    judge,
)
from nla_core.analysis.visible import Visible, content_stems, words

WINDOW = 8
"""Positions on either side that count as neighbours."""

SHARED = 0.6
"""Share of a claim's content words that a neighbour has to hold."""

RECURRING = 2
"""Neighbours from which on a claim counts as recurring."""


@dataclass(frozen=True, slots=True)
class Recurrence:
    """``count`` of ``neighbours`` readings within ``WINDOW`` positions make the same claim."""

    count: int
    neighbours: int

    @property
    def recurs(self) -> bool:
        return self.count >= RECURRING


def claim_stems(claim: Claim) -> frozenset[str]:
    """The content words by which two claims are the same one; empty for *the* and full stops."""
    return frozenset(word.stem for word in content_words(claim))


def recurrences(
    positions: Sequence[int],
    explanations: Sequence[str],
    claims: Sequence[Sequence[Claim]],
) -> list[list[Recurrence]]:
    """For every claim of every reading; the three sequences go together, one sample a position.

    Looks at ``2 * WINDOW`` neighbours a claim, however long the transcript.
    """
    held = [content_stems(words(text)) for text in explanations]
    at: Mapping[int, int] = {position: i for i, position in enumerate(positions)}
    result: list[list[Recurrence]] = []
    for position, own in zip(positions, claims, strict=True):
        near = [
            held[at[other]]
            for other in range(position - WINDOW, position + WINDOW + 1)
            if other != position and other in at
        ]
        result.append([_of(claim_stems(claim), near) for claim in own])
    return result


def _of(stems: frozenset[str], near: Sequence[frozenset[str]]) -> Recurrence:
    if not stems:
        return Recurrence(0, len(near))
    wanted = SHARED * len(stems)
    return Recurrence(sum(len(stems & other) >= wanted for other in near), len(near))


@dataclass(frozen=True, slots=True)
class Judged:
    """One claim of one reading, and everything known about it."""

    claim: Claim
    verdict: Verdict
    recurrence: Recurrence


@dataclass(frozen=True, slots=True)
class Compared:
    """``readings[i]`` are the claims of reading i in order of their place in its explanation."""

    visible: Visible
    windows: SemanticIndex
    readings: list[list[Judged]]
    expectations: list[Expectation | None]
    divergence: Divergence


def visible_of(tokens: Mapping[str, Sequence[Any]]) -> Visible:
    """From the columns ``text``, ``section`` and ``role`` of a transcript's token table."""
    return Visible.of(list(tokens["text"]), list(tokens["section"]), list(tokens["role"]))


def compare_transcript(
    tokens: Mapping[str, Sequence[Any]],
    positions: Sequence[int],
    explanations: Sequence[str],
    vectors: np.ndarray,
    *,
    embed: Embed,
    thresholds: Thresholds,
    unrelated: SemanticIndex | None = None,
) -> Compared:
    """Compare one sample of every reading of a transcript.

    ``tokens`` are the columns of the token table from position 0 on, ``positions`` the readings'
    (distinct), ``vectors`` ``[reading, d]`` the embedded explanations. ``unrelated`` are windows of
    another transcript. Embeds each distinct claim, word and window once.
    """
    visible = visible_of(tokens)
    claims = [split_claims(text) for text in explanations]
    meaning = Meaning(visible, embed, [claim for own in claims for claim in own])
    again = recurrences(positions, explanations, claims)
    judged = [
        [
            Judged(claim, judge(claim, visible, position, meaning, thresholds), recurrence)
            for claim, recurrence in zip(own, recurring, strict=True)
        ]
        for position, own, recurring in zip(positions, claims, again, strict=True)
    ]
    expected = [
        expectation(
            own,
            tokens["top_tokens"][position],
            tokens["top_probs"][position],
            tokens["text"][position + 1] if position + 1 < len(visible) else None,
        )
        for position, own in zip(positions, claims, strict=True)
    ]
    apart = divergence(vectors, positions, meaning.windows, unrelated)
    return Compared(visible, meaning.windows, judged, expected, apart)
