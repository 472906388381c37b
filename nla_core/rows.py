"""Transcripts and readings as rows of the three published tables, whoever asked for the run.

A prompt that cannot be processed becomes a row with its error. Prompts, transcripts and readings
are taken by their attributes, so that rows can be made of what was read back from a disk without
loading a model library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from nla_core.data.files import canonical_json
from nla_core.errors import NLAError
from nla_core.prompts import Message
from nla_core.schema import TABLES, Status

Row = dict[str, Any]


class PromptLike(Protocol):
    """What a row says of the prompt it came from."""

    @property
    def id(self) -> str: ...

    @property
    def category(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def tags(self) -> tuple[str, ...]: ...

    @property
    def messages(self) -> tuple[Message, ...]: ...


@dataclass(slots=True)
class Outcome:
    """What came of one prompt: a transcript or an error, and the readings that were made."""

    prompt: PromptLike
    seed: int
    transcript: Any = None
    error: NLAError | None = None
    readings: list[Any] = field(default_factory=list)


def tables_of(
    outcomes: Iterable[Outcome],
    reading_id: Callable[[str, Any], str],
    settings: Mapping[str, Any],
) -> dict[str, pa.Table]:
    """The rows of each table. ``settings`` decide the id of a prompt that became no transcript."""
    rows: dict[str, list[Row]] = {name: [] for name in TABLES}
    for outcome in outcomes:
        _add_rows(rows, outcome, reading_id, settings)
    return {name: pa.Table.from_pylist(rows[name], schema) for name, schema in TABLES.items()}


def _add_rows(
    rows: dict[str, list[Row]],
    outcome: Outcome,
    reading_id: Callable[[str, Any], str],
    settings: Mapping[str, Any],
) -> None:
    prompt, transcript, error = outcome.prompt, outcome.transcript, outcome.error
    messages: Sequence[Message] = transcript.messages if transcript else prompt.messages
    tokens = transcript.tokens if transcript else ()
    readings = sorted(outcome.readings, key=lambda r: (r.position, r.sample))
    transcript_id = transcript.transcript_id if transcript else _failed_id(prompt, settings)
    n = len(readings)
    rows["transcripts"].append(
        {
            "transcript_id": transcript_id,
            "prompt_id": prompt.id,
            "category": prompt.category,
            "title": prompt.title,
            "tags": list(prompt.tags),
            "messages": json.dumps(list(messages), ensure_ascii=False),
            "status": Status.ERROR if error else Status.OK,
            "error": str(error) if error else None,
            "n_tokens": len(tokens),
            "n_answer_tokens": transcript.n_answer_tokens if transcript else 0,
            "answer_finish": transcript.answer_finish if transcript else "none",
            "n_readings": n,
            "mean_fve": sum(r.fve for r in readings) / n if n else None,
            "flagged_share": sum(bool(r.flags) for r in readings) / n if n else None,
            "seed": outcome.seed,
        }
    )
    rows["tokens"] += [{"transcript_id": transcript_id, **asdict(token)} for token in tokens]
    rows["readings"] += [
        {
            "reading_id": reading_id(transcript_id, reading),
            "transcript_id": transcript_id,
            **asdict(reading),
        }
        for reading in readings
    ]


def _failed_id(prompt: PromptLike, settings: Mapping[str, Any]) -> str:
    """An id for a prompt that never became a transcript; stable over runs, like the others."""
    content = ["error", prompt.id, prompt.messages, dict(settings)]
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:12]
