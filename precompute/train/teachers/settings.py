"""Which teacher labels the data, from the command line to a loaded teacher.

Knows the flags of all teachers and which of them need what. Imports no model library until a local
teacher is built. The decision a reader would question: paid work needs a person's yes, typed or as
`--yes`, after the estimate was shown; a script that forgot it costs nothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from nla_core.errors import NLAError
from precompute.output import say
from precompute.train.labels import Idf
from precompute.train.teachers.base import STRUCTURED, Teacher
from precompute.train.teachers.chat_client import ChatClient, Provider
from precompute.train.teachers.structured import StructuredTeacher

TEACHERS = (STRUCTURED, "local", "api")
LEDGER = "answers.jsonl"


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


def make_teacher(settings: TeacherSettings, idf: Idf, out: Path) -> Teacher:
    """The chosen teacher; one that is paid keeps its answers in ``out``. NLAError if it cannot."""
    structured = StructuredTeacher(idf)
    if settings.kind == STRUCTURED:
        return structured
    if not settings.model:
        raise NLAError(
            f"--teacher {settings.kind} needs a model",
            why="--teacher-model is not given",
            fix="Name one: a folder or hub id for local, the service's own name for api",
        )
    if settings.kind == "local":
        from precompute.train.teachers.local import LocalTeacher

        return LocalTeacher.load(
            settings.model,
            structured,
            device=settings.device,
            dtype=settings.dtype,
            temperature=settings.temperature,
            max_new_tokens=settings.max_tokens,
            batch_size=settings.batch_size,
        )
    from precompute.train.teachers.api import ApiTeacher
    from precompute.train.teachers.ledger import Ledger

    client = ChatClient.from_environment(
        settings.provider,
        settings.model,
        settings.base_url,
        max_tokens=settings.max_tokens,
        tries=settings.tries,
    )
    return ApiTeacher(
        client,
        Ledger(out / LEDGER),
        structured,
        workers=settings.workers,
        price_in=settings.price_in,
        price_out=settings.price_out,
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
