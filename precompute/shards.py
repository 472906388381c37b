"""One shard: prompts in, the rows of three tables out. A pure function of plan and models.

Knows how transcripts and readings become rows, and that a prompt which cannot be processed becomes
a row with its error. Does not know files, scheduling or progress bars. The decision a reader would
question: when a step fails for a whole shard, it is repeated prompt by prompt, so that only the one
at fault loses its rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from nla_core.errors import NLAError
from nla_core.nla.layout import Message
from nla_core.schema import TABLES, Status
from nla_core.store.files import canonical_json
from precompute.corpus import Prompt
from precompute.plan import Settings, Shard, prompt_seeds

Tick = Callable[[int, int], None]
"""Called with (readings finished, readings to do) of the shard at work."""

Row = dict[str, Any]


class ShardExplainer(Protocol):
    """What a shard needs of `nla_core.explain.Explainer`."""

    def transcribe(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
    ) -> Sequence[Any]: ...

    def content_positions(self, transcript: Any) -> Sequence[int]: ...

    def explain(
        self,
        transcripts: Sequence[Any],
        positions: Sequence[Sequence[int]],
        *,
        samples: int,
        temperature: float,
        seed: int,
        max_new_tokens: int,
        batch_size: int,
        on_progress: Tick,
    ) -> Iterator[tuple[int, Any]]: ...

    def reading_id(self, transcript_id: str, reading: Any) -> str: ...


@dataclass(slots=True)
class _Outcome:
    """What came of one prompt: a transcript or an error, and the readings that were made."""

    prompt: Prompt
    seed: int
    transcript: Any = None
    error: NLAError | None = None
    readings: list[Any] = field(default_factory=list)


def process(
    shard: Shard, settings: Settings, explainer: ShardExplainer, tick: Tick = lambda *_: None
) -> tuple[dict[str, pa.Table], int]:
    """The shard's rows, by table, and how many of its prompts failed.

    Only NLAError is taken as a prompt's own fault; anything else ends the run, and the shards
    finished before are kept.
    """
    seeds = prompt_seeds(shard, settings.seed)
    outcomes = [_Outcome(*pair) for pair in zip(shard.prompts, seeds, strict=True)]
    _transcribe(outcomes, settings, explainer)
    _explain([o for o in outcomes if o.error is None], settings, explainer, tick)
    rows: dict[str, list[Row]] = {name: [] for name in TABLES}
    for outcome in outcomes:
        _add_rows(rows, outcome, settings, explainer)
    tables = {name: pa.Table.from_pylist(rows[name], schema) for name, schema in TABLES.items()}
    return tables, sum(outcome.error is not None for outcome in outcomes)


def _transcribe(outcomes: list[_Outcome], settings: Settings, explainer: ShardExplainer) -> None:
    """Fill in the transcript or the error of each outcome."""
    try:
        made = explainer.transcribe(
            [outcome.prompt.messages for outcome in outcomes],
            seeds=[outcome.seed for outcome in outcomes],
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
        )
    except NLAError as error:
        made = [error]
        if len(outcomes) > 1:
            for outcome in outcomes:
                _transcribe([outcome], settings, explainer)
            return
    for outcome, found in zip(outcomes, made, strict=True):
        if isinstance(found, NLAError):
            outcome.error = found
        else:
            outcome.transcript = found


def _explain(
    outcomes: list[_Outcome], settings: Settings, explainer: ShardExplainer, tick: Tick
) -> None:
    """Fill in the readings of all outcomes, together or, if that fails, each for itself."""
    if not outcomes:
        return
    try:
        found = explainer.explain(
            [outcome.transcript for outcome in outcomes],
            [explainer.content_positions(outcome.transcript) for outcome in outcomes],
            samples=settings.samples,
            temperature=settings.explanation_temperature,
            seed=settings.seed,
            max_new_tokens=settings.explanation_tokens,
            batch_size=settings.batch_size,
            on_progress=tick,
        )
        for index, reading in found:
            outcomes[index].readings.append(reading)
    except NLAError as error:
        for outcome in outcomes:
            outcome.readings.clear()
        if len(outcomes) == 1:
            outcomes[0].error = error
            return
        for outcome in outcomes:
            _explain([outcome], settings, explainer, tick)


def _add_rows(
    rows: dict[str, list[Row]], outcome: _Outcome, settings: Settings, explainer: ShardExplainer
) -> None:
    prompt, transcript, error = outcome.prompt, outcome.transcript, outcome.error
    messages = transcript.messages if transcript else prompt.messages
    tokens = transcript.tokens if transcript else ()
    readings = sorted(outcome.readings, key=lambda r: (r.position, r.sample))
    transcript_id = transcript.transcript_id if transcript else _failed_id(outcome, settings)
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
            "reading_id": explainer.reading_id(transcript_id, reading),
            "transcript_id": transcript_id,
            **asdict(reading),
        }
        for reading in readings
    ]


def _failed_id(outcome: _Outcome, settings: Settings) -> str:
    """An id for a prompt that never became a transcript; stable over runs, like the others."""
    content = ["error", outcome.prompt.id, outcome.prompt.messages, asdict(settings)]
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:12]
