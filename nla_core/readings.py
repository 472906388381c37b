"""Transcripts and readings while they are made, what is wanted of them, and names that last.

The fields are the columns of `nla_core.schema`; ids follow from content and survive a rebuild. A
seed is derived for every reading from what it is a reading of, so that a text does not depend on
the batch, the shard or the visitor it was made for.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from nla_core.prompts import Message
from nla_core.schema import Section

if TYPE_CHECKING:
    from torch import Tensor


UNREADABLE: Final = (
    "The model’s vector here is zero or holds values that are no numbers (NaN or infinite), so "
    "there is nothing to read. Running the pair in float32 may help."
)
"""Why a position of ``Said.unreadable`` has no reading."""


@dataclass(frozen=True, slots=True)
class Token:
    """One position of a transcript; fields are the columns of ``schema.TOKENS``.

    ``norm`` is 0 where the vector has no direction; that is the mark of such a position.
    """

    position: int
    token_id: int
    chip: int
    text: str
    role: str
    section: str
    turn: int
    norm: float
    norm_pct: float
    surprisal: float | None
    top_tokens: tuple[str, ...]
    top_probs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """A conversation as the target read and continued it: what is shown and published of it."""

    transcript_id: str
    messages: tuple[Message, ...]  # the answer is the last one
    tokens: tuple[Token, ...]
    n_answer_tokens: int
    answer_finish: str  # "stop" | "length" | "none"

    @property
    def unreadable(self) -> frozenset[int]:
        """Positions whose vector has no direction; `UNREADABLE` says why."""
        return frozenset(token.position for token in self.tokens if not token.norm)


@dataclass(frozen=True, slots=True)
class Transcript(Said):
    """What was said, and what the target held at every token of it."""

    hidden: Tensor  # [token, d_model] float32, output of block K


@dataclass(frozen=True, slots=True)
class Reading:
    """What the AV says of one vector, and how well the AR gets the vector back from it.

    Fields are the columns of ``schema.READINGS`` without the ids.
    """

    position: int
    sample: int
    explanation: str
    finish: str
    n_tokens: int
    mse_nrm: float
    cosine: float
    centred_cosine: float
    fve: float
    flags: tuple[str, ...]
    seed: int


def content_positions(said: Said) -> list[int]:
    """Positions that belong to the conversation itself; one a chip, at its last token.

    A character of several tokens is read where the target has seen all of it.
    """
    last: dict[int, int] = {}
    for token in said.tokens:
        if token.section == Section.CONTENT:
            last[token.chip] = token.position
    return sorted(last.values())


def short_hash(value: object) -> str:
    """Twelve hex digits of a JSON-able value: the ids of transcripts and readings."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One reading to make: a sample of the text at a position; ``seed`` is this reading's own."""

    transcript: Transcript
    position: int
    sample: int
    seed: int

    @property
    def vector(self) -> Tensor:
        """``[d_model]``, raw."""
        return self.transcript.hidden[self.position]

    @property
    def norm(self) -> float:
        return self.transcript.tokens[self.position].norm


@dataclass(frozen=True, slots=True)
class WantedVector:
    """The same where the transcript is elsewhere: all that a reading takes from it."""

    position: int
    sample: int
    seed: int
    vector: Tensor
    norm: float


class Want(Protocol):
    """What both have."""

    @property
    def position(self) -> int: ...

    @property
    def sample(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def vector(self) -> Tensor: ...

    @property
    def norm(self) -> float: ...


def derive_seed(seed: int, *parts: object) -> int:
    """A seed of its own for every reading, whatever shard or batch it lands in."""
    return int(short_hash([seed, *[str(p) for p in parts]]), 16) % math.floor(2**31)


def reading_id(pair_id: str, revision: str, transcript_id: str, reading: Reading) -> str:
    """A name that survives a rebuild: of transcript, pair, position, sample and seed."""
    pair = f"{pair_id}@{revision}"
    return short_hash([transcript_id, pair, reading.position, reading.sample, reading.seed])
