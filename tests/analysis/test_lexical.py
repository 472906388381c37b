"""Words as they are matched: inflection, numbers, negations, other scripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nla_core.analysis.visible import content_stems, stem, words

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "forms",
    [
        ["make", "makes", "making", "made"],
        ["hop", "hops", "hopped", "hopping"],
        ["city", "cities"],
        ["box", "boxes"],
        ["child", "children"],
        ["bear", "bears"],
        ["glass", "glasses"],
        ["fall", "falls", "falling"],
        ["three", "3"],
    ],
)
def test_forms_of_a_word_meet(forms: list[str]) -> None:
    assert len({stem(form) for form in forms}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [("14", "41"), ("1", "10"), ("bus", "bu"), ("string", "str"), ("need", "ne"), ("3.5", "35")],
)
def test_different_words_stay_different(one: str, other: str) -> None:
    assert stem(one) != stem(other)


def test_numbers_are_read_as_themselves() -> None:
    assert [word.stem for word in words("1,000 apples, 3.5 and 22:45")] == [
        "1000", "appl", "3.5", "and", "22", "45",
    ]  # fmt: skip
    assert all(word.is_number and word.is_content for word in words("7 twelve 0"))


def test_negations_turn_the_words_behind_them() -> None:
    turned = {w.text: w.negated for w in words("The tram is not free today, the bus is free")}
    assert turned["free"] is False  # the last one
    first = [w.negated for w in words("The tram isn't free. The bus is free") if w.text == "free"]
    assert first == [True, False]
    assert [w.negated for w in words("never a very very big dog") if w.text == "dog"] == [False]


def test_identifiers_and_scripts_are_cut() -> None:
    assert [w.text for w in words("IndexError in days_in_week")] == [
        "index", "error", "in", "days", "in", "week",
    ]  # fmt: skip
    assert [w.text for w in words("用户a问")] == ["用", "户", "a", "问"]
    assert [w.text for w in words("Как будет завтра")] == ["как", "будет", "завтра"]


def test_function_words_say_nothing() -> None:
    assert content_stems(words("the of and it is a not")) == frozenset()
    assert content_stems(words("the old bridges")) == {"old", "bridg"}


@given(st.text(max_size=300))
def test_ranges_hold_for_any_text(text: str) -> None:
    found = words(text)
    assert all(0 <= w.start < w.end <= len(text) for w in found)
    assert all(a.end <= b.start for a, b in zip(found, found[1:], strict=False))
    assert all(w.stem for w in found)
