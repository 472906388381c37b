"""What a query string may hold: named parameters with a kind and bounds, and page tokens.

Knows how text becomes checked values, and how a page token is bound to the question it continues.
Does not know any route. The decision a reader would question: an unknown or repeated parameter is
refused instead of ignored; a program that misspells a filter must not get an unfiltered answer.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from nla_core.errors import NLAError
from nla_core.store.files import sha256_json

LONGEST_TEXT: Final = 1000
"""Characters of a text parameter."""

LARGEST_INTEGER: Final = 2**53

Kind = Literal["text", "choice", "number", "integer", "switch"]


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a query string; ``low`` and ``high`` are inclusive."""

    name: str
    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    default: Any = None
    required: bool = False

    def read(self, text: str) -> Any:
        """The value that ``text`` stands for. Raises NLAError where it stands for none."""
        if self.kind == "text":
            if len(text) > LONGEST_TEXT:
                raise self._refused(
                    text,
                    f"it has {len(text):,} characters",
                    f"Shorten it to {LONGEST_TEXT:,} characters",
                )
            return text
        if self.kind == "choice":
            if text not in self.choices:
                raise self._refused(
                    text, "it is none of the known values", f"Use one of {', '.join(self.choices)}"
                )
            return text
        if self.kind == "switch":
            if text not in ("0", "1", "true", "false"):
                raise self._refused(text, "it is neither true nor false", "Use true or false")
            return text in ("1", "true")
        return self._number(text)

    def _number(self, text: str) -> float | int:
        value: float | int
        try:
            # int() and float() also take underscores, blanks and the digits of every script.
            if not text.isascii() or "_" in text or text != text.strip() or len(text) > 40:
                raise ValueError(text)
            value = int(text) if self.kind == "integer" else float(text)
        except ValueError:
            what = "a whole number" if self.kind == "integer" else "a number"
            raise self._refused(text, f"it is not {what}", f"Give {what}") from None
        low = float(-LARGEST_INTEGER if self.low is None else self.low)
        high = float(LARGEST_INTEGER if self.high is None else self.high)
        if not low <= value <= high:  # nor is NaN
            raise self._refused(
                text, f"it lies outside {low:g} to {high:g}", "Give a number between these"
            )
        return value

    def _refused(self, text: str, why: str, fix: str) -> NLAError:
        return NLAError(f"The parameter {self.name}={shown(text)} cannot be used", why=why, fix=fix)


def read(pairs: Iterable[tuple[str, str]], known: Iterable[Param]) -> dict[str, Any]:
    """A value for every parameter in ``known``; an empty text counts as left out.

    Raises NLAError for an unknown or repeated parameter and for a value that cannot be used.
    """
    params = {param.name: param for param in known}
    values = {name: param.default for name, param in params.items()}
    seen: set[str] = set()
    for name, text in pairs:
        if name not in params:
            raise NLAError(
                f"There is no parameter {shown(name)} here",
                why="this route does not know it",
                fix=f"Use {', '.join(params)}" if params else "Leave it out; there are none",
            )
        if name in seen:
            raise NLAError(
                f"The parameter {name} was given more than once",
                why="each counts once",
                fix="Leave all but one out",
            )
        seen.add(name)
        if text:
            values[name] = params[name].read(text)
    for param in params.values():
        if param.required and values[param.name] is None:
            raise NLAError(
                f"The parameter {param.name} is missing",
                why="this route cannot answer without it",
                fix=f"Add {param.name}=… to the address",
            )
    return values


def shown(text: str) -> str:
    """``text`` for a message: short, and nothing in it that a terminal would act on."""
    kept = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:41])
    return f"“{kept if len(text) <= 40 else kept[:40] + '…'}”"


# ---- page tokens ---------------------------------------------------------------------------------


def token(version: str, question: Mapping[str, Any], after: str | int) -> str:
    """An opaque token for the page that follows the row ``after``."""
    body = json.dumps([version, _digest(question), after], separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")


def after(text: str, version: str, question: Mapping[str, Any], kind: type) -> Any:
    """The row, of type ``kind``, that a token names.

    Raises NLAError for anything but a token of this version and this question.
    """
    again = "Ask again without `next`, and follow the tokens from there"
    try:
        padded = text + "=" * (-len(text) % 4)
        body = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        of_version, digest, row = body
        fits: bool = type(row) is kind
        if not fits or (kind is int and not 0 <= row <= LARGEST_INTEGER):
            raise ValueError(row)
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise NLAError(
            f"The page token {shown(text)} cannot be used",
            why="it is not one that this server gave",
            fix=again,
        ) from None
    if of_version != version:
        raise NLAError(
            "The page token is of another version of the dataset",
            why=f"it was given for {shown(str(of_version))}, and {version} is the current one",
            fix=again,
        )
    if digest != _digest(question):
        raise NLAError(
            "The page token belongs to another question",
            why="filters or order are not those it was given for",
            fix="Repeat the parameters of the first page, or ask again without `next`",
        )
    return row


def _digest(question: Mapping[str, Any]) -> str:
    return sha256_json({name: value for name, value in question.items() if value is not None})[:12]
