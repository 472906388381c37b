"""How many neighbouring readings make the same claim.

Knows positions, samples and the content words of explanations. Does not know standings. The
decision a reader would question: a neighbour makes the same claim if its explanation holds most of
the claim's content words, in whatever kind of claim. Explanations of neighbouring tokens word the
same theme differently, and asking for equal sentences would call every theme a one-off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nla_core.compare.claims import Claim
from nla_core.compare.lexical import content_stems, words
from nla_core.compare.standing import content_words

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
