"""One shard: prompts in, the rows of three tables out. A pure function of plan and models.

Knows in which order a shard is worked through, and what is tried where a step fails. Does not know
rows, files, scheduling or progress bars. The decision a reader would
question: when a step fails for a whole shard, it is repeated prompt by prompt, so that only the one
at fault loses its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import pyarrow as pa

from nla_core.errors import NLAError
from nla_core.nla.layout import Message
from nla_core.rows import Outcome, tables_of
from precompute.plan import Settings, Shard, prompt_seeds

Tick = Callable[[int, int], None]
"""Called with (readings finished, readings to do) of the shard at work."""


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


_GIVEN_UP = NLAError(
    "This prompt could not be processed",
    why="the workers that tried it died, each by itself as well",
    fix="Run it alone with `--engine local` to see what happens, or leave it out of the corpus",
)


def process(
    shard: Shard, settings: Settings, explainer: ShardExplainer, tick: Tick = lambda *_: None
) -> tuple[dict[str, pa.Table], int]:
    """The shard's rows, by table, and how many of its prompts failed.

    Only NLAError is taken as a prompt's own fault; anything else ends the run, and the shards
    finished before are kept.
    """
    seeds = prompt_seeds(shard, settings.seed)
    outcomes = [Outcome(*pair) for pair in zip(shard.prompts, seeds, strict=True)]
    for outcome in outcomes:
        if outcome.prompt.id in shard.given_up:
            outcome.error = _GIVEN_UP
    _transcribe([o for o in outcomes if o.error is None], settings, explainer)
    _explain([o for o in outcomes if o.error is None], settings, explainer, tick)
    tables = tables_of(outcomes, explainer.reading_id, asdict(settings))
    return tables, sum(outcome.error is not None for outcome in outcomes)


def _transcribe(outcomes: list[Outcome], settings: Settings, explainer: ShardExplainer) -> None:
    """Fill in the transcript or the error of each outcome."""
    if not outcomes:
        return
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
    outcomes: list[Outcome], settings: Settings, explainer: ShardExplainer, tick: Tick
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
