"""One transcript's readings held against it: every claim with its standing, every reading's sums.

Knows the order of the steps. Each step's rule is in its own module. The decision a reader would
question: a whole transcript is compared at once, not a reading: its text is cut, indexed and
embedded once, which is what makes comparing all readings cheap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nla_core.compare.claims import Claim, split_claims
from nla_core.compare.divergence import Divergence, divergence
from nla_core.compare.prediction import Expectation, expectation
from nla_core.compare.recurrence import Recurrence, recurrences
from nla_core.compare.semantic import Embed, SemanticIndex
from nla_core.compare.standing import Meaning, Verdict, judge
from nla_core.compare.thresholds import Thresholds
from nla_core.compare.visible import Visible


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
