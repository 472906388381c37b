"""A search as it is asked: the query, its filters as a mask over readings, what has to be open."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from enum import StrEnum
from typing import Literal
from typing import TypeVar
from typing import get_args
from nla_core.errors import NLAError
from nla_core.schema import Flag
from nla_core.schema import Role
import threading
from collections import OrderedDict
import numpy as np
from nla_core.data.dataset import Dataset
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from nla_core.data.fulltext import FullText
from nla_core.data.fulltext import Table
from nla_core.data.vectors import VectorIndex
from nla_core.data.vectors import open_index
from nla_core.data.fulltext import Words
from nla_core.data.fulltext import read_words

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


KEPT_MASKS = 16
ROLES = [*Role]
FLAGS = [*Flag]


class Facets:
    """Columns by reading: ``transcript`` (a row of the transcripts), ``position``, ``sample``,
    ``role`` (place in ROLES), ``fve``, ``flags`` (a bit each, in the order of FLAGS).

    ``first[t]`` is the first reading of transcript t, ``first[t + 1]`` the end of its readings.
    """

    def __init__(self, dataset: Dataset) -> None:
        columns = dataset.reading_columns()
        self.transcript, self.position = columns["transcript"], columns["position"]
        self.sample, self.role = columns["sample"], columns["role"]
        self.fve, self.flags = columns["fve"], columns["flags"]
        transcripts = dataset.transcript_columns()
        self.ids: list[str] = transcripts["transcript_id"].tolist()
        self.titles: list[str] = transcripts["title"].tolist()
        self.categories = transcripts["category"].to_numpy(object)
        self._tags = [frozenset(tags) for tags in transcripts["tags"]]
        self.number = {name: row for row, name in enumerate(self.ids)}
        self.first = np.searchsorted(self.transcript, np.arange(len(self.ids) + 1))
        self._masks: OrderedDict[Filters, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.transcript)

    def transcripts(self, filters: Filters) -> np.ndarray:
        """[transcript] bool: those of the wanted categories and tags."""
        keep = np.ones(len(self.ids), dtype=bool)
        if filters.categories:
            keep &= np.isin(self.categories, filters.categories)
        if filters.tags:
            wanted = frozenset(filters.tags)
            keep &= np.fromiter((wanted <= tags for tags in self._tags), bool, len(self.ids))
        return keep

    def mask(self, filters: Filters) -> np.ndarray | None:
        """[reading] bool, not to be written to; None where nothing is filtered."""
        if not filters.active:
            return None
        with self._lock:
            if (known := self._masks.get(filters)) is not None:
                self._masks.move_to_end(filters)
                return known
        keep = self._mask(filters)
        keep.flags.writeable = False
        with self._lock:
            self._masks[filters] = keep
            while len(self._masks) > KEPT_MASKS:
                self._masks.popitem(last=False)
        return keep

    def _mask(self, filters: Filters) -> np.ndarray:
        keep = self.transcripts(filters)[self.transcript]
        if filters.roles:
            keep &= np.isin(self.role, [ROLES.index(role) for role in filters.roles])
        for flags, wanted in ((filters.flags, True), (filters.no_flags, False)):
            for flag in flags:
                keep &= ((self.flags >> FLAGS.index(flag) & 1) == 1) == wanted
        if filters.fve_min is not None:
            keep &= self.fve >= filters.fve_min
        low, high = filters.positions
        if low is not None:
            keep &= self.position >= low
        if high is not None:
            keep &= self.position <= high
        return keep

    def flags_of(self, row: int) -> tuple[str, ...]:
        return tuple(flag for bit, flag in enumerate(FLAGS) if self.flags[row] >> bit & 1)


Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts to [text, d] unit vectors, by the encoder that made the dataset's vectors."""

UNLIKE = 0.6
"""Weight of what is pushed away, against 1 for what is looked for."""

KEPT_PHRASES = 512
TELLING_SHARE = 0.1


