"""Who may have models run here: everybody, holders of a token, or nobody.

Reading is always open; what is guarded is the machine's time, and one question is enough for that.
There are no accounts: where people have to sign in, a proxy in front of the server asks them, and
nothing that it writes into headers is believed here (SECURITY.md).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from nla_core.errors import NLAError

ACCESS_VARIABLE: Final = "NLA_RUN_ACCESS"
TOKEN_VARIABLE: Final = "NLA_RUN_TOKEN"

SHORTEST_TOKEN: Final = 16
WRONG_TRIES: Final = 10
"""Wrong tokens from one address within ``TRY_SECONDS`` before it has to wait."""
TRY_SECONDS: Final = 60.0
MOST_ADDRESSES: Final = 10_000
"""Addresses whose wrong tries are remembered; the one heard from longest ago is forgotten first."""


class Access(StrEnum):
    OPEN = "open"
    TOKEN = "token"
    OFF = "off"


class Because(StrEnum):
    """Why somebody was refused, for whoever has to answer with a status."""

    OFF = "off"
    NO_TOKEN = "no token"
    WRONG_TOKEN = "wrong token"
    TOO_MANY_TRIES = "too many tries"


class Denied(NLAError):
    """A refusal to run anything, with the kind of reason it has."""

    def __init__(self, because: Because, what: str, *, why: str, fix: str) -> None:
        super().__init__(what, why=why, fix=fix)
        self.because = because


class Tries:
    """Wrong tokens by address; every method may be called from any thread."""

    def __init__(self) -> None:
        self._wrong: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0 where it may now."""
        with self._lock:
            tries = self._recent(address)
            if len(tries) < WRONG_TRIES:
                return 0.0
            return max(0.0, tries[0] + TRY_SECONDS - time.monotonic())

    def wrong(self, address: str) -> None:
        with self._lock:
            tries = self._recent(address)
            tries.append(time.monotonic())
            self._wrong.pop(address, None)
            self._wrong[address] = tries  # now the last one in order
            while len(self._wrong) > MOST_ADDRESSES:
                del self._wrong[next(iter(self._wrong))]

    def _recent(self, address: str) -> deque[float]:
        tries = self._wrong.get(address, deque(maxlen=WRONG_TRIES))
        while tries and time.monotonic() - tries[0] >= TRY_SECONDS:
            tries.popleft()
        return tries


TRIES: Final = Tries()
"""Of this process: pages and API count together."""


@dataclass(frozen=True, slots=True)
class Policy:
    """``reason`` and ``remedy`` say of OFF why it is off, and how it is switched on."""

    access: Access
    token: str | None = field(default=None, repr=False)
    local: bool = True
    reason: str = ""
    remedy: str = ""

    @classmethod
    def from_environment(cls, address: str | None, hosts: Sequence[str]) -> Policy:
        """What the two variables say, for a server bound to ``address`` (None: everywhere)
        that answers to the names in ``hosts`` (none: to all).

        Raises NLAError for settings that contradict each other or mean nothing.
        """
        local = only_local(address, hosts)
        token = _token()
        asked = os.environ.get(ACCESS_VARIABLE, "").strip().lower()
        if asked:
            access = _access(asked, token)
            reason, remedy = f"{ACCESS_VARIABLE} is off", f"Set {ACCESS_VARIABLE} to something else"
        else:
            access = Access.TOKEN if token else Access.OPEN if local else Access.OFF
            reason = f"this server can be reached by others ({_reach(address, hosts)})"
            remedy = (
                f"Whoever runs it can set {TOKEN_VARIABLE} to a secret of {SHORTEST_TOKEN} "
                f"characters or more, or {ACCESS_VARIABLE} to open"
            )
        off = access is Access.OFF
        return cls(access, token, local, reason if off else "", remedy if off else "")

    def check(self, *, token: str | None = None, address: str = "") -> None:
        """Return where running is allowed; else raise Denied.

        ``address`` is where a wrong token came from.
        """
        if self.access is Access.OFF:
            raise Denied(
                Because.OFF,
                "Running prompts is switched off here",
                why=self.reason,
                fix=self.remedy,
            )
        if self.access is Access.TOKEN:
            self._check_token(token, address)

    def accepts(self, token: str | None) -> bool:
        """Whether it is the token that is asked for, compared in constant time."""
        return bool(token) and self.token is not None and _same(token or "", self.token)

    def _check_token(self, token: str | None, address: str) -> None:
        if not token:
            raise Denied(
                Because.NO_TOKEN,
                "Running prompts needs the token of this server",
                why="none was given",
                fix="Ask whoever runs it; programs send it as `Authorization: Bearer TOKEN`",
            )
        wait = TRIES.wait_s(address)
        if wait > 0:
            raise Denied(
                Because.TOO_MANY_TRIES,
                "Too many wrong tokens",
                why=f"{WRONG_TRIES} came from your address within a minute",
                fix=f"Wait {max(1, round(wait))} seconds, then try again",
            )
        if not self.accepts(token):
            TRIES.wrong(address)
            raise Denied(
                Because.WRONG_TOKEN,
                "This is not the token of this server",
                why="it differs from the one that was set when the server was started",
                fix="Check it for missing characters, or ask whoever runs the server",
            )


def only_local(address: str | None, hosts: Sequence[str]) -> bool:
    """Whether nobody but this machine can ask: bound to loopback, and to no other name.

    A name in ``hosts`` that is not this machine's means a proxy or a forwarded port.
    """
    return _is_loopback(address or "") and bool(hosts) and all(map(_is_loopback, hosts))


def visitor_id(kind: str, value: str) -> str:
    """A name for whoever asks that says nothing about them: ``kind:`` and a hash."""
    return f"{kind}:{hashlib.sha256(f'{kind} {value}'.encode()).hexdigest()[:16]}"


def _is_loopback(host: str) -> bool:
    host = host.strip().rstrip(".").lower()
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _reach(address: str | None, hosts: Sequence[str]) -> str:
    if not _is_loopback(address or ""):
        return f"it listens on {address or 'every address'}"
    named = [host for host in hosts if not _is_loopback(host)]
    return f"it answers to {', '.join(named[:3]) if named else 'every name'}"


def _same(one: str, other: str) -> bool:
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (one, other))
    return hmac.compare_digest(*digests)


def _access(asked: str, token: str | None) -> Access:
    if asked not in set(Access):
        raise NLAError(
            f"{ACCESS_VARIABLE} cannot be “{asked[:40]}”",
            why="it says who may have models run here",
            fix=f"Set it to one of {', '.join(Access)}, or leave it out",
        )
    if asked == Access.TOKEN and token is None:
        raise NLAError(
            f"{ACCESS_VARIABLE} is token and there is none",
            why=f"{TOKEN_VARIABLE} is not set",
            fix=f"Set {TOKEN_VARIABLE} to a secret of {SHORTEST_TOKEN} characters or more",
        )
    return Access(asked)


def _token() -> str | None:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token and len(token) < SHORTEST_TOKEN:
        raise NLAError(
            f"{TOKEN_VARIABLE} is too short",
            why=f"it has {len(token)} characters, and fewer than {SHORTEST_TOKEN} can be guessed",
            fix="Make one with `python -c 'import secrets; print(secrets.token_urlsafe())'`",
        )
    return token or None
