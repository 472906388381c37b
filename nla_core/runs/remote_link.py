"""One connection a job to a worker on another machine, and what each way of failing means.

Knows addresses, the token, statuses, and when the other end counts as gone. Knows no queue and no
model. The decision a reader would question: `http.client` with a fresh connection a job instead of
a client library with a pool; a job runs for seconds to minutes, hanging up is how it is cancelled,
and a connection that nobody else shares can be hung up.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from nla_core.errors import Cancelled, NLAError
from nla_core.runs import remote_wire as wire
from nla_core.runs.remote_wire import Kind

CONNECT_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 15 * wire.ALIVE_SECONDS
"""A stream that says nothing for so long has lost its other end."""
MAX_ANSWER_BYTES: Final = 1024 * 1024
MAX_LINE_BYTES: Final = 1024 * 1024 * 1024
OUR_MISTAKE: Final = frozenset({400, 413, 415})
"""Statuses that would be the same at any other worker."""


class WorkerLost(Exception):
    """The worker is gone, or does not want us. ``at_work``: it had begun what it was asked for."""

    def __init__(self, why: str, *, at_work: bool) -> None:
        super().__init__(why)
        self.at_work = at_work


@dataclass(frozen=True, slots=True)
class Address:
    """``http://host:port`` with a path before it where a proxy wants one, and a token or none."""

    url: str
    token: str | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable, parts = None, urlsplit("")
        if not usable or parts.query or parts.fragment or "@" in parts.netloc:
            raise NLAError(
                f"{self.url[:80]} is no address of a worker",
                why="expected http:// or https://, a host and a port, without name or password",
                fix="Write it as NLA_RUN_WORKER=devices=http://10.0.0.2:8600",
            )

    def connect(self) -> http.client.HTTPConnection:
        """Raises WorkerLost."""
        parts = urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        made = kind(str(parts.hostname), parts.port, timeout=CONNECT_SECONDS)
        try:
            made.connect()
        except OSError as error:
            raise WorkerLost(f"{self.url} cannot be reached: {error}", at_work=False) from None
        return made

    def send(
        self, connection: http.client.HTTPConnection, path: str, body: Mapping[str, Any] | None
    ) -> http.client.HTTPResponse:
        """The answer to one request, its status looked at. Raises WorkerLost or NLAError."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(
                "GET" if body is None else "POST",
                urlsplit(self.url).path.rstrip("/") + path,
                None if body is None else json.dumps(body).encode(),
                headers,
            )
            answer = connection.getresponse()
            if answer.status == http.client.OK:
                return answer
            refusal = answer.read(MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise WorkerLost(f"{self.url} broke off: {error!r}", at_work=False) from None
        told = _refusal(refusal, answer.status)
        if answer.status in OUR_MISTAKE:
            raise told
        raise WorkerLost(str(told), at_work=False)

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of a short answer. Raises WorkerLost or NLAError."""
        with contextlib.closing(self.connect()) as connection:
            try:
                return json.loads(self.send(connection, path, body).read(MAX_ANSWER_BYTES))
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise WorkerLost(f"{self.url} is no worker: {error!r}", at_work=False) from None

    def lines(
        self, path: str, body: Mapping[str, Any], cancelled: Callable[[], bool]
    ) -> Iterator[dict[str, Any]]:
        """The lines of one job but signs of life, for which ``cancelled`` is asked.

        Raises Cancelled after hanging up, WorkerLost where the other end is gone, and whatever
        the worker says the job has ended with.
        """
        with contextlib.closing(self.connect()) as connection:
            if connection.sock is not None:
                connection.sock.settimeout(SILENT_SECONDS)
            answer = self.send(connection, path, body)
            with contextlib.closing(answer):
                for line in self._read(answer):
                    match line.get("kind"):
                        case Kind.ALIVE:
                            continue
                        case Kind.STEP:
                            if cancelled():
                                raise Cancelled
                        case Kind.END:
                            return
                        case Kind.ERROR:
                            raise wire.error_of(line)
                        case _:
                            yield line

    def _read(self, answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
        while True:
            try:
                line = answer.readline(MAX_LINE_BYTES)
                if not line.endswith(b"\n"):
                    raise EOFError("the stream ended before its last line")
                yield json.loads(line)
            except (OSError, EOFError, ValueError, http.client.HTTPException) as error:
                why = "gave no sign of life" if isinstance(error, TimeoutError) else repr(error)
                raise WorkerLost(f"{self.url} was lost at work: {why}", at_work=True) from None


def is_address(device: str) -> bool:
    """Whether a name of ``devices`` is that of a worker elsewhere."""
    return device.startswith(("http://", "https://"))


def _refusal(body: bytes, status: int) -> NLAError:
    try:
        told = json.loads(body)["error"]
        return NLAError(told["what"], why=told["why"], fix=told["fix"])
    except (ValueError, KeyError, TypeError):
        return NLAError(
            f"The worker answered with status {status}",
            why="what it sent besides is not the answer of a worker",
            fix="Check that the address is that of `python -m nla_core.api.worker`",
        )