class Corpus:
    """Safe to share between threads; the derived files are built where they are missing."""

    def __init__(self, dataset: Dataset, embed: Embed, encoder: str | None = None) -> None:
        self.dataset = dataset
        self.facets = Facets(dataset)
        self.text = FullText(dataset)
        transcripts, roles = self.text.turn_columns()
        self.turn_transcripts = transcripts
        self._turn_roles = np.array([ROLES.index(role) for role in roles], dtype=np.int8)
        self._embed, self._encoder = embed, encoder
        self._index: VectorIndex | None = None
        self._phrases: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self.vectors = dataset.explanation_vectors()

    @property
    def index(self) -> VectorIndex:
        with self._opening:
            if self._index is None:
                self._index = open_index(self.dataset)
            return self._index

    def words(self, query: Query) -> Words:
        """How the text of ``query`` is read. What must be unspoken is matched in whole words, for
        a word that is half typed says nothing about what was said."""
        return read_words(query.text, typing=not query.unspoken)

    def telling(self, words: Words) -> Words:
        """``words`` without those wanted terms that stand in a tenth of all explanations."""
        most = TELLING_SHARE * len(self.facets)
        wanted = (term for term in words.wanted if self.text.documents(term.text)[0] <= most)
        return replace(words, wanted=tuple(wanted))

    # ---- masks -----------------------------------------------------------------------------------

    def mask(self, query: Query, words: Words) -> np.ndarray | None:
        """[reading] bool of what filters and "unspoken" leave; None for all. Minus words are left
        to what searches: a common one would be a million rows to fetch."""
        mask = self.facets.mask(query.filters)
        if not query.unspoken or not words.wanted:
            return mask
        unspoken: np.ndarray = ~self.spoken(words)[self.facets.transcript]
        return unspoken if mask is None else mask & unspoken

    def spoken(self, words: Words) -> np.ndarray:
        """[transcript] bool: every wanted word and phrase stands somewhere in its visible text."""
        spoken = np.ones(len(self.facets.ids), dtype=bool)
        for term in words.wanted:
            rows = self.text.matches(Table.VISIBLE, term.fts, len(self.turn_transcripts))
            here = np.zeros(len(spoken), dtype=bool)
            here[self.turn_transcripts[rows]] = True
            spoken &= here
        return spoken

    def turn_mask(self, query: Query) -> np.ndarray | None:
        """[turn] bool of what roles, categories and tags leave; None for all."""
        filters = query.filters
        if not filters.active:
            return None
        mask = self.facets.transcripts(filters)[self.turn_transcripts]
        if filters.roles:
            mask &= np.isin(self._turn_roles, [ROLES.index(role) for role in filters.roles])
        return mask

    # ---- directions ------------------------------------------------------------------------------

    def direction(self, query: Query, words: Words) -> np.ndarray | None:
        """[d] float32 to rank readings by; None where there is nothing to be like.

        Raises NLAError for an unknown reading, or where phrases cannot be embedded.
        """
        parts = []
        if query.like is not None:
            parts.append(self.vectors[self.liked(query.like)].astype(np.float32))
        if words.plain.strip():
            parts.append(self.phrase(words.plain))
        if not parts:
            return None
        towards = np.sum(parts, axis=0)
        towards /= max(float(np.linalg.norm(towards)), 1e-6)
        if unlike := read_words(query.unlike, typing=False).plain.strip():
            towards = towards - UNLIKE * self.phrase(unlike)
        return np.asarray(towards, dtype=np.float32)

    def liked(self, reading_id: str) -> int:
        """The row of a reading that others are to be like. Raises NLAError if there is none."""
        row = self.text.row_of(reading_id)
        if row is None:
            raise NLAError(
                f"There is no reading {reading_id[:40]!r} to find others like",
                why="this version of the dataset has none of that id",
                fix="Open a reading and ask for more like it there",
            )
        return row

    def phrase(self, text: str) -> np.ndarray:
        """[d] float32 unit vector of a phrase; remembered, for people page and type."""
        with self._lock:
            if (known := self._phrases.get(text)) is not None:
                self._phrases.move_to_end(text)
                return known
        made = self.dataset.manifest.settings.get("embedder")
        if self._encoder is not None and made is not None and made != self._encoder:
            raise NLAError(
                "This dataset cannot be searched by meaning here",
                why=f"its vectors were made by {made}, and the encoder at hand is {self._encoder}",
                fix="Search for words, or publish the dataset again with this encoder",
            )
        vector = np.asarray(self._embed([text]), dtype=np.float32)[0]
        if vector.shape != self.vectors.shape[1:]:
            raise NLAError(
                "This dataset cannot be searched by meaning here",
                why=f"its vectors have {self.vectors.shape[1]} dimensions, and the encoder at hand "
                f"makes {len(vector)}",
                fix="Search for words, or publish the dataset again with this encoder",
            )
        with self._lock:
            self._phrases[text] = vector
            while len(self._phrases) > KEPT_PHRASES:
                self._phrases.popitem(last=False)
        return vector
