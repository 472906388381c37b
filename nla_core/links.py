"""How a value stands in a link: reading it tolerantly, writing it one way.

Knows the kinds of values that links carry (ids, numbers, ranges, texts, choices, switches) and what
mail programs and chat windows do to them. Does not know which fields a page has. The decision a
reader would question: reading never raises; it returns the best value it can and adds one sentence
for what it had to drop or mend, because a mangled link is a person's problem to see, not a
program's to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

ID_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
LONGEST_TEXT: Final = 200
LARGEST_INDEX: Final = 10_000_000

# Mail programs and chat windows glue these to the end of a link, or put them around it.
_GLUED: Final = " \t\r\n.,;:!?)]}>\"'`*…”’"
_OPENING: Final = " \t\r\n([{<\"'`*“‘"
# What advertising and mail systems append to every link; saying so would only be noise.
_TRACKING: Final = re.compile(r"utm_\w+|fbclid|gclid|mc_[ce]id|ref|source")

Problems = list[str]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a link: its parameter, what it is when absent, and both directions.

    ``write`` is not asked for the default, which never stands in a link.
    """

    param: str
    default: Any
    read: Callable[[str, Problems], Any]
    write: Callable[[Any], str] = str


def identifier(param: str, what: str) -> Field:
    def read(value: str, problems: Problems) -> str | None:
        text = unglued(value)
        if not text or ID_FORM.fullmatch(text):
            return text or None
        problems.append(
            f"“{short(text)}” cannot be the id of a {what}; ids are letters, digits, "
            "“-”, “_” and “.”."
        )
        return None

    return Field(param, None, read)


def index(param: str, name: str, default: int | None = None) -> Field:
    def read(value: str, problems: Problems) -> int | None:
        text = unglued(value)
        if not text:
            return default
        if (number := _whole(text)) is not None:
            return number
        problems.append(f"The {name} “{short(text)}” is not a whole number, so it was left out.")
        return default

    return Field(param, default, read)


def span(param: str, name: str) -> Field:
    """Two positions, first and last, both included: ``12-40``."""

    def read(value: str, problems: Problems) -> tuple[int, int] | None:
        text = unglued(value)
        if not text:
            return None
        ends = [_whole(part.strip()) for part in re.split("[-–]", text)]
        if len(ends) == 1:
            ends *= 2
        if len(ends) == 2 and ends[0] is not None and ends[1] is not None:
            return (min(ends[0], ends[1]), max(ends[0], ends[1]))
        problems.append(f"The {name} “{short(text)}” is not of the form 12-40; it was left out.")
        return None

    return Field(param, None, read, lambda value: f"{value[0]}-{value[1]}")


def number(param: str, name: str, low: float, high: float) -> Field:
    """A decimal number in [low, high], two decimals; None when absent."""

    def read(value: str, problems: Problems) -> float | None:
        text = unglued(value).replace("−", "-")
        if not text:
            return None
        if re.fullmatch(r"-?\d{1,9}(\.\d{0,9})?", text, re.ASCII) and low <= float(text) <= high:
            return round(float(text), 2) + 0.0  # no minus zero
        problems.append(
            f"The {name} “{short(text)}” is not a number from {low:g} to {high:g}; it was left out."
        )
        return None

    return Field(param, None, read, lambda value: f"{value:.2f}".rstrip("0").rstrip("."))


def free_text(
    param: str, name: str, default: str | None = "", longest: int = LONGEST_TEXT
) -> Field:
    def read(value: str, problems: Problems) -> str | None:
        text = "".join(c for c in value if c.isprintable()).strip()
        if len(text) > longest:
            problems.append(f"The {name} is longer than {longest} characters and was cut.")
        return text[:longest].rstrip() or default

    return Field(param, default, read)


def long_text(param: str, name: str, longest: int) -> Field:
    """A text of several lines."""

    def read(value: str, problems: Problems) -> str:
        text = "".join(c for c in value.replace("\r\n", "\n") if c.isprintable() or c == "\n")
        if len(text) > longest:
            problems.append(f"The {name} is longer than {longest} characters and was cut.")
        return text[:longest]

    return Field(param, "", read)


def numbers(
    param: str, name: str, default: tuple[float, ...], low: float, high: float, most: int
) -> Field:
    """Decimal numbers in [low, high], parted by commas, two decimals each, none twice."""

    def read(value: str, problems: Problems) -> tuple[float, ...]:
        found: dict[float, None] = {}
        for part in value.replace("−", "-").split(","):
            text = unglued(part)
            if (
                re.fullmatch(r"-?\d{1,9}(\.\d{0,9})?", text, re.ASCII)
                and low <= float(text) <= high
            ):
                found[round(float(text), 2) + 0.0] = None
            elif text:
                problems.append(
                    f"The {name} “{short(text)}” is not a number from {low:g} to {high:g}; it was "
                    "left out."
                )
        return tuple(found)[:most] or default

    return Field(
        param,
        default,
        read,
        lambda value: ",".join(f"{x:.2f}".rstrip("0").rstrip(".") for x in value),
    )


def choice(param: str, options: Sequence[str], default: str | None, sentence: str) -> Field:
    """One of a closed set, whatever its case; ``sentence`` says that {value} is none of them."""

    def read(value: str, problems: Problems) -> str | None:
        text = unglued(value).lower()
        if text in options:
            return text
        if text:
            problems.append(sentence.format(value=short(text)))
        return default

    return Field(param, default, read)


def switch(param: str) -> Field:
    def read(value: str, problems: Problems) -> bool:
        text = unglued(value).lower()
        if text in ("1", "true", "yes", "on"):
            return True
        if text not in ("", "0", "false", "no", "off"):
            problems.append(
                f"The field “{param}” is 0 or 1, not “{short(text)}”; it was read as 0."
            )
        return False

    return Field(param, False, read, lambda _: "1")


def known(params: Mapping[str, str], names: Sequence[str], problems: Problems) -> dict[str, str]:
    """The fields of ``params`` that mean something here; each of the others becomes a sentence."""
    fields: dict[str, str] = {}
    for name, value in params.items():
        meant = name.strip().lower()
        while meant.startswith("amp;"):  # &amp; pasted from the source of a page
            meant = meant.removeprefix("amp;")
        if meant in names:
            fields.setdefault(meant, value)
        elif not _TRACKING.fullmatch(meant):
            problems.append(f"The link has a field “{short(name)}” that means nothing here.")
    return fields


def written(values: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, str]:
    """Parameters for ``values`` by attribute: in the order of ``fields``, defaults left out."""
    return {
        field.param: field.write(values[attribute])
        for attribute, field in fields.items()
        if values[attribute] != field.default
    }


def unglued(value: str | None) -> str:
    return (value or "").lstrip(_OPENING).rstrip(_GLUED)


def short(text: str) -> str:
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= 40 else shown[:39] + "…"


def _whole(text: str) -> int | None:
    # isdecimal alone admits the digits of every script; a link of ours holds only these.
    good = text.isascii() and text.isdecimal() and int(text[:12]) <= LARGEST_INDEX
    return int(text) if good else None
