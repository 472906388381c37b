"""What the pages ask of the search: likeness to a phrase, readings alike, words of the background.

Knows what is kept for all sessions of a process. Does not know how anything is found. The decision
a reader would question: the sentence encoder is loaded when a phrase is first compared, not at the
start; whoever only browses never pays for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import streamlit as st

from nla_core import opened
from nla_core.analysis import themes
from nla_core.data.dataset import Dataset

if TYPE_CHECKING:
    from nla_core.analysis.concepts import Concept
    from nla_core.analysis.derived import Claims, StoredScores
    from nla_core.data.query import Query, Results
    from nla_core.data.search import Search

LOADING: Final = "Comparing meanings. The first time, the sentence encoder is loaded."


def search(dataset: Dataset) -> Search:
    """The search over this version, opened once a process."""
    return opened.search(dataset)


def ready() -> bool:
    """Whether meanings are compared at once; the first time costs seconds."""
    return opened.encoder().loaded


def likeness(dataset: Dataset, transcript_id: str, phrase: str) -> dict[int, float]:
    """Cosine of the phrase and of the first sample's explanation, by position."""
    with st.spinner(LOADING, show_time=True):
        return _likeness(dataset, dataset.version, transcript_id, phrase)


def results(dataset: Dataset, query: Query, *, limit: int, after: str | None = None) -> Results:
    """A page of hits. Raises NLAError for a mark or a reading that belong elsewhere."""
    return search(dataset).search(query, limit, after)


def alike(dataset: Dataset, reading_id: str, limit: int) -> Results:
    """Readings that say much the same, at most one a transcript."""
    from nla_core.data.query import Query

    return results(dataset, Query(like=reading_id, per_transcript=1), limit=limit)


def claims(dataset: Dataset) -> Claims:
    """The judged claims beside this version. Raises NLAError where they were not computed."""
    from nla_core.analysis.derived import Claims

    return Claims.open(dataset)


def scores(dataset: Dataset, concepts: tuple[Concept, ...]) -> StoredScores:
    """How near everything is to each concept; a list that is new is scored now."""
    with st.spinner("Scoring this watchlist. A list that was seen before is there at once."):
        return opened.scores(dataset, concepts)


def background(dataset: Dataset) -> themes.Background:
    """In what share of this dataset's explanations a word stands."""
    return opened.background(dataset)


@st.cache_data(show_spinner=False, max_entries=256)
def _likeness(_dataset: Dataset, version: str, transcript_id: str, phrase: str) -> dict[int, float]:
    readings = _dataset.readings(transcript_id)
    found = search(_dataset).similarity(transcript_id, phrase)
    first = readings["sample"] == 0
    return dict(zip(readings["position"][first], map(float, found[first]), strict=True))
