"""Asking the API in tests: an answer, a refusal, all pages of a list."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from nla_core.api.asgi import application
from nla_core.api.datasets import Datasets
from nla_core.api.wire import PREFIX

DOCUMENT: dict[str, Any] = application(Datasets(dict)).openapi()
"""The OpenAPI document that a server gives out."""

ROUTES = [
    (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
]
LISTS = {"/transcripts": "transcript_id", "/readings": "reading_id"}


def get(client: TestClient, address: str, **query: Any) -> dict[str, Any]:
    response = client.get(PREFIX + address, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def refused(client: TestClient, address: str, status: int = 400) -> dict[str, str]:
    response = client.get(PREFIX + address)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"what", "why", "fix"}
    assert all(error.values())
    return error


def walk(client: TestClient, address: str, limit: int, **query: Any) -> list[dict[str, Any]]:
    """All rows of a list, page by page."""
    name = address.strip("/")
    body = get(client, address, limit=limit, **query)
    rows = body[name]
    while body["next"]:
        assert len(body[name]) == limit
        body = get(client, address, limit=limit, next=body["next"], **query)
        rows += body[name]
    return rows


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator that finds what ``schema`` refers to in the document."""
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})
