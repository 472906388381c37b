"""Filters hold and lose nothing; an empty result says why and what is near."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nla_core.data import search as finding
from nla_core.data.dataset import Dataset
from nla_core.data.query import Filters, Query
from nla_core.data.search import Search
from tests.search.builders import FACTS, every, filters

# ---- filters -------------------------------------------------------------------------------------


def keeps(filters: Filters, row: pd.Series) -> bool:
    low, high = filters.positions
    flags = {*row["flags"]}
    return (
        (not filters.roles or row["role"] in filters.roles)
        and (not filters.categories or row["category"] in filters.categories)
        and {*filters.tags} <= {*row["tags"]}
        and {*filters.flags} <= flags
        and not {*filters.no_flags} & flags
        and (filters.fve_min is None or row["fve"] >= np.float32(filters.fve_min))
        and (low is None or row["position"] >= low)
        and (high is None or row["position"] <= high)
    )


@given(filters, st.sampled_from(["keyword", "semantic", "hybrid"]))
@settings(max_examples=60, deadline=None)
def test_filters_hold_and_lose_nothing(
    search: Search, rows: pd.DataFrame, filtered: Filters, mode: str
) -> None:
    kept = {i for i, row in rows.iterrows() if keeps(filtered, row)}
    query = Query("geography ", mode, filters=filtered)  # type: ignore[arg-type]
    found, _ = every(search, query, 500)
    words = {i for i in kept if "geography" in rows["explanation"][i]}
    assert {*found} <= kept
    if mode == "keyword":
        assert {*found} == words
    else:
        assert len(found) >= min(len(kept), finding.NEAREST)
    browsed, _ = every(search, Query(filters=filtered), 500)
    assert {*browsed} == (kept if filtered.active else set())


def test_a_cap_keeps_the_best_of_each_transcript(search: Search) -> None:
    whole, _ = every(search, Query("geography"), 500)
    owner = {hit.row: hit.transcript_id for hit in search.search(Query("geography"), 1_000).hits}
    seen: Counter[str] = Counter()
    expected = []
    for row in whole:
        seen[owner[row]] += 1
        expected += [row] if seen[owner[row]] <= 2 else []
    found, pages = every(search, Query("geography", per_transcript=2), 3)
    assert found == expected
    assert pages[0].total == len(expected)


def test_what_is_said_but_not_visible(search: Search, rows: pd.DataFrame, dataset: Dataset) -> None:
    query = Query("france ", mode="keyword", unspoken=True)
    found, _ = every(search, query)
    said = [i for i, e in enumerate(rows["explanation"]) if "France" in e]
    spoken = {
        t["transcript_id"]
        for _, t in dataset.transcripts().iterrows()
        if "France" in "".join(dataset.tokens(t["transcript_id"])["text"])
    }
    assert spoken == {FACTS}
    assert sorted(found) == [row for row in said if rows["transcript_id"][row] not in spoken]
    hybrid, _ = every(search, dataclasses.replace(query, mode="hybrid"))
    assert not {rows["transcript_id"][row] for row in hybrid} & spoken


# ---- empty results -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "why", "near"),
    [
        (Query(""), "nothing to look for", None),
        (Query("!!!"), "nothing to look for", None),
        (Query("frnace ", mode="keyword"), "No explanation holds “frnace”", "“france”"),
        (Query("zzzz france", mode="keyword"), "“zzzz”", "without “zzzz”"),
        (Query("animals markup ", mode="keyword"), "no explanation holds them all", "without"),
        (
            Query("france ", mode="keyword", filters=Filters(fve_min=0.99)),
            "No reading at all passes",
            "without filters",
        ),
        (
            Query("france ", filters=Filters(fve_min=0.99, categories=("facts",))),
            "The filter on fidelity floor leaves none",
            "without the filter on fidelity floor",
        ),
        (
            Query('"of france" -topic', mode="keyword"),
            "to be left out",
            "without the minus",
        ),
        (Query('"everest is"', mode="keyword"), "“everest is”", "in visible text"),
        (Query("animals ", within="visible"), "No visible text", "in explanations"),
    ],
)
def test_an_empty_result_says_why_and_what_is_near(
    search: Search, query: Query, why: str, near: str | None
) -> None:
    results = search.search(query)
    assert results.total == 0
    assert any(why in line for line in results.why), results.why
    labels = [one.label for one in results.near]
    assert near is None or any(near in label for label in labels), labels
    for one in results.near:
        assert search.search(one.query).total >= one.hits > 0


def test_misspelt_words_are_told_beside_what_is_near_in_meaning(search: Search) -> None:
    results = search.search(Query("frnace "))
    assert results.hits
    assert "nearest in meaning" in results.why[0]
    assert "“france”" in [one.label for one in results.near]
