"""Asking for runs in tests: a client of a queue over the tiny pair, checked as documented."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
from starlette.testclient import TestClient

from nla_core.api.wire import PREFIX
from tests.api.asking import DOCUMENT, validator

SHORT: dict[str, Any] = {
    "positions": {"which": "last", "n": 2},
    "target": {"max_tokens": 3},
    "verbalizer": {"max_tokens": 5},
}
SLOW: dict[str, Any] = {**SHORT, "positions": "all"}


def asked(text: str, **more: Any) -> dict[str, Any]:
    return {"prompt": text, **SHORT, **more}


class Asking:
    """Sends requests; every answer is held against the OpenAPI document."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.seen: set[tuple[str, str]] = set()

    def __call__(
        self, method: str, address: str, body: Any = None, status: int = 200, **headers: str
    ) -> dict[str, Any]:
        response = self.send(method, address, body, **headers)
        assert response.status_code == status, response.text
        found = response.json()
        self._described(method, address, status, found)
        return found

    def send(self, method: str, address: str, body: Any = None, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            named.setdefault("Content-Type", "application/json")
        data = None if body is None else json.dumps(body).encode()
        return self.client.request(method, PREFIX + address, headers=named, content=data)

    def refused(
        self, method: str, address: str, status: int, body: Any = None, **headers: str
    ) -> str:
        """All that a refusal says."""
        error = self(method, address, body, status, **headers)["error"]
        assert all(error.values())
        return " ".join(error.values())

    def lines(self, run_id: str, since: int = 0) -> list[dict[str, Any]]:
        """What a stream says until the run has ended."""
        response = self.send("GET", f"/runs/{run_id}/events?format=jsonl&since={since}")
        assert response.headers["content-type"].startswith("application/x-ndjson")
        lines = [json.loads(line) for line in response.text.splitlines()]
        for line in lines:
            validator({"$ref": "#/components/schemas/RunEvent"}).validate(line)
        return lines

    def _described(self, method: str, address: str, status: int, found: Any) -> None:
        path = re.sub(r"/runs/run-[^/]+", "/runs/{run_id}", address.partition("?")[0])
        if status >= 400:
            validator({"$ref": "#/components/schemas/Error"}).validate(found)
            return
        described = DOCUMENT["paths"][path][method.lower()]["responses"][str(status)]
        validator(described["content"]["application/json"]["schema"]).validate(found)
        self.seen.add((method, path))
