"""On-demand runs: submitted, watched, renamed, cancelled, retried, deleted, exported.

Whoever may run may also cancel and delete what others ran: there are no accounts, so nothing says
whose run it is. A stream of events asks the queue four times a second instead of being notified;
nothing that a listener does, slow reading and a lost connection included, can hold up a worker.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Query, Response

from nla_core import exports, opened
from nla_core.api import guard, models, wire
from nla_core.api.guard import Visitor
from nla_core.api.wire import Refusal
from nla_core.errors import NLAError
from nla_core.jobs.request import OverLimit
from nla_core.jobs.settings import Limits
from nla_core.jobs.store import OPEN_STATES, Event, RunState, Snapshot, StoredRun
from nla_core.links import ViewState
from nla_core.readings import Said

if TYPE_CHECKING:
    from nla_core.jobs.request import RunRequest
    from nla_core.jobs.runner import JobRunner

IN_MEMORY: Final = 8 * 1024 * 1024
"""Bytes of an export that are kept in memory before it goes to a file."""
PIECE: Final = 256 * 1024

POLL_SECONDS: Final = 0.25
SIGN_SECONDS: Final = 10.0
"""After so long without an event, a stream says how the run stands."""
MOST_STREAMS: Final = 64

router, changes = guard.reads(), guard.changes()


# ---- submit --------------------------------------------------------------------------------------


@changes.post(
    "/runs",
    response_model=models.Submitted,
    responses={202: {"model": models.Submitted, "description": "It was queued."}},
)
def submit_run(body: models.RunRequest, visitor: Visitor) -> Response:
    """Ask for readings of prompts: 202 where the run was queued, 200 where it is there already."""
    runner = opened.runner()
    request = _request(body, runner)
    estimate = _estimate(runner, request)
    try:
        found = runner.submit(request, visitor)
    except OverLimit as error:
        raise _over(error) from error
    answer = {
        "run_id": found.run_id,
        "is_new": found.is_new,
        "run": _run(runner.snapshot(found.run_id)),
        "estimate": estimate,
    }
    return wire.answer(answer, status=202 if found.is_new else 200)


@changes.post("/runs/estimate", response_model=models.Estimated)
def estimate_run(body: models.RunRequest) -> Response:
    """How long a run would take now; queues nothing."""
    runner = opened.runner()
    return wire.answer({"estimate": _estimate(runner, _request(body, runner))})


@router.get("/runs/limits", response_model=models.RunLimits)
def run_limits() -> Response:
    """What a visitor may ask for."""
    return wire.answer({"limits": asdict(Limits.from_environment())})


@router.get("/runs/pairs", response_model=models.RunPairs)
def run_pairs() -> Response:
    """Pairs that can be run, and the state of their models."""
    runner = opened.runner()
    readable: list[dict[str, Any]] = []
    unreadable: list[dict[str, Any]] = []
    for name in runner.pairs.names():
        try:
            about = runner.pairs.get(name).describe()
            states = {device: asdict(state) for device, state in runner.models(name).items()}
            readable.append({"pair": name, **about, "models": states})
        except NLAError as error:
            unreadable.append({"pair": name, "error": wire.error_json(error)})
    return wire.answer(exports.jsonable({"pairs": readable, "unreadable": unreadable}))


def _request(body: models.RunRequest, runner: JobRunner) -> RunRequest:
    pairs = runner.pairs.names()
    if "pair" not in body.model_fields_set and not pairs:
        raise Refusal(
            422,
            NLAError(
                "There is no pair here that could run anything",
                why="neither data/nla nor NLA_PAIRS holds one",
                fix="Put one there, and start the server again",
            ),
        )
    try:
        return body.request(pairs[0] if pairs else "")
    except NLAError as error:
        raise Refusal(422, error) from error


def _estimate(runner: JobRunner, request: RunRequest) -> dict[str, Any]:
    """Also holds the request against every limit but those of the queue."""
    try:
        return dict(exports.jsonable(asdict(runner.estimate(request))))
    except NLAError as error:
        raise Refusal(422, error) from error


def _over(error: OverLimit) -> Refusal:
    """429 where waiting helps."""
    return Refusal(429 if error.limit.startswith("queue_") else 422, error)


# ---- watch ---------------------------------------------------------------------------------------


@router.get("/runs", response_model=models.RunPage)
def runs(asked: Annotated[models.RunParams, Query()]) -> Response:
    """Runs that are kept, the newest first; ``queue`` names those that wait or are at work."""
    runner = opened.runner()
    queue = {snapshot.run_id: snapshot for snapshot in runner.queue()}
    state, limit = asked.state, asked.page_size()
    rows = [_row(run, queue.get(run.run_id)) for run in runner.stored()]
    rows = [row for row in rows if state in (None, row["state"])]
    rows.sort(key=_key)
    rows = rows[_n_before(asked, rows) :]
    following = None
    if len(rows) > limit:
        created, run_id = _key(rows[limit - 1])
        following = wire.token("runs", {"state": state}, f"{created!r} {run_id}")
    return wire.answer({"runs": rows[:limit], "next": following, "queue": list(queue)})


@router.get("/runs/{run_id}", response_model=models.RunInFull)
def one_run(run_id: str) -> Response:
    """How a run stands, what was asked, what failed."""
    runner, snapshot = _known(run_id)
    body = {
        "run": _run(snapshot),
        "request": runner.request(run_id).to_json(),
        "failures": [asdict(failure) for failure in runner.failures(run_id)],
    }
    return wire.answer(body)


@router.get(
    "/runs/{run_id}/events",
    response_model=models.RunEvents,
    responses={
        200: {
            "content": {
                "application/x-ndjson": {
                    "schema": {"type": "string", "description": "One RunEvent a line."}
                }
            }
        }
    },
)
def run_events(run_id: str, asked: Annotated[models.EventParams, Query()]) -> Response:
    """What happened in it: a page of events, or JSON lines until it has ended."""
    runner, _ = _known(run_id)
    if asked.format == "json":
        return wire.answer(_events(runner, run_id, asked.since, asked.limit))
    if _streams >= MOST_STREAMS:
        raise Refusal(
            429,
            NLAError(
                "Too many programs listen to runs",
                why=f"a server has up to {MOST_STREAMS} streams of events at a time",
                fix="Ask without format=jsonl, a page of events at a time",
            ),
        )
    kind = f"{exports.MIME['jsonl']}; charset=utf-8"
    return wire.stream(_event_lines(runner, run_id, asked.since), kind)


@router.get(
    "/runs/{run_id}/export",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}},
)
def export_run(run_id: str) -> Response:
    """A zip of its record and its published version."""
    runner, _ = _known(run_id)
    archive = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
    try:
        runner.export(run_id, archive)
    except NLAError as error:
        archive.close()
        raise Refusal(409, error) from error

    def pieces() -> Iterator[bytes]:
        with archive:
            archive.seek(0)
            while piece := archive.read(PIECE):
                yield piece

    return wire.stream(pieces(), "application/zip", wire.attachment(f"{run_id}.zip"))


def _known(run_id: str) -> tuple[JobRunner, Snapshot]:
    runner = opened.runner()
    try:
        return runner, runner.snapshot(run_id)
    except NLAError as error:
        raise Refusal(404, error) from error


def _run(snapshot: Snapshot) -> dict[str, Any]:
    """A run at a moment, with the dataset and page it has once something is published."""
    return {**exports.jsonable(asdict(snapshot)), **_published(snapshot.run_id, snapshot.version)}


def _published(run_id: str, version: str | None) -> dict[str, str | None]:
    if version is None:
        return {"dataset": None, "page": None}
    return {"dataset": run_id, "page": f"/explore?{ViewState(dataset=run_id).query}"}


def _row(run: StoredRun, now: Snapshot | None) -> dict[str, Any]:
    row = asdict(run) | {"place": None}
    if now is not None:
        row |= {name: getattr(now, name) for name in ("state", "done", "failed", "total", "place")}
    return {**exports.jsonable(row), **_published(run.run_id, run.version)}


def _key(row: dict[str, Any]) -> tuple[float, str]:
    return -row["created"], row["run_id"]


def _n_before(asked: models.RunParams, rows: list[dict[str, Any]]) -> int:
    """How many rows the pages before this one had."""
    if asked.next is None:
        return 0
    last = wire.after(asked.next, "runs", {"state": asked.state}, str)
    try:
        created, run_id = last.split(" ", 1)
        key = (float(created), run_id)
    except ValueError:
        raise wire.strange_token(asked.next) from None
    return sum(_key(row) <= key for row in rows)


# ---- events --------------------------------------------------------------------------------------

_UNDER_WAY: Final = OPEN_STATES | {RunState.PUBLISHING}
_streams = 0
_counting = threading.Lock()


def _count(by: int) -> None:
    global _streams
    with _counting:
        _streams += by


def _events(runner: JobRunner, run_id: str, since: int, most: int) -> dict[str, Any]:
    """Up to ``most`` events after the first ``since``. Raises NLAError for an unknown run.

    The run is looked at first: where it has ended, all of its events are there.
    """
    snapshot = runner.snapshot(run_id)
    delta = runner.events(run_id, since)
    begin = 0 if delta.again else since
    found = delta.events[:most]
    return {
        "run": _run(snapshot),
        "events": [_event(runner, run_id, event) for event in found],
        "next": begin + len(found),
        "again": delta.again,
    }


def _event(runner: JobRunner, run_id: str, event: Event) -> dict[str, Any]:
    """One event with what belongs to its kind."""
    body: dict[str, Any] = {"kind": event.kind, "prompt": event.prompt}
    if event.kind == "tokens":
        said = runner.said(run_id, event.prompt)
        return body | ({} if said is None else _said(said))
    body |= {"position": event.position, "sample": event.sample}
    if event.kind == "text":
        body |= {"explanation": event.explanation, "finish": event.finish}
    elif event.kind == "reading" and event.reading is not None:
        body["reading"] = exports.jsonable(asdict(event.reading))
    elif event.kind == "failure":
        body["reason"] = event.reason
    return body


def _said(said: Said) -> dict[str, Any]:
    """What is shown of a transcript, which may also hold vectors."""
    shown = {field.name: getattr(said, field.name) for field in fields(Said)}
    tokens = [asdict(token) for token in said.tokens]
    return dict(exports.jsonable({**shown, "tokens": tokens}))


async def _event_lines(runner: JobRunner, run_id: str, since: int) -> AsyncIterator[str]:
    """JSON lines: events as they come, and between them the run where something is new about it.

    The last line is the run when it has ended.
    """
    _count(1)
    try:
        sent: tuple[object, ...] = ()
        sign = 0.0
        while True:
            try:
                found = await asyncio.to_thread(_events, runner, run_id, since, models.EVENTS)
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
            if ended or state != sent or time.monotonic() - sign > SIGN_SECONDS:
                sent, sign = state, time.monotonic()
                yield _line({"kind": "run", "run": run})
            if ended:
                return
            if caught_up:
                await asyncio.sleep(POLL_SECONDS)
    finally:
        _count(-1)


def _line(body: dict[str, Any]) -> str:
    return wire.encode(body).decode() + "\n"


# ---- change --------------------------------------------------------------------------------------


@changes.patch("/runs/{run_id}", response_model=models.RunNow)
def rename_run(run_id: str, body: models.NewName) -> Response:
    """Give it another name or note."""
    runner, snapshot = _known(run_id)
    new = {"name": snapshot.name, "note": snapshot.note, **body.model_dump(exclude_unset=True)}
    try:
        runner.rename(run_id, name=new["name"], note=new["note"])
    except NLAError as error:
        raise Refusal(422, error) from error
    return _now(runner, run_id)


@changes.delete("/runs/{run_id}", response_model=models.Deleted)
def delete_run(run_id: str) -> Response:
    """Delete it; refused while it is worked on."""
    runner, _ = _known(run_id)
    try:
        runner.delete(run_id)
    except NLAError as error:
        raise Refusal(409, error) from error
    return wire.answer({"deleted": run_id})


@changes.post("/runs/{run_id}/cancel", response_model=models.RunNow)
def cancel_run(run_id: str, visitor: Visitor) -> Response:
    """Cancel it; what is finished is kept. Where others asked for the same, it goes on for them."""
    runner, _ = _known(run_id)
    runner.cancel(run_id, visitor)
    return _now(runner, run_id)


@changes.post("/runs/{run_id}/retry", response_model=models.Retried)
def retry_run(run_id: str, visitor: Visitor) -> Response:
    """Do again what failed, and what a cancelled run had left."""
    runner, _ = _known(run_id)
    try:
        left = runner.retry(run_id, visitor)
    except OverLimit as error:
        raise _over(error) from error
    return _now(runner, run_id, again=left)


def _now(runner: JobRunner, run_id: str, **more: Any) -> Response:
    return wire.answer({"run": _run(runner.snapshot(run_id)), **more})
