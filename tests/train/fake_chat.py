"""A chat service on 127.0.0.1 that speaks both API shapes and misbehaves on demand.

Knows the request and reply forms of the Anthropic Messages API and of OpenAI's chat completions.
Checks nothing itself: what arrived is recorded for the test. The decision a reader would question:
a real server and real sockets, because time-outs, dropped connections and headers are the point.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["Handler", str], None]


def snippets(message: str) -> str:
    """An answer that follows from the message alone, wrapped as models like to."""
    digest = hashlib.sha256(message.encode()).hexdigest()[:6]
    return f"Sure! Here are the snippets:\n\n1. A text about {digest}.\n2. **It ends** on a word."


@dataclass
class Service:
    """What arrived, and what is answered: ``script`` first, then ``otherwise``."""

    url: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    script: list[Reply] = field(default_factory=list)
    most_at_once: int = 0
    otherwise: Reply = lambda handler, message: handler.answer(snippets(message))

    @property
    def messages(self) -> list[str]:
        return [request["body"]["messages"][0]["content"] for request in self.seen]


class Handler(BaseHTTPRequestHandler):
    service: Service
    lock: threading.Lock
    under_way = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        cls = type(self)
        with self.lock:
            cls.under_way += 1
            self.service.most_at_once = max(self.service.most_at_once, cls.under_way)
            self.service.seen.append(
                {"path": self.path, "headers": dict(self.headers), "body": body}
            )
            reply = self.service.script.pop(0) if self.service.script else self.service.otherwise
        try:
            reply(self, body["messages"][0]["content"])
        finally:
            with self.lock:
                cls.under_way -= 1

    def answer(self, text: str) -> None:
        """A whole reply in the shape of the path that was asked."""
        if self.path == "/v1/messages":
            usage = {"input_tokens": 11, "output_tokens": 7}
            body = {"content": [{"type": "text", "text": text}], "usage": usage}
        else:
            usage = {"prompt_tokens": 11, "completion_tokens": 7}
            body = {"choices": [{"message": {"content": text}}], "usage": usage}
        self.send(200, json.dumps(body).encode())

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def status(code: int, message: str = "no", **headers: str) -> Reply:
    """A refusal with an error object."""
    body = json.dumps({"error": {"type": "error", "message": message}}).encode()
    return lambda handler, _: handler.send(code, body, **headers)


def garbage(body: bytes) -> Reply:
    """200 with a body that is not what the API promises."""
    return lambda handler, _: handler.send(200, body)


def dropped(handler: Handler, _: str) -> None:
    """The connection closes without a word."""
    handler.close_connection = True
    handler.connection.close()


@contextlib.contextmanager
def serving() -> Iterator[Service]:
    service = Service()
    handler = type("Bound", (Handler,), {"service": service, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # a dropped connection is not worth a traceback
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
