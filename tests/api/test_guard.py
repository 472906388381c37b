"""Who is let through to change something: modes, tokens, other sites, bodies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from nla_core import access, opened
from nla_core.access import visitor_id
from nla_core.api.guard import body_of
from nla_core.api.wire import PREFIX, Refusal
from nla_core.jobs.runner import JobRunner
from tests.api.asking import ROUTES
from tests.api.conftest import client_of
from tests.api.running import Asking

TOKEN = "a-token-that-nobody-guesses"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
CHANGES = [(method, path.format(run_id="run-x")) for method, path in ROUTES if method != "GET"]


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (access.ACCESS_VARIABLE, access.TOKEN_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(access, "TRIES", access.Tries())


@pytest.fixture
def ask(tmp_path: Path) -> Asking:
    return Asking(client_of(tmp_path / "nothing"))


@pytest.fixture
def visitors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those on whose behalf something was tried again."""
    heard: list[str] = []

    class Snapshot:
        run_id = "run-x"

    class Runner(JobRunner):
        def __init__(self) -> None: ...

        def snapshot(self, run_id: str) -> Any:
            return Snapshot()

        def retry(self, run_id: str, visitor: str) -> int:
            heard.append(visitor)
            raise access.NLAError("Enough", why="the test has what it wants", fix="Go on")

    monkeypatch.setattr(opened, "runner", Runner)
    return heard


@pytest.mark.parametrize(("method", "address"), CHANGES)
@pytest.mark.parametrize(
    ("settings", "headers", "status", "word"),
    [
        ({"ACCESS": "off"}, {}, 403, "switched off"),
        ({"TOKEN": TOKEN}, {}, 401, "Bearer"),
        ({"TOKEN": TOKEN}, {"Authorization": "Bearer wrong"}, 401, "not the token"),
        ({"TOKEN": TOKEN}, {"Authorization": f"Basic {TOKEN}"}, 401, "none was given"),
        ({"ACCESS": "everyone"}, {}, 503, "cannot be"),
        ({"TOKEN": "short"}, {"Authorization": "Bearer short"}, 503, "too short"),
    ],
)
def test_nothing_is_changed_without_leave(
    ask: Asking,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    address: str,
    settings: dict[str, str],
    headers: dict[str, str],
    status: int,
    word: str,
) -> None:
    monkeypatch.setattr(opened, "runner", lambda: pytest.fail("the queue was asked"))
    for name, value in settings.items():
        monkeypatch.setenv(f"NLA_RUN_{name}", value)
    said = ask.refused(method, address, status, **headers)
    assert word in said
    assert TOKEN not in said
    challenge = ask.send(method, address, **headers).headers.get("www-authenticate")
    assert challenge == ("Bearer" if status == 401 else None)


