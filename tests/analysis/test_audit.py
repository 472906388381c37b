"""Counting concepts over a corpus: any-of-N, intervals, floors; leaderboard and foresight."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from nla_core.analysis.audit import AuditColumns, audit_table, picked
from nla_core.analysis.foresight import foresight, foresight_summary, line_of
from nla_core.analysis.leaderboard import claim_key, merged, summarise
from nla_core.analysis.visible import Visible

pytestmark = pytest.mark.unit


def columns(**changes: np.ndarray) -> AuditColumns:
    """Four transcripts of five readings; concept 0 is held by readings of 0 and 1, text of 1, 2."""
    scores = np.zeros((20, 2), np.float32)
    scores[[2, 6], 0] = 0.9
    values = {
        "scores": scores,
        "transcript": np.repeat(np.arange(4), 5),
        "usable": np.ones(20, bool),
        "text_scores": np.array([[0, 0], [0.9, 0], [0.9, 0], [0, 0]], np.float32),
        "windows": np.array([3, 3, 3, 3]),
        "categories": np.array(["a", "a", "b", "b"], object),
        "unrelated": np.array([[0.9, 0], [0, 0], [0, 0], [0, 0]], np.float32),
    }
    return AuditColumns(**(values | changes))


def test_the_table_counts_transcripts() -> None:
    table = audit_table(columns(), ["first", "second"], np.array([0.5, 0.5]), n=5)
    rows = table.set_index(["concept", "category"])
    whole = rows.loc["first", "all"]
    assert [whole[k] for k in ("n_transcripts", "explanations", "text", "both", "neither")] == [
        4, 2, 2, 1, 1,
    ]  # fmt: skip
    assert whole["explanations_only"] == 1
    assert whole["explanations_share"] == 0.5
    assert whole["low"] < 0.5 < whole["high"]
    assert whole["floor"] == pytest.approx(1 - 0.75**5)
    assert whole["text_floor"] == pytest.approx(1 - 0.75**3)
    assert whole["reading_floor"] == 0.25
    assert whole["readings_share"] == pytest.approx(2 / 20)
    assert rows.loc["first", "a"]["explanations"] == 2
    assert rows.loc["first", "b"]["text"] == 1
    assert rows.loc["second", "all"]["explanations"] == 0
    assert rows.loc["second", "all"]["floor"] == 0.0
    assert (table["any_of"] == 5).all()
    assert rows.loc["first", "a"]["elsewhere"] == 0.0
    assert rows.loc["first", "b"]["elsewhere"] == 1.0
    assert rows.loc["first", "b"]["text_elsewhere"] == 0.5
    assert whole["elsewhere"] is None or np.isnan(whole["elsewhere"])


def test_readings_that_are_left_out_hold_nothing() -> None:
    usable = np.ones(20, bool)
    usable[[2, 15, 16, 17, 18, 19]] = False  # one that holds, and all of the last transcript
    table = audit_table(columns(usable=usable), ["first", "second"], np.array([0.5, 0.5]), n=5)
    whole = table.set_index(["concept", "category"]).loc["first", "all"]
    assert whole["n_transcripts"] == 3
    assert whole["explanations"] == 1


def test_the_same_number_of_readings_of_every_transcript() -> None:
    owner = np.repeat([0, 1, 2], [100, 3, 8])
    chosen = picked(owner, np.ones(len(owner), bool), 8)
    assert np.bincount(owner[chosen]).tolist() == [8, 3, 8]
    first = chosen[owner[chosen] == 0]
    assert first.min() < 10 and first.max() > 90  # noqa: PT018
    assert len(picked(owner, np.zeros(len(owner), bool), 8)) == 0


@pytest.mark.slow
def test_a_million_readings_in_a_second() -> None:
    n, k = 1_000_000, 10
    rng = np.random.default_rng(0)
    owner = np.sort(rng.integers(0, 5_000, n))
    big = AuditColumns(
        scores=rng.random((n, k), np.float32),
        transcript=owner,
        usable=rng.random(n) < 0.9,
        text_scores=rng.random((5_000, k), np.float32),
        windows=np.full(5_000, 20),
        categories=np.array([f"c{i % 14}" for i in range(5_000)], object),
        unrelated=rng.random((48, k), np.float32),
    )
    start = time.process_time()
    table = audit_table(big, [f"k{i}" for i in range(k)], np.full(k, 0.999, np.float32))
    assert len(table) == 15 * k
    assert time.process_time() - start < 1.0


def rows_of(*claims: tuple[str, str, str, int, int]) -> pd.DataFrame:
    """(key, standing, transcript, position, recurrence)"""
    return pd.DataFrame(
        [
            {
                "key": key, "kind": "topic", "standing": standing, "category": transcript[0],
                "trusted": position != 99, "transcript_id": transcript, "position": position,
                "sample": 0, "start": 0, "end": 5, "text": key, "recurrence": recurrence,
            }
            for key, standing, transcript, position, recurrence in claims
        ]
    )  # fmt: skip


def test_the_leaderboard_ranks_what_recurs() -> None:
    summary = summarise(
        rows_of(
            ("test", "unspoken", "a1", 4, 3),
            ("test", "unspoken", "a1", 5, 3),
            ("test", "unspoken", "b1", 5, 0),
            ("once", "unspoken", "a1", 6, 0),
            ("mary", "unspoken", "a1", 1, 9),
            ("mary", "unspoken", "a2", 1, 9),
            ("mary", "unspoken", "b1", 1, 9),
            ("mary", "unspoken", "b2", 99, 9),
            ("said", "said", "a1", 7, 9),
            ("", "unspoken", "a1", 8, 9),
        )
    )
    board = merged(summary, 20)
    assert board["key"].tolist() == ["test"]  # once is once, mary a habit
    row = board.iloc[0]
    assert (row["n_readings"], row["n_recurring"], row["best_recurrence"]) == (2, 2, 3)
    assert (row["transcript_id"], row["position"]) == ("a1", 4)
    habits = merged(summary, 20, habits=True)
    assert habits["key"].tolist() == ["mary", "test"]
    assert habits.iloc[0]["n_transcripts"] == 3
    every = merged(summary, 20, habits=True, trusted_only=False)
    assert every.iloc[0]["n_transcripts"] == 4
    assert merged(summary, 20, category="b", habits=True)["key"].tolist() == ["mary"]
    assert merged(summary, 20, standing="foreseen").empty


def test_nothing_to_rank() -> None:
    assert summarise(rows_of(("x", "said", "a1", 1, 0))).empty
    assert claim_key(frozenset({"b", "a"})) == "a b"


def line(name: str, answer: list[str], readings: dict[int, str]):  # noqa: ANN202
    texts = ["Rhyme", " please", *answer]
    visible = Visible.of(
        texts, ["content"] * len(texts), ["user"] * 2 + ["assistant"] * len(answer)
    )
    return line_of(name, visible, list(readings), list(readings.values()))


def test_the_last_word_is_looked_for_before_it_is_said() -> None:
    hunger = [" His", " hunger", " was", " a", " rabbit", "."]
    lines = [
        line("one", hunger, {1: "rabbit", 2: "Next: rabbit", 4: "a rabbit", 5: "bread", 6: "x"}),
        line("two", [" All", " night", " it", " rained", " bread"], {2: "rabbit", 3: "salt"}),
    ]
    assert [(item.word, item.at) for item in lines] == [("rabbit", 6), ("bread", 6)]
    found = foresight(lines)
    assert (found[0].n, found[0].hits, found[0].earliest) == (3, 2, 4)
    assert found[0].control == 0.5
    assert found[1].earliest is None
    assert found[1].control == pytest.approx(1 / 3)
    summary = foresight_summary(found)
    assert summary["transcripts_foreseen"] == 1
    assert summary["readings_share"] == pytest.approx(2 / 5)
    assert summary["low"] < 0.4 < summary["high"]


def test_a_word_the_user_has_said_is_not_foreseen() -> None:
    assert line("one", [" Yes", " please"], {2: "please"}) is None
    assert foresight([]) == []
    assert foresight_summary([])["readings_share"] is None
