"""An empty result: why it is empty, and what is near.

Knows how to take a query apart: word by word, filter by filter. Does not know how hits are drawn.
The decision a reader would question: each part is tried by leaving it out and searching again,
which costs a few more searches, but only ever after one that found nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from nla_core.errors import NLAError
from nla_core.search.corpus import Corpus
from nla_core.search.query import Filters, Near, Query
from nla_core.search.ranking import Ranked
from nla_core.store.fts import Table
from nla_core.store.words import Term, Words

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
