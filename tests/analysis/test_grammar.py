"""What an explanation quotes and names as next, read off well-formed and sloppy texts."""

from __future__ import annotations

import pytest

from nla_core.analysis.claims import (
    as_word,
    next_words,
    only_quotes,
    quotes,
    stands_in,
    without_quotes,
)
from precompute.train.labels import Idf, structured_label
from tests.train.test_labels import _raw


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('At "a": "b a". Next: paid / Not / a. About: rain, fox.', ["paid", "not", "a"]),
        ("topic: rain. reading: x. next: paid / not / a.", ["paid", "not", "a"]),
        ("Next: . / and / ,. About: river.", [".", "and", ","]),
        ("Next: and / .. About: river.", ["and", "."]),
        ("Next: and / ..", ["and", "."]),
        ("Next: and / .", ["and", "."]),
        ("Next: .", ["."]),
        ("Next tokens: a/b/c", ["a", "b", "c"]),
        ("next words = 'a', \"b\", c", ["a", "b", "c"]),
        ("next: \\n / [end]\nreading: more", ["\\n", "[end]"]),
        ("Next: a / a / b.", ["a", "b"]),
        ("Next: one", ["one"]),
        ("Next: ''' / 'a' / \"\".", ["'''", "a", "''"]),
        ("Next:", []),
        ("what comes next is unclear", []),
        ('At "x": "and next: nothing here". About: y.', []),
        ('At "x": "next: a". Next: b.', ["b"]),
    ],
)
def test_next_words(text: str, words: list[str]) -> None:
    assert next_words(text) == words


def test_next_words_of_labels_are_those_the_target_expects() -> None:
    top = [" Rain", "\n", "<|im_end|>"]
    label = structured_label(_raw("the quick brown fox"), top, [0.4, 0.3, 0.2], Idf.fit(["x"]))
    assert set(next_words(label)) == {as_word(token) for token in top}


def test_tokens_are_named_in_one_way() -> None:
    assert [as_word(t) for t in (" The", "\n\n", "<|im_end|>", "</s>", ' "', " ")] == [
        "the", "\\n\\n", "[end]", "[end]", "'", "",
    ]  # fmt: skip


def test_quotes_leave_out_the_field_next() -> None:
    text = 'At "bridge": “the old bridge”. Next: "over it" / "a". About: "rain".'
    assert quotes(text) == ["bridge", "the old bridge", "rain"]
    assert only_quotes(text) == "bridge the old bridge rain"
    assert without_quotes(text) == 'At : . Next: "over it" / "a". About: .'


def test_text_without_quotes() -> None:
    assert quotes('an open " mark and an empty "" one') == ["mark and an empty"]
    assert only_quotes("plain") == ""
    assert without_quotes("plain  text") == "plain text"


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("the old  STONE", True),
        ("[user] the old", True),
        ("stone\\nbridge", True),
        ("…old stone…", True),
        ("said 'go'", True),
        ("the stone old", False),
        ("...", False),
        ("\\n", True),
        ("\\n\\n", False),
        ("", False),
    ],
)
def test_quotes_are_looked_up_forgivingly(quote: str, found: bool) -> None:
    assert stands_in(quote, 'The old stone\nbridge, she said "go"') is found
