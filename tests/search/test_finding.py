"""The right hits in the right order, by words, by meaning and by both."""

from __future__ import annotations

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

from nla_core.data import search as finding
from nla_core.data.dataset import Dataset
from nla_core.data.query import Filters, Query, Results
from nla_core.data.search import NEIGHBOURS, Search, capped, fused
from nla_core.errors import NLAError
from nla_core.schema import Flag, Role
from tests.helpers import hash_vectors, make_dataset
from tests.search.builders import FACTS, embed, every
from tests.store.test_fts import words_of

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
from nla_core.data.query import Query
from nla_core.data.search import Search
from nla_core.data.dataset import Dataset
search = Search.over(Dataset.open(Path({str(dataset.root)!r})), MiniLM().embed)
assert search.search(Query("geography", mode="keyword")).total
assert not {{"torch", "faiss", "streamlit", "sentence_transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", source], check=True, cwd=Path(__file__).parents[2])


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
