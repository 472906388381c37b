"""Themes: what returns beyond what every explanation says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nla_core.analysis.themes import Background, terms, themes

FORM = [f'Answer, prose, at "w{i}". Next: a / the. About: cooking. Text: w{i}' for i in range(200)]


def test_words_that_every_explanation_uses_are_no_theme() -> None:
    background = Background.of(FORM)
    stretch = [(i, FORM[i].replace("cooking", "the moon")) for i in range(6)]
    found = themes(stretch, background)
    assert [theme.term for theme in found] == ["moon"]
    assert found[0].positions == (0, 1, 2, 3, 4, 5)
    assert found[0].expected < 0.1


def test_said_once_is_no_theme() -> None:
    background = Background.of(FORM)
    stretch = [(0, "About a rabbit."), (1, "About a carrot."), (2, "A rabbit again, rabbit.")]
    assert [(t.term, t.count) for t in themes(stretch, background)] == [("rabbit", 2)]


def test_a_word_that_comes_with_its_neighbour_is_told_as_the_pair() -> None:
    background = Background.of([*FORM, "space", "space"])
    stretch = [(i, "At the space station.") for i in range(5)]
    found = [theme.term for theme in themes(stretch, background)]
    assert "station" in found[0]
    assert len(found) == 1


def test_pairs_do_not_reach_over_punctuation() -> None:
    assert terms("About: mary, mary. Text: the world") == {"mary", "text", "world"}
    assert terms("a rhyming couplet") == {"rhyming", "couplet", "rhyming couplet"}
    assert terms("挨拶 の 言葉") >= {"挨拶", "言葉"}


def test_nothing_in_nothing_out() -> None:
    assert themes([], Background.of([])) == ()
    assert themes([(0, "only one")], Background.of([])) == ()


@given(st.lists(st.tuples(st.integers(0, 50), st.text(max_size=60)), max_size=30))
def test_a_theme_stands_where_it_says(readings: list[tuple[int, str]]) -> None:
    background = Background.of(text for _, text in readings[:5])
    for theme in themes(readings, background, most=5):
        assert theme.count >= 2
        where = sorted(p for p, text in readings if theme.term in terms(text))
        assert list(theme.positions) == where