def test_beyond_this_machine_it_is_off(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    option = st.get_option
    bound = {"server.address": "0.0.0.0"}
    monkeypatch.setattr(st, "get_option", lambda name: bound.get(name) or option(name))
    assert "0.0.0.0" in ask.refused("POST", "/runs", 403)
    assert ask.send("GET", "/runs").status_code == 200
    monkeypatch.setenv("NLA_RUN_ACCESS", "open")
    assert "prompt" in ask.refused("POST", "/runs", 400)


def test_reading_asks_nobody(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLA_RUN_ACCESS", "off")
    for address in ("/runs", "/runs/limits", "/runs/pairs", "/datasets"):
        assert ask.send("GET", address).status_code == 200


def test_wrong_tokens_have_to_wait(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLA_RUN_TOKEN", TOKEN)
    for _ in range(access.WRONG_TRIES):
        ask.refused("POST", "/runs", 401, Authorization="Bearer wrong")
    assert "Wait" in ask.refused("POST", "/runs", 429, **BEARER)


def test_who_asks_is_the_token_or_the_address(
    ask: Asking, visitors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that nobody asks for makes no new visitor: it would be a way around a limit."""
    ask.send("POST", "/runs/run-x/retry")
    ask.send("POST", "/runs/run-x/retry", Authorization="Bearer invented")
    monkeypatch.setenv("NLA_RUN_TOKEN", TOKEN)
    ask.send("POST", "/runs/run-x/retry", Authorization=f"bearer   {TOKEN} ")
    address = visitor_id("address", "testclient")
    assert visitors == [address, address, visitor_id("token", TOKEN)]


# ---- other sites ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "address"), CHANGES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://[bad"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_other_sites_change_nothing(
    ask: Asking,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    address: str,
    headers: dict[str, str],
) -> None:
    monkeypatch.setattr(opened, "runner", lambda: pytest.fail("the queue was asked"))
    said = ask.refused(method, address, 403, {"prompt": "a"}, **headers)
    assert "Another site" in said
    monkeypatch.setenv("NLA_RUN_TOKEN", TOKEN)
    ask.refused(method, address, 403, {"prompt": "a"}, **headers, **BEARER)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://LOCALHOST"},
        {"Sec-Fetch-Site": "none"},
        {},
    ],
)
def test_own_pages_and_programs_are_let_through(ask: Asking, headers: dict[str, str]) -> None:
    assert "no run" in ask.refused("POST", "/runs/run-x/cancel", 404, **headers)


def test_a_rebound_name_changes_nothing(ask: Asking) -> None:
    headers = {"Host": "rebound.example", "Origin": "http://rebound.example"}
    assert "allowedHosts" in ask.refused("POST", "/runs", 403, {"prompt": "a"}, **headers)


def test_no_other_origin_is_told_that_it_may(ask: Asking) -> None:
    response = ask.send(
        "OPTIONS", "/runs", Origin="http://evil.example", Access_Control_Request_Method="POST"
    )
    assert response.status_code == 405
    assert not any(name.startswith("access-control") for name in response.headers)


# ---- bodies and methods --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_body_that_is_no_json_is_refused(ask: Asking, kind: str) -> None:
    """These are what a form of another site could send without asking first."""
    assert "JSON" in ask.refused("POST", "/runs", 415, {"prompt": "a"}, Content_Type=kind)
    if kind:
        assert "JSON" in ask.refused("POST", "/runs/run-x/cancel", 415, Content_Type=kind)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"{", "line 1 column 2"),
        (b"[]", "list"),
        (b"3", "int"),
        (b"\xff", "byte 0"),
        (b"[" * 100_000, "nested"),
        (b'{"a": ' + b"1" * 5000 + b"}", "number"),
    ],
)
def test_bodies_that_cannot_be_read_are_refused(data: bytes, word: str) -> None:
    with pytest.raises(Refusal) as refusal:
        body_of(data)
    assert refusal.value.status == 400
    assert word in refusal.value.error.why


def test_a_body_is_read_up_to_the_limit(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLA_RUN_LIMITS", "upload_bytes=300")
    assert "no run" in ask.refused("PATCH", "/runs/run-x", 404, {"note": "x" * 200})
    assert "upload_bytes is 300" in ask.refused("PATCH", "/runs/run-x", 413, {"note": "x" * 400})

    def pieces() -> Iterator[bytes]:
        yield from [b" " * 100] * 10

    kind = {"Content-Type": "application/json"}
    response = ask.client.patch(f"{PREFIX}/runs/run-x", content=pieces(), headers=kind)
    assert "content-length" not in response.request.headers
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [
        ("PUT", "/runs", {"GET", "HEAD", "POST"}),
        ("DELETE", "/runs", {"GET", "HEAD", "POST"}),
        ("POST", "/runs/run-x", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("GET", "/runs/run-x/cancel", {"POST"}),
    ],
)
def test_other_methods_are_told_which_there_are(
    ask: Asking, method: str, address: str, allowed: set[str]
) -> None:
    response = ask.send(method, address)
    assert response.status_code == 405
    assert {name.strip() for name in response.headers["allow"].split(",")} == allowed
    said = json.dumps(response.json())
    assert all(name in said for name in allowed - {"HEAD"})
