"""A search as it is answered: candidates by words and by meaning, fused, in pages; why nothing came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
import numpy as np
from nla_core.data.fulltext import FullText
from nla_core.data.fulltext import Table
from nla_core.data.fulltext import Term
from nla_core.data.fulltext import Words
from nla_core.errors import NLAError
from nla_core.data.query import Corpus
from nla_core.data.query import Query
from nla_core.data.fulltext import lit
import difflib
from collections.abc import Callable
from collections.abc import Iterator
from nla_core.data.query import Filters
from nla_core.data.query import Near
import threading
from collections import OrderedDict
from collections.abc import Sequence
from nla_core.data.query import Embed
from nla_core.data.query import ROLES
from nla_core.data.query import Hit
from nla_core.data.query import Results
from nla_core.data.query import make_cursor
from nla_core.data.query import read_cursor
from nla_core.data.dataset import Dataset
from nla_core.data.fulltext import Spans
from nla_core.data.vectors import scores_of

POOL = 2_000
"""Matches that are ranked; a search with more says so."""

PHRASE_DOCUMENTS = 150_000
"""Where its words stand in more texts than this together, a phrase nobody asked for is not looked
for: finding that "at next" stands nowhere takes 0.3 s at a million readings."""

RRF = 60
NEIGHBOURS = 2
"""More like this: readings this many positions apart count as one run, and one of it is shown."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """``rows`` best first, with ``scores``; ``ranks`` of each method by row, from 1; ``cosines`` by
    row. Where ``exact`` is False there are more hits than these."""

    rows: np.ndarray
    scores: np.ndarray
    exact: bool
    ranks: Mapping[str, Mapping[int, int]]
    cosines: Mapping[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def by_words(
    text: FullText,
    table: Table,
    words: Words,
    mask: np.ndarray | None,
    fidelity: np.ndarray | None = None,
) -> tuple[np.ndarray, bool]:
    """(rows that hold all wanted words, best first, and whether those are all).

    ``fidelity`` is [row], higher is better; equal rows keep their order.
    """
    found = [np.empty(0, dtype=np.int64)]
    for match in _from_exact_to_loose(text, table, words):
        rows = text.matches(table, match, POOL, mask)
        rows = rows[~np.isin(rows, np.concatenate(found))]
        if fidelity is not None:
            rows = rows[np.lexsort((rows, -fidelity[rows]))]
        found.append(rows)
        if sum(map(len, found)) >= POOL:
            return np.concatenate(found)[:POOL], False
    return np.concatenate(found), True


def _from_exact_to_loose(text: FullText, table: Table, words: Words) -> list[str]:
    """FTS5 expressions; the last one is what was asked for, those before are found in it."""
    if not words.wanted:
        return []
    whole = tuple(Term(term.text) for term in words.wanted)
    steps = [words.match]
    if any(term.prefix for term in words.wanted):
        steps.insert(0, replace(words, wanted=whole).match)
    together = sum(text.documents(term.text)[table is Table.VISIBLE] for term in whole)
    if len(whole) > 1 and together <= PHRASE_DOCUMENTS:
        steps.insert(0, words.without(Term(" ".join(term.text for term in whole)).fts))
    return steps


def fused(lists: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Reciprocal rank fusion: (rows, scores), best first, equal ones in row order."""
    rows = np.concatenate(list(lists.values()))
    parts = [1 / (RRF + 1 + np.arange(len(one))) for one in lists.values()]
    unique, place = np.unique(rows, return_inverse=True)
    scores = np.bincount(place, weights=np.concatenate(parts), minlength=len(unique))
    order = np.lexsort((unique, -scores))
    return unique[order].astype(np.int64), scores[order]


def ranks(rows: np.ndarray) -> dict[int, int]:
    return {int(row): rank for rank, row in enumerate(rows, start=1)}


