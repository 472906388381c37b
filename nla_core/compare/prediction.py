"""The next tokens that an explanation expects, against the target's own distribution and what came.

Knows words and tokens. Does not know where they are stored. The decision a reader would question:
a word is found in the distribution only as a whole token. A longer word that the target would write
in pieces is left uncounted rather than matched by its first letters, which half the vocabulary
shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nla_core.compare.claims import Claim, Kind
from nla_core.compare.grammar import as_word


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one reading expects next. ``ranks`` are 1-based places in the target's top tokens, None
    for a word that is not among them; ``mass`` is the probability the target gives to all words
    named, at most 1; ``came`` says whether the token that came was named, None at the end."""

    words: tuple[str, ...]
    ranks: tuple[int | None, ...]
    mass: float
    came: bool | None

    @property
    def first_named(self) -> bool:
        """Whether the target's likeliest token is among the words."""
        return 1 in self.ranks


def expected_words(claims: Sequence[Claim]) -> tuple[str, ...]:
    """The words that claims name as next, in order, as ``as_word`` writes them; of a phrase, the
    first word."""
    found = [as_word(claim.text) for claim in claims if claim.kind is Kind.PREDICTION]
    return tuple(dict.fromkeys(word.split()[0] for word in found if word))


def expectation(
    claims: Sequence[Claim],
    top_tokens: Sequence[str],
    top_probs: Sequence[float],
    next_token: str | None,
) -> Expectation | None:
    """None for a reading that names no next word. ``top_tokens`` are likeliest first."""
    named = expected_words(claims)
    if not named:
        return None
    places: dict[str, list[int]] = {}
    for rank, token in enumerate(top_tokens, start=1):
        places.setdefault(as_word(token), []).append(rank)
    ranks = tuple(places[word][0] if word in places else None for word in named)
    hit = {rank for word in named for rank in places.get(word, ())}
    mass = sum(float(p) for rank, p in enumerate(top_probs, start=1) if rank in hit)
    came = as_word(next_token) in named if next_token is not None else None
    return Expectation(named, ranks, min(1.0, mass), came)
