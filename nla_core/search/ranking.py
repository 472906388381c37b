"""Candidates in order: by words, by meaning, and both fused.

Knows how rows are ranked, thinned and fused; rows and numbers only. Does not know texts. The
decision a reader would question: hits of a keyword search are ordered by how exactly the words
stand there (next to each other, whole, begun) and then by fidelity, and not by BM25: every hit
holds all the words, the texts are all short, and of two readings that say it the one that
reconstructs better is the one to look at first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nla_core.store.fts import FullText, Table
from nla_core.store.words import Term, Words

POOL = 5_000
"""Matches that are ranked; a search with more says so."""

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
    found: list[np.ndarray] = []
    for match in _from_exact_to_loose(words):
        rows = text.matches(table, match, POOL, mask)
        complete = len(rows) < POOL
        rows = rows[~np.isin(rows, np.concatenate(found))] if found else rows
        if fidelity is not None:
            rows = rows[np.lexsort((rows, -fidelity[rows]))]
        found.append(rows)
    if not found:
        return np.empty(0, dtype=np.int64), True
    return np.concatenate(found)[:POOL], complete


def _from_exact_to_loose(words: Words) -> list[str]:
    """FTS5 expressions; the last one is what was asked for, those before are found in it."""
    if not words.wanted:
        return []
    whole = [Term(term.text) for term in words.wanted]
    steps = [words.match]
    if any(term.prefix for term in words.wanted):
        steps.insert(0, Words(tuple(whole)).match)
    if len(whole) > 1:
        steps.insert(0, Term(" ".join(term.text for term in whole)).fts)
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