def capped(rows: np.ndarray, group: np.ndarray, most: int | None) -> np.ndarray:
    """[row] bool: the first ``most`` rows of each group; ``group`` is aligned with ``rows``."""
    if most is None:
        return np.ones(len(rows), dtype=bool)
    seen: Counter[int] = Counter()
    keep = np.zeros(len(rows), dtype=bool)
    for place, one in enumerate(group.tolist()):
        seen[one] += 1
        keep[place] = seen[one] <= most
    return keep


def one_of_each_run(
    rows: np.ndarray, transcript: np.ndarray, position: np.ndarray, liked: int
) -> np.ndarray:
    """[row] bool: rows without near neighbours of ``liked`` or of a better row.

    ``transcript`` and ``position`` are by reading, not aligned with ``rows``.
    """
    taken: dict[int, list[int]] = {int(transcript[liked]): [int(position[liked])]}
    keep = np.zeros(len(rows), dtype=bool)
    for place, row in enumerate(rows.tolist()):
        kept = taken.setdefault(int(transcript[row]), [])
        here = int(position[row])
        if all(abs(here - other) > NEIGHBOURS for other in kept):
            kept.append(here)
            keep[place] = True
    return keep


NEAREST = 200
MOST_LOOKED_AT = 16 * NEAREST
"""Of the nearest rows, where many hold a word that was to be left out."""

LIKE_FACTOR = 4
"""More like this looks at this many times as many, for most of them are in one run."""


def find(corpus: Corpus, query: Query, words: Words) -> Ranked:
    """All hits of ``query``. Raises NLAError where nothing but meaning was asked for and that
    cannot be searched, and for an unknown reading to be like."""
    if query.within == "visible":
        return _turns(corpus, query, words)
    mask = corpus.mask(query, words)
    lists: dict[str, np.ndarray] = {}
    cosines: dict[int, float] = {}
    notes: list[str] = []
    exact = True
    if query.mode != "semantic" and words.wanted:
        rows, exact = by_words(
            corpus.text, Table.EXPLANATIONS, words, mask, fidelity=corpus.facets.fve
        )
        lists["keyword"] = rows
        if not exact:
            notes.append(
                f"More than {POOL:,} readings hold these words; the best of the first {POOL:,} "
                "are shown. Another word narrows it"
            )
    if query.mode != "keyword" or query.like is not None:
        near, scores, said = _meaning(corpus, query, words, mask, alone="keyword" not in lists)
        notes += said
        if near is not None:
            lists["semantic"] = near
            cosines = dict(zip(near.tolist(), scores.tolist(), strict=True))
            exact = exact and len(near) < NEAREST
    if not lists:
        order, exact = _browse(corpus, Table.EXPLANATIONS, words, mask)
        scores = np.zeros(len(order))
    elif list(lists) == ["semantic"]:
        order, scores = lists["semantic"], np.array([*cosines.values()])
    else:
        order, scores = fused(lists)
    kept = capped(order, corpus.facets.transcript[order], query.per_transcript)
    if query.like is not None:
        liked = corpus.liked(query.like)
        kept &= one_of_each_run(order, corpus.facets.transcript, corpus.facets.position, liked)
    found = {name: ranks(rows) for name, rows in lists.items()}
    return Ranked(order[kept], scores[kept], exact, found, cosines, tuple(notes))


def _meaning(
    corpus: Corpus, query: Query, words: Words, mask: np.ndarray | None, *, alone: bool
) -> tuple[np.ndarray | None, np.ndarray, list[str]]:
    """(rows best first or None, their inner products, what is to be said)."""
    nothing = np.empty(0, dtype=np.float32)
    try:
        direction = corpus.direction(query, words)
    except NLAError as error:
        if alone or query.like is not None:
            raise
        return None, nothing, [f"Only words were searched for, not their meaning. {error}"]
    if direction is None:
        said = "Say what to look for, beside what it should not be like"
        return None, nothing, [said] if query.unlike else []
    most = NEAREST * LIKE_FACTOR if query.like is not None else NEAREST
    rows, scores = _without(corpus, words, direction, most, mask)
    return rows, scores, [corpus.index.note] if corpus.index.note else []


