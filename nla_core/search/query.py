"""What is searched for, what comes back, and the cursor between two pages of it.

Knows these as values. Does not know how hits are found. The decision a reader would question: a
page is continued after the last hit that was seen and not at a number, so the cursor carries that
hit's row, and is refused where the query or the dataset version is another one.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeVar, get_args

from nla_core.errors import NLAError
from nla_core.schema import Flag, Role

LARGEST_FVE = 1e6
LAST_POSITION = 2**31 - 1

Mode = Literal["hybrid", "keyword", "semantic"]
Within = Literal["explanations", "visible"]

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Filters:
    """Each that is set must hold. ``flags``: all of them wanted; ``no_flags``: none of them.
    ``positions``: first and last, both included; None is open. Answers only is a role."""

    roles: tuple[Role, ...] = ()
    categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    no_flags: tuple[Flag, ...] = ()
    fve_min: float | None = None
    positions: tuple[int | None, int | None] = (None, None)

    def __post_init__(self) -> None:
        """Raises NLAError for a role or flag that does not exist, or a number that is none."""
        for name, closed in (("roles", Role), ("flags", Flag), ("no_flags", Flag)):
            object.__setattr__(self, name, tuple(_member(closed, v) for v in getattr(self, name)))
        if self.fve_min is not None and not abs(self.fve_min) <= LARGEST_FVE:
            raise NLAError(
                f"Readings cannot be filtered by an FVE of {self.fve_min}",
                why="FVE is a number of at most 1, and rarely below -4",
                fix="Use a floor such as 0 or 0.5",
            )
        low, high = (
            None if end is None else min(max(end, -1), LAST_POSITION) for end in self.positions
        )
        object.__setattr__(self, "positions", (low, high))

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the fields that are set."""
        empty = Filters()
        return tuple(name for name in self.__slots__ if getattr(self, name) != getattr(empty, name))


@dataclass(frozen=True, slots=True)
class Query:
    """``unlike`` is a phrase whose meaning is pushed away, ``like`` a reading whose neighbours are
    wanted, ``unspoken`` keeps readings that say what the visible text does not.

    ``per_transcript`` caps the hits of each transcript. Text may be anything at all.
    """

    text: str = ""
    mode: Mode = "hybrid"
    within: Within = "explanations"
    unlike: str = ""
    like: str | None = None
    unspoken: bool = False
    filters: Filters = field(default_factory=Filters)
    per_transcript: int | None = None

    def __post_init__(self) -> None:
        for name, closed in (("mode", get_args(Mode)), ("within", get_args(Within))):
            if (value := getattr(self, name)) not in closed:
                raise NLAError(
                    f"There is no search {name} {str(value)[:40]!r}",
                    why=f"it is one of {', '.join(closed)}",
                    fix=f"Use one of them, or leave {name} out",
                )

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self).encode("utf-8", "replace")).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Hit:
    """A reading, or a message turn where visible text was searched.

    ``row`` is that of the readings file, or of the turn. ``spans`` are character ranges of ``text``
    to light. ``ranks`` has the place, from 1, that each method gave it; ``score`` is the cosine
    for search by meaning alone, else the sum of 1 / (60 + rank). ``similarity`` is the cosine where
    it was computed. Turns have no reading, sample, fve or flags; their ``position`` is that of the
    first token that matches, and ``positions`` has one a span.
    """

    row: int
    transcript_id: str
    title: str
    category: str
    score: float
    ranks: Mapping[str, int]
    similarity: float | None = None
    position: int = 0
    role: str = ""
    text: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    reading_id: str | None = None
    sample: int | None = None
    fve: float | None = None
    flags: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Near:
    """Another query that finds something: what it is, in words, and how many hits it has."""

    label: str
    query: Query
    hits: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Results:
    """One page of hits.

    ``total`` counts all hits, or is a lower bound where ``exact`` is False; ``found`` counts those
    of each method, which may share some; ``categories`` counts all by category, most first.
    ``after`` continues; None on the last page. ``notes`` say what was read differently from what
    was typed. ``why`` and ``near`` are filled where no words were found.
    """

    hits: tuple[Hit, ...]
    total: int
    exact: bool
    found: Mapping[str, int]
    categories: Mapping[str, int]
    after: str | None
    notes: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    near: tuple[Near, ...] = ()


def _member(closed: type[E], value: str) -> E:
    try:
        return closed(value)
    except ValueError as error:
        raise NLAError(
            f"There is no {closed.__name__.lower()} {str(value)[:40]!r}",
            why=f"it is one of {', '.join(closed)}",
            fix="Use one of them, or leave the filter out",
        ) from error


def make_cursor(version: str, query: Query, row: int) -> str:
    """An opaque text for links and for the JSON interface."""
    content = json.dumps([version, query.fingerprint, row], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def read_cursor(cursor: str, version: str, query: Query) -> int:
    """The row after which to go on. Raises NLAError for a cursor of anything else."""
    try:
        content = base64.urlsafe_b64decode(cursor[:400] + "=" * (-len(cursor[:400]) % 4))
        of_version, of_query, row = json.loads(content)
        fits = (of_version, of_query) == (version, query.fingerprint) and type(row) is int
    except (ValueError, TypeError):
        fits, row = False, 0
    if not fits:
        raise NLAError(
            "This page of results cannot be continued",
            why="its mark is damaged, or belongs to another search or version of the dataset",
            fix="Search again from the first page",
        )
    return int(row)
