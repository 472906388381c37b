"""On-demand runs: asked for, watched, renamed, cancelled, tried again, deleted, taken away.

Knows which answer each of these has and which status a refusal of the queue gets. Does not know who
is let through, nor how a run is worked on. The decision a reader would question: whoever may run
may also cancel and delete what others ran. There are no accounts, so nothing says whose run it is;
the content of a run is read by its link, as that of any dataset.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from nla_core import exports, opened
from nla_core.api import params, run_body, run_events, wire
from nla_core.api.listing import PAGING, page_size
from nla_core.api.params import Param
from nla_core.api.run_events import published, snapshot_json
from nla_core.api.shelf import Asked
from nla_core.api.wire import Answer, Refusal, Stream
from nla_core.errors import NLAError
from nla_core.runs.request import OverLimit
from nla_core.runs.settings import Limits
from nla_core.runs.store import RunState, Snapshot, StoredRun

if TYPE_CHECKING:
    from nla_core.runs.request import RunRequest
    from nla_core.runs.runner import JobRunner

ZIP: Final = "application/zip"
IN_MEMORY: Final = 8 * 1024 * 1024
"""Bytes of an export that are kept in memory before it goes to a file."""
PIECE: Final = 256 * 1024

LIST_PARAMS: Final = (Param("state", "choice", tuple(RunState)), *PAGING)
EVENT_PARAMS: Final = (
    Param("since", "integer", low=0, default=0),
    Param("limit", "integer", low=1, high=5_000, default=run_events.AT_A_TIME),
    Param("format", "choice", ("json", "jsonl"), default="json"),
)


# ---- asking --------------------------------------------------------------------------------------


def submit(asked: Asked) -> Answer:
    """202 for a run that was queued, 200 for one that is there or under way already."""
    runner = opened.runner()
    request = _request(asked, runner)
    estimate = _estimate(runner, request)
    try:
        found = runner.submit(request, asked.sent.visitor)
    except OverLimit as error:
        raise _over(error) from error
    body = {
        "run_id": found.run_id,
        "is_new": found.is_new,
        "run": snapshot_json(runner.snapshot(found.run_id)),
        "estimate": estimate,
    }
    return Answer(wire.encode(body), status=202 if found.is_new else 200)


def estimate(asked: Asked) -> Answer:
    """How long it would take now; queues nothing."""
    runner = opened.runner()
    return Answer(wire.encode({"estimate": _estimate(runner, _request(asked, runner))}))


def limits(asked: Asked) -> Answer:
    return Answer(wire.encode({"limits": asdict(Limits.from_environment())}))


def pairs(asked: Asked) -> Answer:
    """The pairs that can be run, and the state of their models by device."""
    runner = opened.runner()
    readable: list[dict[str, Any]] = []
    unreadable: list[dict[str, Any]] = []
    for name in runner.pairs.names():
        try:
            about = runner.pairs.get(name).describe()
            models = {device: asdict(state) for device, state in runner.models(name).items()}
            readable.append({"pair": name, **about, "models": models})
        except NLAError as error:
            unreadable.append({"pair": name, "error": wire.error_json(error)})
    return Answer(wire.encode(exports.jsonable({"pairs": readable, "unreadable": unreadable})))


# ---- watching ------------------------------------------------------------------------------------


def runs(asked: Asked) -> Answer:
    """All runs that are kept, the newest first; ``queue`` names those that wait or are at work."""
    runner = opened.runner()
    queue = {snapshot.run_id: snapshot for snapshot in runner.queue()}
    state, limit = asked.query["state"], page_size(asked)
    rows = [_row(run, queue.get(run.run_id)) for run in runner.stored()]
    rows = [row for row in rows if state in (None, row["state"])]
    rows.sort(key=_key)
    rows = rows[_after(asked, rows) :]
    following = None
    if len(rows) > limit:
        created, run_id = _key(rows[limit - 1])
        following = params.token("runs", {"state": state}, f"{created!r} {run_id}")
    return Answer(wire.encode({"runs": rows[:limit], "next": following, "queue": list(queue)}))


def one_run(asked: Asked) -> Answer:
    """How it stands, what was asked, and what failed of it."""
    runner, snapshot = _known(asked)
    body = {
        "run": snapshot_json(snapshot),
        "request": runner.request(snapshot.run_id).to_json(),
        "failures": [asdict(failure) for failure in runner.failures(snapshot.run_id)],
    }
    return Answer(wire.encode(body))


def events(asked: Asked) -> Answer | Stream:
    """What happened after the first ``since`` events; with format=jsonl, until the run ends."""
    runner, snapshot = _known(asked)
    run_id, since = snapshot.run_id, asked.query["since"]
    if asked.query["format"] == "jsonl":
        return Stream(
            run_events.lines(runner, run_id, since), f"{exports.MIME['jsonl']}; charset=utf-8"
        )
    return Answer(wire.encode(run_events.page(runner, run_id, since, asked.query["limit"])))


def export(asked: Asked) -> Stream:
    """A zip of the record and the published version."""
    runner, snapshot = _known(asked)
    archive = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
    try:
        runner.export(snapshot.run_id, archive)
    except NLAError as error:
        archive.close()
        raise Refusal(409, error) from error

    def pieces() -> Iterator[bytes]:
        with archive:
            archive.seek(0)
            while piece := archive.read(PIECE):
                yield piece

    name = f"attachment; filename*=UTF-8''{snapshot.run_id}.zip"
    return Stream(pieces(), ZIP, {"Content-Disposition": name})


# ---- changing ------------------------------------------------------------------------------------


def cancel(asked: Asked) -> Answer:
    """What is finished is kept. Where others asked for the same run, it goes on for them."""
    runner, snapshot = _known(asked)
    runner.cancel(snapshot.run_id, asked.sent.visitor)
    return _now(runner, snapshot.run_id)


def retry(asked: Asked) -> Answer:
    """Does again what failed, and what a cancelled run had left."""
    runner, snapshot = _known(asked)
    try:
        left = runner.retry(snapshot.run_id, asked.sent.visitor)
    except OverLimit as error:
        raise _over(error) from error
    return _now(runner, snapshot.run_id, again=left)


def rename(asked: Asked) -> Answer:
    """Another name, another note, or both."""
    runner, snapshot = _known(asked)
    new = {"name": snapshot.name, "note": snapshot.note, **run_body.changes_of(asked.sent.body)}
    try:
        runner.rename(snapshot.run_id, name=new["name"], note=new["note"])
    except NLAError as error:
        raise Refusal(422, error) from error
    return _now(runner, snapshot.run_id)


def delete(asked: Asked) -> Answer:
    """409 for a run that is at work."""
    runner, snapshot = _known(asked)
    try:
        runner.delete(snapshot.run_id)
    except NLAError as error:
        raise Refusal(409, error) from error
    return Answer(wire.encode({"deleted": snapshot.run_id}))


# ---- inside --------------------------------------------------------------------------------------


def _known(asked: Asked) -> tuple[JobRunner, Snapshot]:
    runner = opened.runner()
    try:
        return runner, runner.snapshot(asked.path["run_id"])
    except NLAError as error:
        raise Refusal(404, error) from error


def _now(runner: JobRunner, run_id: str, **more: Any) -> Answer:
    return Answer(wire.encode({"run": snapshot_json(runner.snapshot(run_id)), **more}))


def _request(asked: Asked, runner: JobRunner) -> RunRequest:
    try:
        return run_body.request_of(asked.sent.body, runner.pairs.names())
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


def _row(run: StoredRun, now: Snapshot | None) -> dict[str, Any]:
    row = asdict(run) | {"place": None}
    if now is not None:
        row |= {name: getattr(now, name) for name in ("state", "done", "failed", "total", "place")}
    return {**exports.jsonable(row), **published(run.run_id, run.version)}


def _key(row: dict[str, Any]) -> tuple[float, str]:
    return -row["created"], row["run_id"]


def _after(asked: Asked, rows: list[dict[str, Any]]) -> int:
    """How many rows the pages before this one had."""
    text = asked.query["next"]
    if text is None:
        return 0
    try:
        last = params.after(text, "runs", {"state": asked.query["state"]}, str)
        created, run_id = last.split(" ", 1)
        key = (float(created), run_id)
    except (NLAError, ValueError) as error:
        refused = error if isinstance(error, NLAError) else _strange_token()
        raise Refusal(400, refused) from error
    return sum(_key(row) <= key for row in rows)


def _strange_token() -> NLAError:
    return NLAError(
        "The page token cannot be used",
        why="it is not one that this server gave",
        fix="Ask again without `next`, and follow the tokens from there",
    )
