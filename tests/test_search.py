"""Search over a dataset: the right hits in the right order, whole pages, reasons for empty ones."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nla_core.errors import NLAError
from nla_core.schema import Flag, Role
from nla_core.search import Filters, Query, Results, Search, finding
from nla_core.search.ranking import NEIGHBOURS, capped, fused
from nla_core.store import fts, vectors
from nla_core.store.dataset import Dataset
from tests.helpers import PROMPTS, hash_vectors, make_dataset, transcript_id_of
from tests.store.test_fts import text_of_any_kind, words_of

FACTS = transcript_id_of("facts-001")


def embed(texts: Sequence[str]) -> np.ndarray:
    return hash_vectors(texts)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("search")
    make_dataset(root, samples=2, answer_repeats=3)
    return Dataset.open(root)


@pytest.fixture(scope="module")
def search(dataset: Dataset) -> Search:
    return Search.over(dataset, embed)


@pytest.fixture(scope="module")
def rows(dataset: Dataset) -> pd.DataFrame:
    """Every reading with what it can be filtered by, read off the tables the plain way."""
    parts = []
    for _, transcript in dataset.transcripts().sort_values("transcript_id").iterrows():
        readings = dataset.readings(transcript["transcript_id"])
        tokens = dataset.tokens(transcript["transcript_id"])[["position", "role"]]
        part = readings.merge(tokens, on="position", how="left")
        parts.append(
            part.assign(category=transcript["category"], tags=[transcript["tags"]] * len(part))
        )
    return pd.concat(parts, ignore_index=True)


def every(search: Search, query: Query, limit: int = 7) -> tuple[list[int], list[Results]]:
    """All rows of a query, page by page."""
    found, pages, after = [], [], None
    while True:
        page = search.search(query, limit, after)
        pages.append(page)
        found += [hit.row for hit in page.hits]
        if (after := page.after) is None:
            return found, pages


# ---- any input -----------------------------------------------------------------------------------

filters = st.builds(
    Filters,
    roles=st.lists(st.sampled_from([*Role]), max_size=2).map(tuple),
    categories=st.lists(st.sampled_from(["facts", "code", "no such"]), max_size=2).map(tuple),
    tags=st.lists(st.sampled_from(["geography", "code"]), max_size=1).map(tuple),
    flags=st.lists(st.sampled_from([*Flag]), max_size=1).map(tuple),
    no_flags=st.lists(st.sampled_from([*Flag]), max_size=1).map(tuple),
    fve_min=st.none() | st.floats(-2, 1),
    positions=st.tuples(st.none() | st.integers(), st.none() | st.integers()),
)


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


# ---- by words ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["france ", "topic france ", "paris", "list animals "])
def test_keyword_hits_are_those_that_hold_the_words(
    search: Search, rows: pd.DataFrame, text: str
) -> None:
    found, pages = every(search, Query(text, mode="keyword"))
    wanted, begun = text.split(), not text.endswith(" ")

    def holds(explanation: str) -> bool:
        words = words_of(explanation)
        return all(
            word in words or (begun and any(w.startswith(word) for w in words)) for word in wanted
        )

    assert sorted(found) == [i for i, e in enumerate(rows["explanation"]) if holds(e)]
    assert pages[0].total == len(found)
    assert pages[0].exact
    assert pages[0].found == {"keyword": len(found)}
    by_category = Counter(rows["category"].iloc[found])
    assert pages[0].categories == dict(by_category)
    assert [*pages[0].categories.values()] == sorted(by_category.values(), reverse=True)


def test_exact_words_come_first_and_then_the_faithful(search: Search, rows: pd.DataFrame) -> None:
    found, _ = every(search, Query("of france", mode="keyword"))
    apart = ["of France" not in rows["explanation"][row] for row in found]
    assert 0 < sum(apart) < len(apart)
    order = [(far, -rows["fve"][row], row) for far, row in zip(apart, found, strict=True)]
    assert order == sorted(order)
    found, _ = every(search, Query("a", mode="keyword"))
    whole = [bool(re.search(r"\ba\b", rows["explanation"][row].lower())) for row in found]
    assert 0 < sum(whole) < len(whole)
    assert whole == sorted(whole, reverse=True)
    found, _ = every(search, Query("list a ", mode="keyword"))  # the other way round
    assert found
    together, _ = every(search, Query("a list ", mode="keyword"))
    assert sorted(together) == sorted(found)


def test_hits_have_what_it_takes_to_draw_them(
    search: Search, dataset: Dataset, rows: pd.DataFrame
) -> None:
    for hit in search.search(Query("geography", mode="keyword"), 50).hits:
        row = rows.iloc[hit.row]
        assert (hit.transcript_id, hit.position, hit.sample) == (
            row["transcript_id"],
            row["position"],
            row["sample"],
        )
        assert (hit.reading_id, hit.text, hit.role) == (
            row["reading_id"],
            row["explanation"],
            row["role"],
        )
        assert hit.fve == pytest.approx(row["fve"])
        assert hit.flags == tuple(flag for flag in Flag if flag in [*row["flags"]])
        transcript = dataset.transcript(hit.transcript_id)
        assert transcript is not None
        assert (hit.title, hit.category) == (transcript["title"], transcript["category"])
        assert [hit.text[start:end] for start, end in hit.spans] == ["geography"]


def test_visible_text_is_found_at_its_tokens(search: Search, dataset: Dataset) -> None:
    results = search.search(Query("capital ", within="visible"), 10)
    assert results.total == 2
    for hit in results.hits:
        assert hit.transcript_id == FACTS
        assert hit.reading_id is None
        tokens = dataset.tokens(hit.transcript_id)["text"]
        assert [tokens[position].strip() for position in hit.positions] == (
            ["capital"] * len(hit.spans)
        )
        assert hit.position == hit.positions[0]
    roles = Filters(roles=(Role.USER,))
    (hit,) = search.search(Query("capital ", within="visible", filters=roles)).hits
    assert hit.role == "user"
    noted = search.search(Query("capital", "semantic", "visible", filters=Filters(fve_min=0.5)))
    assert len(noted.notes) == 2


# ---- by meaning, and both ------------------------------------------------------------------------


def test_semantic_hits_are_the_nearest(search: Search, dataset: Dataset) -> None:
    real = dataset.explanation_vectors().astype(np.float32)
    scores = real @ embed(["a question about mountains"])[0].astype(np.float32)
    results = search.search(Query("a question about mountains", mode="semantic"), 10)
    assert [hit.row for hit in results.hits] == np.lexsort((np.arange(len(real)), -scores))[
        :10
    ].tolist()
    assert results.total == finding.NEAREST
    assert not results.exact
    assert results.hits[0].similarity == pytest.approx(float(scores.max()), abs=1e-5)
    assert results.hits[0].score == results.hits[0].similarity


def test_hybrid_is_reciprocal_rank_fusion(search: Search) -> None:
    words, _ = every(search, Query("geography of france", mode="keyword"), 500)
    meaning, _ = every(search, Query("geography of france", mode="semantic"), 500)
    scores: Counter[int] = Counter()
    for ranking in (words, meaning):
        for rank, row in enumerate(ranking, start=1):
            scores[row] += 1 / (60 + rank)  # type: ignore[assignment]
    found, pages = every(search, Query("geography of france"), 500)
    assert found == sorted(scores, key=lambda row: (-scores[row], row))
    first = pages[0].hits[0]
    assert first.score == pytest.approx(scores[first.row])
    assert dict(first.ranks) == {
        name: ranking.index(first.row) + 1
        for name, ranking in (("keyword", words), ("semantic", meaning))
        if first.row in ranking
    }


def test_unlike_pushes_away(search: Search, dataset: Dataset) -> None:
    phrase = embed(["rabbits"])[0]
    towards = search.search(Query("mountains", mode="semantic"), 100)
    away = search.search(Query("mountains", mode="semantic", unlike="rabbits"), 100)
    real = dataset.explanation_vectors().astype(np.float32)

    def alike(results: Results) -> float:
        return float(np.mean(real[[hit.row for hit in results.hits]] @ phrase))

    assert alike(away) < alike(towards) - 0.05
    alone = search.search(Query(unlike="rabbits"))
    assert alone.total == 0
    assert "what to look for" in alone.notes[0]


def test_more_like_this_leaves_out_itself_and_its_run(search: Search, rows: pd.DataFrame) -> None:
    liked = rows.iloc[40]
    results = search.search(Query(like=liked["reading_id"]), 200)
    assert results.total > 10
    places = [(liked["transcript_id"], liked["position"])]
    for hit in results.hits:
        for transcript_id, position in places:
            apart = abs(position - hit.position) > NEIGHBOURS
            assert transcript_id != hit.transcript_id or apart
        places.append((hit.transcript_id, hit.position))
    with pytest.raises(NLAError, match="no reading 'nobody"):
        search.search(Query(like="nobody\ud800"))


def test_minus_words_hold_for_meaning_too(search: Search, rows: pd.DataFrame) -> None:
    without = [i for i, e in enumerate(rows["explanation"]) if "animals" not in e]
    found, _ = every(search, Query("mountains -animals", mode="semantic"), 500)
    assert {*found} <= {*without}
    assert len(found) == min(finding.NEAREST, len(without))
    plain, _ = every(search, Query("mountains", mode="semantic"), 500)
    kept = [row for row in plain if row in {*without}]
    assert found[: len(kept)] == kept
    browsed, _ = every(search, Query("-animals", mode="keyword"), 500)
    assert browsed == without


def test_without_an_encoder_words_are_still_found(dataset: Dataset) -> None:
    def missing(_: Sequence[str]) -> np.ndarray:
        raise NLAError("No encoder", why="it is not installed", fix="Install it")

    search = Search.over(dataset, missing)
    results = search.search(Query("geography"))
    assert results.total > 0
    assert "No encoder" in results.notes[0]
    with pytest.raises(NLAError, match="No encoder"):
        search.search(Query("geography", mode="semantic"))


def test_vectors_of_another_encoder_are_refused(tmp_path: Path, dataset: Dataset) -> None:
    wide = Search.over(dataset, lambda texts: hash_vectors(texts, 8))
    with pytest.raises(NLAError, match="16 dimensions"):
        wide.search(Query("x", mode="semantic"))
    make_dataset(tmp_path, settings={"embedder": "one"})
    other = Search.over(Dataset.open(tmp_path), embed, "another")
    with pytest.raises(NLAError, match="made by one"):
        other.search(Query("x", mode="semantic"))


def test_words_are_found_without_a_model_library(dataset: Dataset) -> None:
    source = f"""
