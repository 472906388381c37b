"""The charts say what they should, in forms that Plotly accepts."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go
import pytest

from nla_core.ui import charts
from nla_core.ui.later import ordinal, signed
from nla_core.ui.palette import contrast

TOKENS = [" the", "\n", "<b>", "&amp;", "$x$"]
PROBABILITIES = [0.5, 0.2, 0.1, 0.01, 0.00001]


def figure(**changes: object) -> charts.Figure:
    settings = {"came": " the", "came_probability": 0.5} | changes
    return charts.next_tokens(TOKENS, PROBABILITIES, **settings)  # type: ignore[arg-type]


def test_the_token_that_came_is_marked_among_the_predictions() -> None:
    made = figure()
    labels = made["layout"]["yaxis"]["ticktext"]
    assert [label.endswith("◂") for label in labels] == [True, False, False, False, False]
    colours = made["data"][0]["marker"]["color"]
    assert colours[0] not in colours[1:]


def test_a_token_that_was_not_predicted_gets_its_own_row() -> None:
    made = figure(came="rabbit", came_probability=0.003)
    assert made["layout"]["yaxis"]["ticktext"][-1] == "rabbit ◂"
    assert made["data"][0]["text"][-1] == "0.3%"


def test_the_last_token_of_a_transcript_has_nothing_that_came() -> None:
    made = figure(came=None, came_probability=None)
    assert not any("◂" in label for label in made["layout"]["yaxis"]["ticktext"])


def test_labels_hold_nothing_that_plotly_takes_for_markup() -> None:
    labels = " ".join(figure()["layout"]["yaxis"]["ticktext"] + figure()["data"][0]["text"])
    assert not set("<>&$") & set(labels)


def line(values: dict[int, float], **settings: Any) -> charts.Figure:
    given = {"low": -0.1, "high": 1.0, "name": "FVE", "locked": None, "span": None}
    return charts.line_along(values, **(given | settings))


def test_the_line_is_broken_where_nothing_was_measured() -> None:
    turns = dict.fromkeys((*range(20, 26), *range(33, 40)), 0.5)
    made = line(turns)["data"][0]
    assert [x for x, y in zip(made["x"], made["y"], strict=True) if y is None] == [26]
    assert len(made["x"]) == len(turns) + 1
    every_fourth = line(dict.fromkeys(range(0, 40, 4), 0.5))["data"][0]
    assert None not in every_fourth["y"]
    other = charts.divergence({"so far": turns}, locked=None)["data"][0]
    assert other["y"].count(None) == 1


def test_the_line_marks_the_locked_token_and_keeps_zero_in_sight() -> None:
    made = line({3: 0.1, 9: 0.2, 5: 0.4}, locked=5)
    assert made["data"][0]["x"] == [3, 5, 9]
    assert made["data"][1]["x"] == [5]
    low, high = made["layout"]["yaxis"]["range"]
    assert low < 0 < high
    assert line({3: 0.1}, locked=4)["data"][1]["x"] == []


def test_the_line_shows_the_marked_range_and_where_a_phrase_stands() -> None:
    made = line({0: 0.5, 1: 0.7}, span=(1, 4), in_readings=(1,), in_text=(0, 3))
    (shape,) = made["layout"]["shapes"]
    assert (shape["x0"], shape["x1"]) == (0.5, 4.5)
    assert [trace["x"] for trace in made["data"][2:]] == [[1], [0, 3]]
    heights = {y for trace in made["data"][2:] for y in trace["y"]}
    assert len(heights) == 2  # two rows that do not cover each other
    assert max(heights) < 0.5
    assert min(heights) > made["layout"]["yaxis"]["range"][0]
    assert line({0: 0.5})["layout"]["shapes"] == []


def test_plotly_accepts_every_figure() -> None:
    go.Figure(figure())
    go.Figure(line({0: -3.0, 1: 1.0}, span=(0, 1), in_readings=(0,), in_text=(1,)))
    go.Figure(line({}))
    go.Figure(charts.counts({"a <b>": 3, "c": 0}, "transcripts"))


def test_counts_come_with_the_most_first() -> None:
    made = charts.counts({"b": 2, "a": 2, "<i>": 5}, "transcripts")
    assert made["data"][0]["x"] == [5, 2, 2]
    assert made["layout"]["yaxis"]["ticktext"] == ["‹i›", "a", "b"]


def test_text_and_grid_follow_the_theme_of_the_page() -> None:
    """A change of theme runs nothing in Python, so no colour of text may be baked in."""
    for made in (figure(), line({0: 0.1, 1: 0.2}, locked=0)):
        for axis in ("xaxis", "yaxis"):
            settings = made["layout"][axis]
            assert "color" not in settings.get("tickfont", {})
            assert "gridcolor" not in settings
        assert "color" not in made["data"][0].get("textfont", {})
    for colour in (charts._BAR, charts._CAME, charts._LINE):
        assert contrast(colour, "#ffffff") > 2.5
        assert contrast(colour, "#0f1319") > 3


def test_no_character_is_invisible_in_a_label() -> None:
    assert charts.visible(" a\n\t\u200b") == "·a↵⇥⟨U+200B⟩"
    assert charts.visible("") == "∅"


def test_numbers_in_words() -> None:
    assert [charts.percent(p) for p in (1.0, 0.614, 0.0999, 0.004, 0.0001)] == [
        "100%",
        "61%",
        "10%",
        "0.4%",
        "<0.1%",
    ]
    assert charts.probability(None) is None
    assert charts.probability(math.log(2)) == pytest.approx(0.5)
    assert [signed(v) for v in (0.42, -0.42, -0.001)] == ["0.42", "−0.42", "0.00"]
    assert [ordinal(p) for p in (0.2, 1, 2, 3, 11, 12.4, 21, 100)] == [
        "0th",
        "1st",
        "2nd",
        "3rd",
        "11th",
        "12th",
        "21st",
        "100th",
    ]


def test_shares_stand_beside_chance_and_leave_out_what_the_pair_misses() -> None:
    figure = charts.shares(
        [("rhyme", 0.5, 0.4, 0.6, 0.1, 0.3), ("deceit", None, 0.1, 0.2, 0.1, 0.0)]
    )
    held, text, chance = figure["data"]
    assert (held["x"], held["y"], chance["x"], text["x"]) == ([0.5], [0], [0.1], [0.3, 0.0])
    first, second = figure["layout"]["yaxis"]["ticktext"]
    assert "50%, by chance 10%" in first
    assert "not usable with this pair" in second