def _without(
    corpus: Corpus, words: Words, direction: np.ndarray, most: int, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest rows that hold no unwanted word; more are looked at until there are enough."""
    asked = most
    while True:
        rows, scores = corpus.index.nearest(direction, asked, mask)
        if not words.unwanted:
            return rows, scores
        known = corpus.text.readings(rows.tolist())
        lights = lit([known[row][1] for row in rows.tolist()], words.unwanted_match)
        clean = np.array([not spans for spans in lights], dtype=bool)
        if clean.sum() >= most or len(rows) < asked or asked >= MOST_LOOKED_AT:
            return rows[clean][:most], scores[clean][:most]
        asked *= 4


def _browse(
    corpus: Corpus, table: Table, words: Words, mask: np.ndarray | None
) -> tuple[np.ndarray, bool]:
    """(rows in file order, whether those are all): nothing is looked for, so what filters and
    minus words leave, if there are any."""
    total = len(corpus.facets) if table is Table.EXPLANATIONS else len(corpus.turn_transcripts)
    found = [np.empty(0, dtype=np.int64)]
    for start in range(0, total if mask is not None or words.unwanted else 0, POOL):
        end = min(start + POOL, total)
        keep = np.ones(end - start, dtype=bool) if mask is None else mask[start:end].copy()
        unwanted = corpus.text.matches(table, words.unwanted_match, POOL, start=start, end=end)
        keep[unwanted - start] = False
        found.append(start + np.flatnonzero(keep))
        if sum(map(len, found)) > POOL:
            return np.concatenate(found)[:POOL], False
    return np.concatenate(found), True


def _turns(corpus: Corpus, query: Query, words: Words) -> Ranked:
    notes = []
    if query.mode == "semantic" or query.like or query.unlike or query.unspoken:
        notes.append("Visible text is searched by its words only")
    if {"flags", "no_flags", "fve_min", "positions"} & {*query.filters.active}:
        notes.append("Fidelity, flags and positions filter readings, not visible text")
    mask = corpus.turn_mask(query)
    if words.wanted:
        rows, exact = by_words(corpus.text, Table.VISIBLE, words, mask)
    else:
        rows, exact = _browse(corpus, Table.VISIBLE, words, mask)
    rows = rows[capped(rows, corpus.turn_transcripts[rows], query.per_transcript)]
    scores = 1 / (RRF + 1 + np.arange(len(rows)))
    return Ranked(rows, scores, exact, {"keyword": ranks(rows)}, {}, tuple(notes))


NEAR_WORDS = 3
COMPARED_WORDS = 3_000

_FILTER_NAMES = {
    "roles": "role",
    "categories": "category",
    "tags": "tags",
    "flags": "wanted flags",
    "no_flags": "flags left out",
    "fve_min": "fidelity floor",
    "positions": "positions",
}

Find = Callable[[Query], Ranked]


def explain(
    corpus: Corpus, query: Query, words: Words, find: Find
) -> tuple[tuple[str, ...], tuple[Near, ...]]:
    """(sentences, queries that find something). ``query`` found nothing."""
    if len(corpus.facets) == 0:
        return ("This dataset has no readings",), ()
    if not (words.wanted or words.unwanted or query.like or query.filters.active):
        return ("There is nothing to look for yet: no letters or digits were typed",), ()
    table = Table.VISIBLE if query.within == "visible" else Table.EXPLANATIONS
    lexical = words.wanted if query.mode != "semantic" or query.within == "visible" else ()
    unknown = [term for term in lexical if not len(corpus.text.matches(table, term.fts, 1))]
    where = "visible text" if table is Table.VISIBLE else "explanation"
    why = [f"No {where} holds “{_shown(term)}”" for term in unknown]
    near = [one for term in unknown for one in _near_words(corpus, query, term, table, find)]
    if not unknown and len(lexical) > 1 and not _together(corpus, words, table):
        why.append(f"Each of these words is there, but no {where} holds them all")
    if query.filters.active and not np.any(corpus.facets.mask(query.filters)):
        why.append("No reading at all passes these filters")
    for label, reason, wider in _wider(query, words):
        try:
            found = find(wider)
        except NLAError:
            continue  # a word that is gone may leave nothing but meaning, which needs an encoder
        if len(found.rows):
            near.append(Near(label, wider, len(found.rows), found.exact))
            if reason:
                why.append(reason)
    return tuple(why) or ("Nothing in this dataset matches all of this",), tuple(near)


def not_in_words(
    corpus: Corpus, query: Query, words: Words, find: Find
) -> tuple[tuple[str, ...], tuple[Near, ...]]:
    """The same where hits are near in meaning and none holds the words: what may be misspelt."""
    table = Table.EXPLANATIONS
    unknown = [term for term in words.wanted if not len(corpus.text.matches(table, term.fts, 1))]
    near = [one for term in unknown for one in _near_words(corpus, query, term, table, find)]
    if not unknown:
        return ("No explanation holds all these words; these are the nearest in meaning",), ()
    missing = ", ".join(f"“{_shown(term)}”" for term in unknown)
    return (f"No explanation holds {missing}; these are the nearest in meaning",), tuple(near)


def _together(corpus: Corpus, words: Words, table: Table) -> bool:
    return bool(len(corpus.text.matches(table, replace(words, unwanted=()).match, 1)))


def _wider(query: Query, words: Words) -> Iterator[tuple[str, str, Query]]:
    """(what was left out, what to say if that is it, the query without it)."""
    active = query.filters.active
    for name in active if len(active) > 1 else ():
        one = replace(query.filters, **{name: getattr(Filters(), name)})
        label = f"without the filter on {_FILTER_NAMES[name]}"
        yield label, f"The filter on {_FILTER_NAMES[name]} leaves none", replace(query, filters=one)
    if active:
        yield "without filters", "The filters leave none", replace(query, filters=Filters())
    if query.unspoken:
        said = "Wherever an explanation says this, the visible text says it, too"
        yield "whether or not the visible text says it", said, replace(query, unspoken=False)
    if words.unwanted:
        said = "Every hit holds a word that was to be left out"
        yield "without the minus", said, replace(query, text=_typed(words.wanted))
    if len(words.wanted) > 1:
        for term in words.wanted:
            left = [one for one in words.wanted if one != term]
            minus = "".join(f' -"{one.text}"' for one in words.unwanted)
            yield f"without “{_shown(term)}”", "", replace(query, text=_typed(left) + minus)
    if query.within == "visible":
        yield "in explanations", "", replace(query, within="explanations")
    elif words.wanted:
        yield "in visible text", "", replace(query, within="visible", filters=Filters())


def _near_words(
    corpus: Corpus, query: Query, term: Term, table: Table, find: Find
) -> Iterator[Near]:
    """The same query with a word that does occur in the place of one that does not."""
    if not term.text.isalnum():
        return
    word = term.text.casefold()
    known = dict(corpus.text.words_like(word, table, COMPARED_WORDS))
    for other in difflib.get_close_matches(word, known, n=NEAR_WORDS, cutoff=0.7):
        changed = replace(query, text=query.text.replace(term.text, other))
        found = find(replace(changed, mode="keyword"))  # counts what holds the word
        if len(found.rows):
            yield Near(f"“{other}”", changed, len(found.rows), found.exact)


def _shown(term: Term) -> str:
    return term.text[:60] + ("…" if term.prefix or len(term.text) > 60 else "")


def _typed(terms: tuple[Term, ...] | list[Term]) -> str:
    """Terms as they would be typed."""
    return " ".join(f'"{term.text}"' + ("*" if term.prefix else "") for term in terms)


KEPT_RANKINGS = 64
MOST_HITS = 1_000


@dataclass(frozen=True, slots=True)
class Occurrences:
    """Where a phrase stands along one transcript. ``readings`` are places in
    ``Dataset.readings(transcript_id)``, ``explained_at`` their positions; ``visible_at`` are the
    positions of the tokens where it begins in the visible text. All [n] int64, ascending."""

    readings: np.ndarray
    explained_at: np.ndarray
    visible_at: np.ndarray


class Search:
    """Made by `Search.over`. Safe to share between threads."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._rankings: OrderedDict[Query, Ranked] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def over(cls, dataset: Dataset, embed: Embed, encoder: str | None = None) -> Search:
        """Open the derived files beside ``dataset``, or build them (a million readings: a minute).

        ``embed`` is called, and the index of vectors opened, by the first search for meaning.
        ``encoder`` names what embeds: where the dataset's vectors were made by another one, search
        by meaning is refused. Raises NLAError where the files cannot be built.
        """
        return cls(Corpus(dataset, embed, encoder))

    @property
    def dataset(self) -> Dataset:
        return self._corpus.dataset

    def prepare(self) -> str | None:
        """Open what the first search by meaning would wait for; returns what there is to say
        about it. Raises NLAError as `search` does."""
        self._corpus.phrase("warm")
        return self._corpus.index.note

    # ---- pages of hits ---------------------------------------------------------------------------

    def search(self, query: Query, limit: int = 20, after: str | None = None) -> Results:
        """The hits of ``query``, at most ``limit`` (1-1,000), those that follow ``after``.

        Any text is a query. Raises NLAError for a cursor of something else, a reading to be like
        that does not exist, and where only meaning was asked for and there is no encoder.
        """
        limit = min(max(limit, 1), MOST_HITS)
        words = self._corpus.words(query)
        start, version = 0, self.dataset.version
        if after is not None:
            row = read_cursor(after, version, query)
            ranked = self._ranked(query)
            (places,) = np.nonzero(ranked.rows == row)
            start = int(places[0]) + 1 if len(places) else len(ranked.rows)
        ranked = self._ranked(query)
        rows = ranked.rows[start : start + limit]
        why: tuple[str, ...] = ()
        near: tuple[Near, ...] = ()
        if not len(ranked.rows):
            why, near = explain(self._corpus, query, words, self._ranked)
        elif words.wanted and not ranked.ranks.get("keyword", True):
            why, near = not_in_words(self._corpus, query, words, self._ranked)
        more = start + limit < len(ranked.rows)
        return Results(
            hits=tuple(self._hits(query, words, rows, ranked, start)),
            total=len(ranked.rows),
            exact=ranked.exact,
            found={method: len(places) for method, places in ranked.ranks.items()},
            categories=self._by_category(query, ranked.rows),
            after=make_cursor(version, query, int(rows[-1])) if more else None,
            notes=(*words.notes, *ranked.notes),
            why=why,
            near=near,
        )

    def _ranked(self, query: Query) -> Ranked:
        """All hits of ``query`` in order, remembered for its next pages."""
        with self._lock:
            if (known := self._rankings.get(query)) is not None:
                self._rankings.move_to_end(query)
                return known
        found = find(self._corpus, query, self._corpus.words(query))
        with self._lock:
            self._rankings[query] = found
            while len(self._rankings) > KEPT_RANKINGS:
                self._rankings.popitem(last=False)
        return found

    def _by_category(self, query: Query, rows: np.ndarray) -> dict[str, int]:
        counts = Counter(self._corpus.facets.categories[self._transcripts(query, rows)].tolist())
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def _transcripts(self, query: Query, rows: np.ndarray) -> np.ndarray:
        if query.within == "visible":
            return self._corpus.turn_transcripts[rows]
        return self._corpus.facets.transcript[rows]

    def _hits(
        self, query: Query, words: Words, rows: np.ndarray, ranked: Ranked, start: int
    ) -> list[Hit]:
        hits = [
            Hit(
                row=row,
                transcript_id=self._corpus.facets.ids[transcript],
                title=self._corpus.facets.titles[transcript],
                category=str(self._corpus.facets.categories[transcript]),
                score=float(ranked.scores[start + place]),
                ranks={name: places[row] for name, places in ranked.ranks.items() if row in places},
                similarity=ranked.cosines.get(row),
            )
            for place, (row, transcript) in enumerate(
                zip(rows.tolist(), self._transcripts(query, rows).tolist(), strict=True)
            )
        ]
        add = self._with_turns if query.within == "visible" else self._with_readings
        return add(hits, words)

    def _with_readings(self, hits: Sequence[Hit], words: Words) -> list[Hit]:
        facets = self._corpus.facets
        known = self._corpus.text.readings([hit.row for hit in hits])
        texts = [known[hit.row][1] for hit in hits]
        spans = lit(texts, words.any_match)
        if any("keyword" not in hit.ranks for hit in hits):
            # What was found for its meaning is lit where it says so, and not at every "the".
            telling = lit(texts, self._corpus.telling(words).any_match)
            spans = [
                every if "keyword" in hit.ranks else some
                for hit, every, some in zip(hits, spans, telling, strict=True)
            ]
        return [
            replace(
                hit,
                reading_id=known[hit.row][0],
                text=known[hit.row][1],
                spans=tuple(lights),
                position=int(facets.position[hit.row]),
                sample=int(facets.sample[hit.row]),
                role=str(ROLES[facets.role[hit.row]]),
                fve=float(facets.fve[hit.row]),
                flags=facets.flags_of(hit.row),
            )
            for hit, lights in zip(hits, spans, strict=True)
        ]

    def _with_turns(self, hits: Sequence[Hit], words: Words) -> list[Hit]:
        known = self._corpus.text.turns([hit.row for hit in hits])
        turns = [known[hit.row] for hit in hits]
        made = []
        for hit, turn, lights in zip(
            hits, turns, lit([turn.text for turn in turns], words.any_match), strict=True
        ):
            places = tuple(turn.position(start) for start, _ in lights)
            made.append(
                replace(
                    hit,
                    role=turn.role,
                    text=turn.text,
                    spans=tuple(lights),
                    position=places[0] if places else turn.position(0),
                    positions=places,
                )
            )
        return made

    # ---- along one transcript --------------------------------------------------------------------

    def similarity(self, transcript_id: str, phrase: str) -> np.ndarray:
        """[reading] float32: cosine of each reading of a transcript to a phrase, in the order of
        ``Dataset.readings(transcript_id)``; of length 0 for an unknown transcript, NaN for a
        phrase without a letter or digit."""
        rows = self._rows_of(transcript_id)
        plain = self._corpus.words(Query(phrase)).plain.strip()
        if not plain or not len(rows):
            return np.full(len(rows), np.nan, dtype=np.float32)
        return scores_of(self._corpus.vectors.__getitem__, rows, self._corpus.phrase(plain))

    def occurrences(self, transcript_id: str, phrase: str) -> Occurrences:
        """Where all words of ``phrase`` stand in the explanations of a transcript, and where any
        of them stands in its visible text. Read as in the search box, but in whole words."""
        rows = self._rows_of(transcript_id)
        words = self._corpus.words(Query(phrase, unspoken=True))
        known = self._corpus.text.readings(rows.tolist())
        texts = [known[row][1] for row in rows.tolist()]
        holds = [bool(spans) for spans in _holding(texts, words)]
        readings = np.flatnonzero(np.array(holds, dtype=bool))
        number = self._corpus.facets.number.get(transcript_id, -1)
        turns = self._corpus.text.turns_of(number)
        lights = lit([turn.text for turn in turns], words.any_match)
        visible = sorted(
            turn.position(start)
            for turn, spans in zip(turns, lights, strict=True)
            for start, _ in spans
        )
        return Occurrences(
            readings,
            self._corpus.facets.position[rows[readings]].astype(np.int64),
            np.array(visible, dtype=np.int64),
        )

    def _rows_of(self, transcript_id: str) -> np.ndarray:
        facets = self._corpus.facets
        if (number := facets.number.get(transcript_id)) is None:
            return np.empty(0, dtype=np.int64)
        return np.arange(facets.first[number], facets.first[number + 1])


def _holding(texts: Sequence[str], words: Words) -> list[Spans]:
    """Lights of the texts that hold all wanted words and no unwanted one; none for the others."""
    if not words.wanted:
        return [[] for _ in texts]
    return lit(texts, words.match)
