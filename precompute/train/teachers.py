"""Who writes the labels: the form of a request, the teacher without a language model, the choice.

A label says who wrote it: where a language model's answer is unusable twice, the structured label
stands in for it, because leaving such vectors out would bias what is trained on.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from nla_core.errors import NLAError
from nla_core.models.chat import Piece
from nla_core.models.checkpoints import sha256_of
from nla_core.schema import Role, Section
from precompute.output import say
from precompute.train import labels
from precompute.train.labels import Idf, note_label, structured_label

STRUCTURED = "structured"
TEACHERS = (STRUCTURED, "local", "api")
TRIES = 2


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


class Writer(Teacher, Protocol):
    """A teacher that is a language model, and so can answer any question."""

    def answers(self, messages: Sequence[str], seeds: Sequence[int], attempt: int = 0) -> list[str]:
        """Its raw answers, in order; ``attempt`` counts the tries from 0, each answers anew."""
        ...

    def estimate(self, characters: Sequence[int]) -> str | None:
        """What messages of these lengths will cost; None where nothing is paid."""
        ...


@dataclass(frozen=True, slots=True)
class StructuredTeacher:
    """See Teacher; ``idf`` is fitted on the whole corpus."""

    idf: Idf

    @property
    def name(self) -> str:
        return STRUCTURED

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "grammar": sha256_of(Path(labels.__file__))[:16]}

    def label(self, requests: Sequence[LabelRequest]) -> list[Label]:
        return [Label(self._text(request), self.name) for request in requests]

    def forecast(self, prefix_characters: Sequence[int]) -> str | None:
        return None

    def report(self) -> str | None:
        return None

    def _text(self, request: LabelRequest) -> str:
        if request.note is not None:
            return note_label(
                request.note,
                request.pieces,
                request.top_tokens,
                request.top_probs,
                rng=random.Random(request.seed),
            )
        return structured_label(
            request.pieces,
            request.top_tokens,
            request.top_probs,
            self.idf,
            rng=random.Random(request.seed),
        )


Ask = Callable[[Sequence[LabelRequest], int], Sequence[str | None]]
"""Usable answers to requests, in order, or None; the second argument counts the tries from 0."""


def labels_from(
    requests: Sequence[LabelRequest], ask: Ask, *, name: str, stand_in: StructuredTeacher
) -> list[Label]:
    """One label a request: the answer, or the stand-in's where two answers were unusable."""
    found: dict[int, Label] = {}
    for attempt in range(TRIES):
        open_rows = [row for row in range(len(requests)) if row not in found]
        if not open_rows:
            break
        answers = ask([requests[row] for row in open_rows], attempt)
        for row, answer in zip(open_rows, answers, strict=True):
            if answer is not None:
                found[row] = Label(answer, name)
    left = [row for row in range(len(requests)) if row not in found]
    replaced = stand_in.label([requests[row] for row in left])
    return [found.get(row) or replaced[left.index(row)] for row in range(len(requests))]


class Provider(StrEnum):
    """A chat service's API; the value is also the name of its client package."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"


@dataclass(frozen=True, slots=True)
class TeacherSettings:
    """``model`` is a model's name for ``local`` and the service's own name for ``api``."""

    kind: str = STRUCTURED
    model: str | None = None
    temperature: float = 0.7
    batch_size: int = 16
    max_tokens: int = 160
    device: str = "auto"
    dtype: str = "auto"
    provider: Provider = Provider.ANTHROPIC
    base_url: str | None = None
    workers: int = 8
    tries: int = 7
    price_in: float | None = None
    price_out: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``train data`` that choose and set up a teacher."""
    group = parser.add_argument_group("teacher: who writes the labels")
    group.add_argument(
        "--teacher",
        choices=TEACHERS,
        default=STRUCTURED,
        help="structured: no language model; local: one on this machine; api: a paid service",
    )
    group.add_argument("--teacher-model", metavar="NAME", help="the model of local or api")
    group.add_argument("--teacher-tokens", type=int, default=160, help="longest answer (160)")
    group.add_argument("--teacher-batch", type=int, default=16, help="local: questions at a time")
    group.add_argument("--teacher-temperature", type=float, default=0.7, help="local (0.7)")
    group.add_argument(
        "--provider",
        choices=[str(p) for p in Provider],
        default=str(Provider.ANTHROPIC),
        help="api: the shape of the service; its key is read from ANTHROPIC_API_KEY or "
        "OPENAI_API_KEY",
    )
    group.add_argument("--base-url", help="api: another address, for an OpenAI-shaped server")
    group.add_argument("--workers", type=int, default=8, help="api: questions under way at a time")
    group.add_argument("--tries", type=int, default=7, help="api: before a question is given up")
    group.add_argument("--price-in", type=float, help="api: price of a million tokens read")
    group.add_argument("--price-out", type=float, help="api: price of a million tokens written")
    group.add_argument("--yes", action="store_true", help="api: accept the estimated cost")


def from_arguments(args: argparse.Namespace) -> TeacherSettings:
    """Raises NLAError for numbers that make no sense."""
    for name in ("teacher_tokens", "teacher_batch", "workers", "tries"):
        if getattr(args, name) < 1:
            raise NLAError(
                f"--{name.replace('_', '-')} is {getattr(args, name)}",
                why="It has to be at least 1",
                fix="Leave it out for the default",
            )
    return TeacherSettings(
        kind=args.teacher,
        model=args.teacher_model,
        temperature=args.teacher_temperature,
        batch_size=args.teacher_batch,
        max_tokens=args.teacher_tokens,
        device=args.device,
        dtype=args.dtype,
        provider=Provider(args.provider),
        base_url=args.base_url,
        workers=args.workers,
        tries=args.tries,
        price_in=args.price_in,
        price_out=args.price_out,
    )


def confirm_on_terminal(forecast: str, *, yes: bool) -> None:
    """Show the estimate and ask; NLAError where nobody agreed."""
    say(forecast)
    if yes:
        return
    if sys.stdin.isatty():
        sys.stderr.write("Go on? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise NLAError(
        "Nothing was asked, because nobody agreed to the cost",
        why=forecast,
        fix="Add --yes, or answer y on a terminal",
    )
