"""Any input, whole pages, versions that change, and a phrase along one transcript."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nla_core.data import fulltext as fts
from nla_core.data import vectors
from nla_core.data.dataset import Dataset
from nla_core.data.query import Filters, Query
from nla_core.data.search import Search
from nla_core.errors import NLAError
from tests.helpers import PROMPTS, make_dataset
from tests.search.builders import FACTS, embed, every, filters
from tests.store.test_fts import text_of_any_kind

# ---- any input -----------------------------------------------------------------------------------


@given(
    text_of_any_kind,
    st.sampled_from(["hybrid", "keyword", "semantic"]),
    st.sampled_from(["explanations", "visible"]),
    st.one_of(st.just(""), text_of_any_kind),
    st.booleans(),
    filters,
    st.none() | st.integers(1, 3),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_query_whatsoever_raises(
    search: Search,
    text: str,
    mode: str,
    within: str,
    unlike: str,
    unspoken: bool,
    filtered: Filters,
    cap: int | None,
) -> None:
    query = Query(text, mode, within, unlike, None, unspoken, filtered, cap)  # type: ignore[arg-type]
    results = search.search(query, 5)
    assert len(results.hits) == min(results.total, 5)
    assert sum(results.categories.values()) == results.total
    assert bool(results.after) == (results.total > 5)
    assert results.hits or results.why
    for hit in results.hits:
        assert all(0 <= start < end <= len(hit.text) for start, end in hit.spans)
    for near in results.near:
        assert near.hits > 0


def test_text_that_was_cut_is_said(search: Search) -> None:
    assert "first 400 of 100,000" in search.search(Query("paris " * 16_666 + "pari")).notes[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Query("x", mode="regex"),  # type: ignore[arg-type]
        lambda: Query("x", within="tables"),  # type: ignore[arg-type]
        lambda: Filters(roles=("robot",)),  # type: ignore[arg-type]
        lambda: Filters(flags=("odd",)),  # type: ignore[arg-type]
        lambda: Filters(fve_min=float("nan")),
    ],
)
def test_a_query_outside_its_closed_sets_is_refused(make: object) -> None:
    with pytest.raises(NLAError):
        make()  # type: ignore[operator]


# ---- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        Query("topic", mode="keyword"),
        Query("mountains", mode="semantic"),
        Query("geography of france"),
        Query("the", within="visible"),
        Query(filters=Filters(fve_min=0.2)),
    ],
)
@pytest.mark.parametrize("limit", [1, 7, 50])
def test_pages_have_no_gaps_and_repeat_nothing(search: Search, query: Query, limit: int) -> None:
    whole = [hit.row for hit in search.search(query, 1_000).hits]
    if limit == 1:
        whole = whole[:20]
        after, found = None, []
        for _ in whole:
            page = search.search(query, 1, after)
            found.append(page.hits[0].row)
            after = page.after
    else:
        found, _ = every(search, query, limit)
        found = found[: len(whole)]
    assert found == whole
    assert len(set(found)) == len(found)


def test_a_cursor_goes_on_in_another_process(dataset: Dataset, search: Search) -> None:
    first = search.search(Query("topic", mode="keyword"), 5)
    again = Search.over(dataset, embed).search(Query("topic", mode="keyword"), 5, first.after)
    assert again.hits == search.search(Query("topic", mode="keyword"), 10).hits[5:]


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "é" * 50, "WzEsMiwzXQ", "e30", "A" * 10_000])
def test_a_mangled_cursor_is_refused(search: Search, cursor: str) -> None:
    with pytest.raises(NLAError, match="cannot be continued"):
        search.search(Query("topic"), 5, cursor)


def test_a_cursor_of_another_search_is_refused(search: Search) -> None:
    after = search.search(Query("topic", mode="keyword"), 5).after
    with pytest.raises(NLAError, match="another search"):
        search.search(Query("geography", mode="keyword"), 5, after)


def test_a_new_version_is_searched_and_old_cursors_are_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    old = Search.over(Dataset.open(tmp_path), embed)
    page = old.search(Query("topic", mode="keyword"), 5)
    make_dataset(tmp_path, PROMPTS[:2])
    new = Search.over(Dataset.open(tmp_path), embed)
    assert new.search(Query("topic", mode="keyword"), 5).total < page.total
    with pytest.raises(NLAError, match="version"):
        new.search(Query("topic", mode="keyword"), 5, page.after)
    assert old.search(Query("topic", mode="keyword"), 5, page.after).hits  # still reads its own


def test_derived_files_deleted_while_open(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    search = Search.over(Dataset.open(tmp_path), embed)
    before = search.search(Query("geography"), 5)
    (search.dataset.directory / fts.FILE).unlink()
    assert search.search(Query("geography of"), 5).hits
    again = Search.over(Dataset.open(tmp_path), embed).search(Query("geography"), 5)
    assert again == before


def test_the_approximate_index_gives_the_same_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    make_dataset(tmp_path, samples=3, answer_repeats=5)
    exact = Search.over(Dataset.open(tmp_path), embed)
    monkeypatch.setattr(vectors.open_index, "__defaults__", (100,))
    monkeypatch.setattr(vectors, "EXACT_SUBSET", 10)
    approximate = Search.over(Dataset.open(tmp_path), embed)
    query = Query("mountains", mode="semantic", filters=Filters(fve_min=0.1))
    assert approximate.search(query).hits == exact.search(query).hits
    assert (exact.dataset.directory / vectors.FILE).exists()


# ---- along one transcript ------------------------------------------------------------------------


def test_similarity_of_each_reading_of_a_transcript(search: Search, dataset: Dataset) -> None:
    found = search.similarity(FACTS, "capital cities")
    texts = dataset.readings(FACTS)["explanation"].tolist()
    expected = embed(texts).astype(np.float16).astype(np.float32) @ embed(["capital cities"])[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(search.similarity("nobody", "x")) == 0
    assert np.isnan(search.similarity(FACTS, " ")).all()


def test_occurrences_along_a_transcript(search: Search, dataset: Dataset) -> None:
    readings, tokens = dataset.readings(FACTS), dataset.tokens(FACTS)
    found = search.occurrences(FACTS, "France")
    holding = np.flatnonzero(readings["explanation"].str.contains(r"\bFrance\b"))
    assert len(holding) > 0
    assert found.readings.tolist() == holding.tolist()
    assert found.explained_at.tolist() == readings["position"].iloc[holding].tolist()
    assert found.visible_at.tolist() == (tokens["position"][tokens["text"] == " France"].tolist())
    for phrase in ("", '"', "nowhere", "-France"):
        assert len(search.occurrences(FACTS, phrase).readings) == 0
    assert len(search.occurrences("nobody", "France").visible_at) == 0
