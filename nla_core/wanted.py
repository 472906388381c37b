"""One reading that is to be made: of which vector, with which seed.

Knows what a reading takes from its transcript. Knows no model. The decision a reader would
question: two classes and what they share, since a worker on another machine is sent vectors and
never the transcript.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from nla_core.readings import Transcript


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
