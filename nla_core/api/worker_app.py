"""A loaded pair behind HTTP: jobs in, lines of JSON out, one job at a time.

Knows routes, the token, limits on bodies, and how a job in a thread becomes a stream that ends when
its caller hangs up. Knows nothing of runs, queues or files, and does not choose address or device.
The decision a reader would question: a second job waits for the first inside its own open stream,
with signs of life in between; fairness between visitors is settled by the queue of the page, which
sends a worker one batch at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from nla_core.api import wire
from nla_core.errors import Cancelled, NLAError
from nla_core.runs import remote_wire as remote
from nla_core.runs.queue import PairKey
from nla_core.runs.remote_wire import Kind, line_of

if TYPE_CHECKING:
    from nla_core.explain import Explainer, WantedVector

LOG = logging.getLogger(__name__)
MAX_JOBS: Final = 16
STEP_SECONDS: Final = 0.2
HEALTH: Final = "/healthz"
LOOPBACK_NAMES: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})

Lines = Iterator[bytes]
Work = Callable[["Job"], Lines]


@dataclass(eq=False)
class Job:
    """One request at work. ``over`` is set by whoever does not want it any more."""

    name: str
    emit: Callable[[bytes], None]
    over: threading.Event = field(default_factory=threading.Event)
    dropped: set[int] = field(default_factory=set)
    stepped: float = 0.0

    def cancelled(self) -> bool:
        """A sign of life, and whether to stop: what the models ask between two steps."""
        now = time.monotonic()
        if now - self.stepped > STEP_SECONDS:
            self.stepped = now
            self.emit(line_of(Kind.STEP))
        return self.over.is_set()

    def wanted(self, row: int) -> bool:
        return row not in self.dropped


class Bench:
    """The models and the jobs before them. Safe from any thread."""

    def __init__(self, explainer: Explainer, identity: remote.Identity) -> None:
        self.explainer, self._identity = explainer, identity
        self._turn = threading.Lock()
        self._jobs: set[Job] = set()
        self._changing = threading.Lock()

    @property
    def identity(self) -> remote.Identity:
        return replace(self._identity, jobs=len(self._jobs))

    def admit(self, job: Job) -> bool:
        """Whether there was room for one more."""
        with self._changing:
            if len(self._jobs) >= MAX_JOBS:
                return False
            self._jobs.add(job)
            return True

    def drop(self, name: str, rows: set[int]) -> bool:
        """Give up rows of a job; whether it is here."""
        with self._changing:
            found = [job for job in self._jobs if job.name == name]
        for job in found:
            job.dropped |= rows
        return bool(found)

    def do(self, job: Job, work: Work) -> None:
        """The thread of one job: wait for its turn, work, and say how it ended."""
        try:
            while not self._turn.acquire(timeout=STEP_SECONDS):
                if job.cancelled():
                    return
            try:
                for line in work(job):
                    job.emit(line)
                job.emit(line_of(Kind.END))
            finally:
                self._turn.release()
        except Cancelled:
            pass
        except Exception as error:
            if not isinstance(error, NLAError):
                LOG.warning("A job failed: %s: %s", type(error).__name__, error)
            job.emit(remote.error_line(error))
            _free()
        finally:
            with self._changing:
                self._jobs.discard(job)


def application(
    explainer: Explainer, identity: remote.Identity, token: str | None, *, any_host: bool = False
) -> Starlette:
    """The worker as an ASGI application. Without a ``token`` only loopback names are answered,
    unless ``any_host``: then whoever serves it has seen to that."""
    bench = Bench(explainer, identity)

    def checked(
        endpoint: Callable[[Bench, Request], Any],
    ) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            refused = _turned_away(request, token, any_host)
            if refused is not None:
                return refused
            try:
                found: Response = await endpoint(bench, request)
            except NLAError as error:
                return _refusal(400, error)
            except ClientDisconnect:
                return Response(status_code=400)
            return found

        return answer

    return Starlette(
        routes=[
            Route(HEALTH, _health),
            Route(remote.IDENTITY, checked(_who)),
            Route(remote.TRANSCRIBE, checked(_transcribe), methods=["POST"]),
            Route(remote.EXPLAIN, checked(_explain), methods=["POST"]),
            Route(remote.DROP, checked(_drop), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _no_route},
    )


# ---- routes --------------------------------------------------------------------------------------


async def _health(request: Request) -> Response:
    return PlainTextResponse("ok")


async def _who(bench: Bench, request: Request) -> Response:
    return Response(wire.encode(asdict(bench.identity)), media_type=wire.JSON)


async def _drop(bench: Bench, request: Request) -> Response:
    body = await _json(request)
    try:
        found = bench.drop(str(body["job"]), {int(row) for row in body["rows"]})
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(f"{type(error).__name__}: {error}") from None
    return Response(wire.encode({"found": found}), media_type=wire.JSON)


async def _transcribe(bench: Bench, request: Request) -> Response:
    asked = remote.TranscribeJob.from_json(await _json(request))

    def work(job: Job) -> Lines:
        made = bench.explainer.transcribe(
            asked.prompts,
            seeds=asked.seeds,
            max_new_tokens=asked.max_new_tokens,
            temperature=asked.temperature,
            cancelled=job.cancelled,
        )
        for found in made:
            if isinstance(found, NLAError):
                yield line_of(Kind.TRANSCRIPT, refused=wire.error_json(found))
            else:
                yield line_of(Kind.TRANSCRIPT, transcript=remote.transcript_json(found))

    return _stream(bench, asked.job, asked.pair, work)


async def _explain(bench: Bench, request: Request) -> Response:
    asked = remote.ExplainJob.from_json(await _json(request))
    width = asked.vectors.shape[1]
    if width != bench.explainer.pair.d_model:
        raise _unreadable(
            f"vectors of {width} numbers for a pair of {bench.explainer.pair.d_model}"
        )

    def work(job: Job) -> Lines:
        for row, reading in bench.explainer.explain_each(
            _wanted(asked),
            temperature=asked.temperature,
            max_new_tokens=asked.max_new_tokens,
            batch_size=asked.batch_size,
            score_size=asked.score_size,
            cancelled=job.cancelled,
            still_wanted=job.wanted,
            on_text=lambda row, text: job.emit(
                line_of(Kind.TEXT, row=row, text=text.text, finish=text.finish, n=text.n_tokens)
            ),
        ):
            yield line_of(Kind.READING, row=row, reading=asdict(reading))

    return _stream(bench, asked.job, asked.pair, work)


def _wanted(asked: remote.ExplainJob) -> list[WantedVector]:
    from nla_core.explain import WantedVector

    return [
        WantedVector(row.position, row.sample, row.seed, vector, row.norm)
        for row, vector in zip(asked.rows, asked.vectors, strict=True)
    ]


# ---- streams -------------------------------------------------------------------------------------


def _stream(bench: Bench, name: str, pair: PairKey, work: Work) -> Response:
    if pair != bench.identity.key:
        return _refusal(409, _other_pair(pair, bench.identity.key))
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def emit(line: bytes) -> None:
        try:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        except RuntimeError:  # the server has stopped
            raise Cancelled from None

    job = Job(name, emit)
    if not bench.admit(job):
        return _refusal(503, _FULL)
    threading.Thread(target=bench.do, args=(job, work), name="worker-job", daemon=True).start()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                try:
                    line = await asyncio.wait_for(lines.get(), remote.ALIVE_SECONDS)
                except TimeoutError:
                    line = line_of(Kind.ALIVE)
                yield line
                if line.startswith(_LAST):
                    return
        finally:
            job.over.set()  # the caller hung up, or has all it asked for

    return StreamingResponse(pieces(), media_type="application/jsonl")


_LAST: Final = tuple(line_of(kind).rstrip(b"}\n") for kind in (Kind.END, Kind.ERROR))


def _free() -> None:
    from nla_core.memory import free

    with contextlib.suppress(Exception):  # the device may be what failed
        free()


# ---- what is turned away -------------------------------------------------------------------------


def _turned_away(request: Request, token: str | None, any_host: bool) -> Response | None:
    if token is not None:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return _refusal(401, _NO_TOKEN)
    elif not any_host and _host(request) not in LOOPBACK_NAMES:
        return _refusal(403, _FOREIGN)
    posted = request.headers.get("content-type", "").partition(";")[0]
    if request.method == "POST" and posted != wire.JSON:
        # A web page can send a form or a text to any address without asking, but no JSON.
        return _refusal(415, _unreadable(f"the body is {posted or 'of no type'}, not {wire.JSON}"))
    if int(request.headers.get("content-length") or 0) > remote.MAX_REQUEST_BYTES:
        return _refusal(413, _TOO_LARGE)
    return None


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    return host if host.endswith("]") else host.rpartition(":")[0] or host


async def _json(request: Request) -> Any:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > remote.MAX_REQUEST_BYTES:
            raise _TOO_LARGE
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _unreadable(str(error)[:200]) from None


def _refusal(status: int, error: NLAError) -> Response:
    answer = wire.refusal(status, error)
    return Response(answer.body, answer.status, media_type=answer.media_type)


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _refusal(status, _unreadable(f"{request.method} {request.url.path[:80]}: {error}"))


def _unreadable(why: str) -> NLAError:
    return NLAError(
        "The worker does not understand what it was asked",
        why=why,
        fix="Run the same version of NLA Explorer on both machines",
    )


def _other_pair(asked: PairKey, held: PairKey) -> NLAError:
    return NLAError(
        f"This worker does not hold the pair {asked[0][:60]}",
        why=f"it was asked for revision {asked[1][:60]} and holds {held[0]} at {held[1]}",
        fix="Start it with the same pair as the page: python -m nla_core.api.worker --nla DIR",
    )


_NO_TOKEN = NLAError(
    "The worker's token is missing or wrong",
    why=f"the request carries another one than the worker has in {remote.TOKEN_VARIABLE}",
    fix=f"Set {remote.TOKEN_VARIABLE} to the same value on both machines",
)
_FOREIGN = NLAError(
    "This worker answers to this machine alone",
    why="it has no token, and the Host header names another machine",
    fix=f"Set {remote.TOKEN_VARIABLE} on both machines and start the worker with --host",
)
_TOO_LARGE = NLAError(
    "The request is too large",
    why=f"the limit is {remote.MAX_REQUEST_BYTES:,} bytes",
    fix="Use a smaller batch_size in NLA_RUN_WORKER",
)
_FULL = NLAError(
    "The worker has no room for another job",
    why=f"{MAX_JOBS} wait already",
    fix="Wait, or start another worker",
)
