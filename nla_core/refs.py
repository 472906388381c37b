"""What a link is: one token of one transcript, and the view of the Explore page around it.

Knows the fields of a view, their one URL form, and how to read a form that was cut, escaped or
mistyped on its way here. Does not know which transcripts exist. The decision a reader would
question: parsing never raises; it returns the best view it can and one sentence for each thing it
had to drop or mend, because a mangled link is a person's problem to see, not a program's to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args
from urllib.parse import parse_qsl, urlencode

SortKey = Literal[
    "title",
    "category",
    "n_tokens",
    "n_readings",
    "mean_fve",
    "flagged_share",
    "max_surprisal",
]

ID_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
LONGEST_TEXT: Final = 200
LARGEST_INDEX: Final = 10_000_000

# Mail programs and chat windows glue these to the end of a link, or put them around it.
_GLUED: Final = " \t\r\n.,;:!?)]}>\"'`*…”’"
_OPENING: Final = " \t\r\n([{<\"'`*“‘"
# What advertising and mail systems append to every link; saying so would only be noise.
_TRACKING: Final = re.compile(r"utm_\w+|fbclid|gclid|mc_[ce]id|ref|source")


@dataclass(frozen=True, slots=True)
class TokenRef:
    """One reading: a transcript, a token position in it (from 0), a sample (from 0)."""

    transcript: str
    position: int
    sample: int = 0

    @property
    def query(self) -> str:
        """The query part of a link to this token, without the question mark."""
        return self.view.query

    @property
    def view(self) -> ViewState:
        return ViewState(transcript=self.transcript, position=self.position, sample=self.sample)


@dataclass(frozen=True, slots=True)
class ViewState:
    """Everything of the Explore page that a link carries; whatever is not here is not state.

    ``category``, ``contains``, ``sort`` and ``descending`` are the list of transcripts, ``markup``
    shows the tokens that the chat template adds. A position or sample needs a transcript, a sample
    needs a position; ``normal`` drops what hangs in the air.
    """

    transcript: str | None = None
    position: int | None = None
    sample: int = 0
    category: str | None = None
    contains: str = ""
    sort: SortKey = "category"
    descending: bool = False
    markup: bool = False

    @property
    def token(self) -> TokenRef | None:
        if self.transcript is None or self.position is None:
            return None
        return TokenRef(self.transcript, self.position, self.sample)

    def normal(self) -> ViewState:
        position = self.position if self.transcript is not None else None
        return replace(self, position=position, sample=self.sample if position is not None else 0)

    def at(self, position: int | None, sample: int = 0) -> ViewState:
        """The same view with another token locked, or none."""
        return replace(self, position=position, sample=sample).normal()

    def opened(self, transcript: str | None) -> ViewState:
        """The same list with another transcript opened and no token locked."""
        return replace(self, transcript=transcript, position=None, sample=0)

    def params(self) -> dict[str, str]:
        """The one URL form: fixed names in fixed order, defaults left out."""
        view = self.normal()
        found = {
            "t": view.transcript,
            "p": None if view.position is None else str(view.position),
            "s": str(view.sample) if view.sample else None,
            "c": view.category,
            "q": view.contains or None,
            "sort": None if view.sort == _DEFAULT.sort else view.sort,
            "desc": "1" if view.descending else None,
            "markup": "1" if view.markup else None,
        }
        return {name: value for name, value in found.items() if value is not None}

    @property
    def query(self) -> str:
        return urlencode(self.params())


_DEFAULT: Final = ViewState()
PARAMS: Final = ("t", "p", "s", "c", "q", "sort", "desc", "markup")
"""Every query parameter a link may carry; ``ViewState.params`` writes no other."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A view, and in plain words what of the link could not be used as it stood.

    ``wanted`` is the transcript that was asked for when its id has no possible form, so that the
    page can still offer the nearest one.
    """

    view: ViewState
    problems: tuple[str, ...] = ()
    wanted: str | None = None


def parse_query(query: str) -> Parsed:
    """``parse`` for the text after the question mark; the last of repeated fields counts."""
    return parse(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))


def parse(params: Mapping[str, str]) -> Parsed:
    """The view that ``params`` stand for. Never raises, whatever the values are."""
    problems: list[str] = []
    fields = _known_fields(params, problems)
    transcript, wanted = _transcript(fields.get("t"), problems)
    position = _index(fields.get("p"), "position", problems)
    sample = _index(fields.get("s"), "sample", problems) or 0
    if position is not None and transcript is None and wanted is None:
        problems.append("The link names a position but no transcript, so no token is shown.")
    elif sample and position is None:
        problems.append("The link names a sample but no position, so no token is shown.")
    view = ViewState(
        transcript=transcript,
        position=position,
        sample=sample,
        category=_text(fields.get("c"), "category", problems) or None,
        contains=_text(fields.get("q"), "filter", problems),
        sort=_sort(fields.get("sort"), problems),
        descending=_switch(fields.get("desc"), "desc", problems),
        markup=_switch(fields.get("markup"), "markup", problems),
    )
    return Parsed(view.normal(), tuple(problems), wanted)


def _known_fields(params: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in params.items():
        known = name.strip().lower()
        while known.startswith("amp;"):  # &amp; pasted from the source of a page
            known = known.removeprefix("amp;")
        if known in PARAMS:
            fields.setdefault(known, value)
        elif not _TRACKING.fullmatch(known):
            problems.append(f"The link has a field “{_short(name)}” that means nothing here.")
    return fields


def _transcript(value: str | None, problems: list[str]) -> tuple[str | None, str | None]:
    """The id, and what was asked for where that can be no id."""
    text = _unglued(value)
    if not text:
        if value is not None:
            problems.append("The link names no transcript: its field “t” is empty.")
        return None, None
    if ID_FORM.fullmatch(text):
        return text, None
    problems.append(
        f"“{_short(text)}” cannot be the id of a transcript; ids are letters, digits, "
        "“-”, “_” and “.”."
    )
    return None, text[:LONGEST_TEXT]


def _index(value: str | None, name: str, problems: list[str]) -> int | None:
    text = _unglued(value)
    if not text:
        return None
    # isdecimal alone admits the digits of every script; a link of ours holds only these.
    if text.isascii() and text.isdecimal() and int(text[:12]) <= LARGEST_INDEX:
        return int(text)
    problems.append(f"The {name} “{_short(text)}” is not a whole number, so it was left out.")
    return None


def _text(value: str | None, name: str, problems: list[str]) -> str:
    text = "".join(c for c in value or "" if c.isprintable()).strip()
    if len(text) > LONGEST_TEXT:
        problems.append(f"The {name} is longer than {LONGEST_TEXT} characters and was cut.")
    return text[:LONGEST_TEXT].rstrip()


def _sort(value: str | None, problems: list[str]) -> SortKey:
    text = _unglued(value).lower()
    for key in get_args(SortKey):
        if key == text:
            return key
    if text:
        problems.append(
            f"Transcripts cannot be sorted by “{_short(text)}”; sorting by {_DEFAULT.sort} instead."
        )
    return _DEFAULT.sort


def _switch(value: str | None, name: str, problems: list[str]) -> bool:
    text = _unglued(value).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text not in ("", "0", "false", "no", "off"):
        problems.append(f"The field “{name}” is 0 or 1, not “{_short(text)}”; it was read as 0.")
    return False


def _unglued(value: str | None) -> str:
    return (value or "").lstrip(_OPENING).rstrip(_GLUED)


def _short(text: str) -> str:
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= 40 else shown[:39] + "…"
