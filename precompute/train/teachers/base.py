"""What a label teacher is asked, and what it answers.

Knows the request (a prefix of a text as the target has read it), the label, and the Protocol that
all teachers keep. Knows no teacher. The decision a reader would question: a label says who wrote
it, because a language model's answer may be unusable and is then replaced by the structured label;
how often that happened belongs to the data's record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nla_core.nla.layout import Piece
from nla_core.schema import Role, Section

STRUCTURED = "structured"


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """One vector to be labelled: the tokens up to and with its own, and what the target expects.

    ``top_tokens`` are the target's likeliest next tokens as text, ``top_probs`` their
    probabilities. The same request with the same ``seed`` gets the same label.
    """

    pieces: tuple[Piece, ...]
    top_tokens: tuple[str, ...]
    top_probs: tuple[float, ...]
    seed: int
    note: str | None = None
    """What a person or a language model wrote of this place, where the corpus is annotated."""

    @property
    def last(self) -> Piece:
        """The labelled token."""
        return self.pieces[-1]

    @property
    def is_chat(self) -> bool:
        return any(p.turn > 0 or p.section is Section.TEMPLATE for p in self.pieces)

    @property
    def text(self) -> str:
        """The prefix as text: of a chat, each turn after its speaker's name, without markup."""
        if not self.is_chat:
            return "".join(p.text for p in self.pieces)
        turns: dict[int, tuple[Role, str]] = {}
        for piece in self.pieces:
            if piece.section is Section.CONTENT:
                _, before = turns.get(piece.turn, (piece.role, ""))
                turns[piece.turn] = (piece.role, before + piece.text)
        return "\n\n".join(f"[{role}] {text}" for role, text in turns.values())


@dataclass(frozen=True, slots=True)
class Label:
    """``written_by`` is the teacher's name, or ``structured`` where that label had to stand in."""

    text: str
    written_by: str


class Teacher(Protocol):
    """Anything that can say what a vector should be read as (tests/train/test_teachers.py)."""

    @property
    def name(self) -> str: ...

    def config(self) -> dict[str, Any]:
        """What its labels depend on, as JSON; goes into the data's record. Holds no secret."""
        ...

    def label(self, requests: Sequence[LabelRequest]) -> list[Label]:
        """One label a request, in order; a label does not depend on its neighbours.

        Raises NLAError where labels cannot be had at all. What was finished is not lost.
        """
        ...

    def forecast(self, prefix_characters: Sequence[int]) -> str | None:
        """What labelling prefixes of these lengths will cost, for a person to confirm before it
        starts; None where nothing is paid."""
        ...

    def report(self) -> str | None:
        """What labelling has really used so far; None where nothing is paid."""
        ...