import sys
from pathlib import Path
from nla_core.embed import MiniLM
from nla_core.search import Query, Search
from nla_core.store.dataset import Dataset
search = Search.over(Dataset.open(Path({str(dataset.root)!r})), MiniLM().embed)
assert search.search(Query("geography", mode="keyword")).total
assert not {{"torch", "faiss", "streamlit", "sentence_transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", source], check=True, cwd=Path(__file__).parents[1])


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


# ---- small parts ---------------------------------------------------------------------------------


def test_fusion_and_caps_by_hand() -> None:
    rows, scores = fused({"a": np.array([5, 7]), "b": np.array([7, 9])})
    assert rows.tolist() == [7, 5, 9]
    np.testing.assert_allclose(scores, [1 / 62 + 1 / 61, 1 / 61, 1 / 62])
    assert capped(np.arange(5), np.array([1, 1, 2, 1, 2]), 1).tolist() == [1, 0, 1, 0, 0]
    assert capped(np.arange(3), np.array([1, 1, 1]), None).all()


def test_threads_share_a_search(search: Search) -> None:
    expected = {text: search.search(Query(text), 5) for text in ("france", "topic", "animals")}
    wrong: list[str] = []

    def ask() -> None:
        fresh = search.search
        wrong.extend(text for text, page in expected.items() if fresh(Query(text), 5) != page)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
