"""Who may run: the settings, what follows without them, tokens, wrong tries."""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import Any

import pytest

from nla_core import access
from nla_core.access import Access, Because, Denied, Policy, only_local, visitor_id
from nla_core.errors import NLAError

TOKEN = "a-token-that-nobody-guesses"
LOCAL = ["localhost", "127.0.0.1", "::1"]


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (access.ACCESS_VARIABLE, access.TOKEN_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(access, "TRIES", access.Tries())


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(
        asked: str | None = None,
        token: str | None = None,
        address: str | None = "127.0.0.1",
        hosts: list[str] = LOCAL,
    ) -> Policy:
        for name, value in (
            (access.ACCESS_VARIABLE, asked),
            (access.TOKEN_VARIABLE, token),
        ):
            if value is not None:
                monkeypatch.setenv(name, value)
        return Policy.from_environment(address, hosts)

    return make


def denied(policy: Policy, **who: Any) -> Denied:
    with pytest.raises(Denied) as refusal:
        policy.check(**who)
    assert all((refusal.value.what, refusal.value.why, refusal.value.fix))
    return refusal.value


# ---- what follows from the settings --------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "hosts", "local"),
    [
        ("127.0.0.1", LOCAL, True),
        ("127.8.9.1", ["LOCALHOST."], True),
        ("localhost", LOCAL, True),
        ("::1", ["[::1]"], True),
        ("0.0.0.0", LOCAL, False),
        ("::", LOCAL, False),
        ("10.0.0.4", LOCAL, False),
        (None, LOCAL, False),
        ("unix:///run/nla.sock", LOCAL, False),
        ("localhost.example.org", LOCAL, False),
        ("127.0.0.1", [*LOCAL, "nla.example.org"], False),
        ("127.0.0.1", ["*"], False),
        ("127.0.0.1", [], False),
    ],
)
def test_local_is_what_nobody_else_can_reach(
    policy: Any, address: str | None, hosts: list[str], local: bool
) -> None:
    assert only_local(address, hosts) is local
    found = policy(address=address, hosts=hosts)
    assert found.access is (Access.OPEN if local else Access.OFF)


def test_off_says_why_and_how_to_switch_it_on(policy: Any) -> None:
    refusal = denied(policy(address="0.0.0.0"))
    assert refusal.because is Because.OFF
    assert "0.0.0.0" in refusal.why
    assert "NLA_RUN_TOKEN" in refusal.fix
    assert "NLA_RUN_ACCESS" in refusal.fix
    assert "nla.example.org" in denied(policy(hosts=["nla.example.org"])).why
    assert "NLA_RUN_ACCESS is off" in denied(policy("off")).why


def test_a_token_is_demanded_wherever_one_is_set(policy: Any) -> None:
    for address in ("127.0.0.1", "0.0.0.0"):
        assert policy(token=TOKEN, address=address).access is Access.TOKEN


def test_what_is_asked_for_outright_is_honoured(policy: Any) -> None:
    found = policy("open", address="0.0.0.0")
    assert (found.access, found.local) == (Access.OPEN, False)
    found.check()
    assert policy(" OFF ").access is Access.OFF


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"asked": "oidc"}, "open, token, off"),
        ({"asked": "everybody"}, "open, token, off"),
        ({"asked": "token"}, "NLA_RUN_TOKEN is not set"),
        ({"token": "short"}, "5 characters"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    policy: Any, settings: dict[str, str], word: str
) -> None:
    with pytest.raises(NLAError) as refusal:
        policy(**settings)
    assert word in str(refusal.value)
    assert "short" not in str(refusal.value.why).replace("too short", "")


# ---- tokens --------------------------------------------------------------------------------------


def test_the_right_token_and_no_other(policy: Any) -> None:
    found = policy(token=f"  {TOKEN}\n")
    found.check(token=TOKEN)
    assert found.accepts(TOKEN)
    assert denied(found).because is Because.NO_TOKEN
    assert denied(found, token="").because is Because.NO_TOKEN
    for wrong in (TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü" * 20, "\ud800" * 16):
        assert not found.accepts(wrong)
        assert denied(found, token=wrong).because is Because.WRONG_TOKEN
    assert not found.accepts(None)


def test_the_token_is_in_no_text(policy: Any) -> None:
    found = policy(token=TOKEN)
    assert TOKEN not in repr(found)
    assert TOKEN not in str(denied(found, token="x" * 20))
    assert "x" * 20 not in str(denied(found, token="x" * 20))


def test_guessing_is_useless(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(access.time, "monotonic", lambda: now[0])
    found = policy(token=TOKEN)
    for _ in range(access.WRONG_TRIES):
        now[0] += 1
        assert denied(found, token="x" * 20, address="a").because is Because.WRONG_TOKEN
    refusal = denied(found, token=TOKEN, address="a")
    assert refusal.because is Because.TOO_MANY_TRIES
    assert "Wait 51 seconds" in refusal.fix
    found.check(token=TOKEN, address="b")
    now[0] += 51.5
    found.check(token=TOKEN, address="a")
    denied(found, token="x" * 20, address="a")
    assert denied(found, token=TOKEN, address="a").because is Because.TOO_MANY_TRIES


def test_waiting_is_not_made_longer_by_trying(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(access.time, "monotonic", lambda: now[0])
    found = policy(token=TOKEN)
    for _ in range(3 * access.WRONG_TRIES):
        denied(found, token="x" * 20, address="a")
    now[0] += access.TRY_SECONDS
    found.check(token=TOKEN, address="a")


def test_remembered_addresses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST_ADDRESSES", 3)
    tries = access.Tries()
    for address in "abcd":
        for _ in range(access.WRONG_TRIES):
            tries.wrong(address)
    assert tries.wait_s("a") == 0
    assert all(tries.wait_s(address) > 0 for address in "bcd")


def test_tries_of_many_threads_are_all_counted() -> None:
    tries = access.Tries()
    threads = [threading.Thread(target=tries.wrong, args=("a",)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tries.wait_s("a") > 0


def test_a_visitor_is_named_without_being_told() -> None:
    name = visitor_id("token", "ann@example.org")
    assert name == visitor_id("token", "ann@example.org")
    assert name.startswith("token:")
    assert "ann" not in name
    assert name != visitor_id("browser", "ann@example.org")
    assert json.dumps(name)


def test_a_policy_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Policy(Access.OPEN).access = Access.OFF  # type: ignore[misc]
