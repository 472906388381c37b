"""Search over one dataset version: pages of hits, and a phrase along one transcript.

Knows how a page is cut from a ranked list and what a hit needs to be drawn. Does not know how hits
are found, nor how they are drawn. The decision a reader would question: a search is ranked whole
(some thousand rows at most) and pages are cut from that list, so pages neither overlap nor leave
gaps, and the next page costs no second search.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nla_core.search import empty
from nla_core.search.corpus import Corpus, Embed
from nla_core.search.facets import ROLES
from nla_core.search.finding import find
from nla_core.search.query import Hit, Near, Query, Results, make_cursor, read_cursor
from nla_core.search.ranking import Ranked
from nla_core.store.dataset import Dataset
from nla_core.store.lighting import Spans, lit
from nla_core.store.vectors import scores_of
from nla_core.store.words import Words

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
            why, near = empty.explain(self._corpus, query, words, self._ranked)
        elif words.wanted and not ranked.ranks.get("keyword", True):
            why, near = empty.not_in_words(self._corpus, query, words, self._ranked)
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
