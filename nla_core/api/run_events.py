"""What happens in a run, as JSON: a page of events, or lines until it has ended.

Knows what each kind of event tells. Does not know how a run is worked on. The decision a reader
would question: a stream asks the queue four times a second instead of being told; nothing that a
listener does, slow reading and a lost connection included, can then hold up a worker.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final

from nla_core import exports
from nla_core.api import wire
from nla_core.api.wire import Refusal
from nla_core.errors import NLAError
from nla_core.links import ViewState
from nla_core.readings import Said
from nla_core.runs.store import OPEN_STATES, Event, RunState, Snapshot

if TYPE_CHECKING:
    from nla_core.runs.runner import JobRunner

POLL_SECONDS: Final = 0.25
SIGN_SECONDS: Final = 10.0
"""After so long without an event, a stream tells how the run stands."""
MOST_STREAMS: Final = 64
AT_A_TIME: Final = 500
"""Events read at a time."""

_streams = 0
_counting = threading.Lock()


def snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    """A run at a moment, with the dataset and page it has once something is published."""
    return {**exports.jsonable(asdict(snapshot)), **published(snapshot.run_id, snapshot.version)}


def published(run_id: str, version: str | None) -> dict[str, str | None]:
    """The dataset that a run became, and the path and query of the page that shows it."""
    if version is None:
        return {"dataset": None, "page": None}
    return {"dataset": run_id, "page": f"/explore?{ViewState(dataset=run_id).query}"}


def page(runner: JobRunner, run_id: str, since: int, most: int) -> dict[str, Any]:
    """Up to ``most`` events after the first ``since``. Raises NLAError for an unknown run.

    The run is looked at first: where it has ended, all of its events are there.
    """
    snapshot = runner.snapshot(run_id)
    delta = runner.events(run_id, since)
    begin = 0 if delta.again else since
    events = delta.events[:most]
    return {
        "run": snapshot_json(snapshot),
        "events": [event_json(runner, run_id, event) for event in events],
        "next": begin + len(events),
        "again": delta.again,
    }


def event_json(runner: JobRunner, run_id: str, event: Event) -> dict[str, Any]:
    """One event with what belongs to its kind."""
    told: dict[str, Any] = {"kind": event.kind, "prompt": event.prompt}
    if event.kind == "tokens":
        said = runner.said(run_id, event.prompt)
        return told | ({} if said is None else _said_json(said))
    told |= {"position": event.position, "sample": event.sample}
    if event.kind == "text":
        told |= {"explanation": event.explanation, "finish": event.finish}
    elif event.kind == "reading" and event.reading is not None:
        told["reading"] = exports.jsonable(asdict(event.reading))
    elif event.kind == "failure":
        told["reason"] = event.reason
    return told


def _said_json(said: Said) -> dict[str, Any]:
    """What is shown of a transcript, which may also hold vectors."""
    shown = {field.name: getattr(said, field.name) for field in fields(Said)}
    tokens = [asdict(token) for token in said.tokens]
    return dict(exports.jsonable({**shown, "tokens": tokens}))


def lines(runner: JobRunner, run_id: str, since: int) -> AsyncIterator[str]:
    """JSON lines: events as they come, and between them the run where something is new about it.

    The last line is the run when it has ended. Raises Refusal where too many listen already.
    """
    if _streams >= MOST_STREAMS:
        raise Refusal(
            429,
            NLAError(
                "Too many programs listen to runs",
                why=f"a server has up to {MOST_STREAMS} streams of events at a time",
                fix="Ask without format=jsonl, a page of events at a time",
            ),
        )
    return _lines(runner, run_id, since)


async def _lines(runner: JobRunner, run_id: str, since: int) -> AsyncIterator[str]:
    _count(1)
    try:
        told: tuple[object, ...] = ()
        sign = 0.0
        while True:
            try:
                found = await asyncio.to_thread(page, runner, run_id, since, AT_A_TIME)
            except NLAError as error:  # deleted meanwhile
                yield _line({"kind": "error", "error": wire.error_json(error)})
                return
            if found["again"]:
                yield _line({"kind": "again"})
            for event in found["events"]:
                yield _line(event)
            since, run = found["next"], found["run"]
            caught_up = since >= run["n_events"]
            ended = caught_up and RunState(run["state"]) not in _UNDER_WAY
            state = (run["state"], run["place"], run["model"], run["n_transcribed"])
            if ended or state != told or time.monotonic() - sign > SIGN_SECONDS:
                told, sign = state, time.monotonic()
                yield _line({"kind": "run", "run": run})
            if ended:
                return
            if caught_up:
                await asyncio.sleep(POLL_SECONDS)
    finally:
        _count(-1)


_UNDER_WAY: Final = OPEN_STATES | {RunState.PUBLISHING}


def _count(by: int) -> None:
    global _streams
    with _counting:
        _streams += by


def _line(body: dict[str, Any]) -> str:
    return wire.encode(body).decode() + "\n"
