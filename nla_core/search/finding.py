"""From a query to all of its hits in order.

Knows the modes: which lists of candidates are made, when they are fused, and what is said when one
of them cannot be. Does not know pages or texts. The decision a reader would question: search by
meaning ends after 200 rows, since there is no end to what is less and less alike, and a number of
"hits" would be the size of the dataset.
"""

from __future__ import annotations

import numpy as np

from nla_core.errors import NLAError
from nla_core.search.corpus import Corpus
from nla_core.search.query import Query
from nla_core.search.ranking import (
    POOL,
    RRF,
    Ranked,
    by_words,
    capped,
    fused,
    one_of_each_run,
    ranks,
)
from nla_core.store.fts import Table
from nla_core.store.words import Words

NEAREST = 200
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
        rows, scores, said = _meaning(corpus, query, words, mask, alone="keyword" not in lists)
        notes += said
        if rows is not None:
            lists["semantic"] = rows
            cosines = dict(zip(rows.tolist(), scores.tolist(), strict=True))
            exact = exact and len(rows) < NEAREST
    if not lists:  # nothing to look for: what the filters leave, if there are any
        rows = np.empty(0, dtype=np.int64) if mask is None else np.flatnonzero(mask)
        exact = len(rows) <= POOL
        order, scores = rows[:POOL].astype(np.int64), np.zeros(min(len(rows), POOL))
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
    rows, scores = corpus.index.nearest(direction, most, mask)
    return rows, scores, [corpus.index.note] if corpus.index.note else []


def _turns(corpus: Corpus, query: Query, words: Words) -> Ranked:
    notes = []
    if query.mode == "semantic" or query.like or query.unlike or query.unspoken:
        notes.append("Visible text is searched by its words only")
    if {"flags", "no_flags", "fve_min", "positions"} & {*query.filters.active}:
        notes.append("Fidelity, flags and positions filter readings, not visible text")
    mask = corpus.turn_mask(query, words)
    rows, exact = by_words(corpus.text, Table.VISIBLE, words, mask)
    if not words.wanted and mask is not None:
        rows, exact = np.flatnonzero(mask)[:POOL], np.count_nonzero(mask) <= POOL
    rows = rows[capped(rows, corpus.turn_transcripts[rows], query.per_transcript)]
    scores = 1 / (RRF + 1 + np.arange(len(rows)))
    return Ranked(rows, scores, exact, {"keyword": ranks(rows)}, {}, tuple(notes))
