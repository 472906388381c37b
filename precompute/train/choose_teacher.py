"""From settings to a loaded teacher, which loads only what it needs."""

from __future__ import annotations

from pathlib import Path

from nla_core.errors import NLAError
from precompute.train.labels import Idf
from precompute.train.teachers import (
    STRUCTURED,
    StructuredTeacher,
    Teacher,
    TeacherSettings,
    Writer,
)


def make_teacher(settings: TeacherSettings, idf: Idf, ledger: Path) -> Teacher:
    """The chosen teacher; a paid one keeps its answers in the file ``ledger``.

    Raises NLAError if it cannot be had.
    """
    if settings.kind == STRUCTURED:
        return StructuredTeacher(idf)
    return make_writer(settings, idf, ledger)


def make_writer(settings: TeacherSettings, idf: Idf, ledger: Path) -> Writer:
    """The chosen language model. Raises NLAError if it cannot be had."""
    structured = StructuredTeacher(idf)
    if not settings.model:
        raise NLAError(
            f"--teacher {settings.kind} needs a model",
            why="--teacher-model is not given",
            fix="Name one: a folder or hub id for local, the service's own name for api",
        )
    if settings.kind == "local":
        from precompute.train.local_teacher import LocalTeacher

        return LocalTeacher.load(
            settings.model,
            structured,
            device=settings.device,
            dtype=settings.dtype,
            temperature=settings.temperature,
            max_new_tokens=settings.max_tokens,
            batch_size=settings.batch_size,
        )
    from precompute.train.api_teacher import ApiTeacher, ChatClient, Ledger

    client = ChatClient.from_environment(
        settings.provider,
        settings.model,
        settings.base_url,
        max_tokens=settings.max_tokens,
        tries=settings.tries,
    )
    return ApiTeacher(
        client,
        Ledger(ledger),
        structured,
        workers=settings.workers,
        price_in=settings.price_in,
        price_out=settings.price_out,
    )
