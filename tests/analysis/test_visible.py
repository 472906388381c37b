"""The visible text on either side of a token, and how characters and positions map."""

from __future__ import annotations

import pytest

from nla_core.analysis.visible import Visible, plain_quote

pytestmark = pytest.mark.unit

TOKENS = ["<|start|>", "user", "\n", "An", " old", " bri", "dge", "<|end|>"]
TOKENS += ["The", " bridge", " is", "n't", " new"]
SECTIONS = ["template"] * 3 + ["content"] * 4 + ["template"] + ["content"] * 5
ROLES = ["user"] * 8 + ["assistant"] * 5


def visible() -> Visible:
    return Visible.of(TOKENS, SECTIONS, ROLES)


def test_markup_is_left_out_and_turns_are_divided() -> None:
    assert visible().text == "An old bridge\nThe bridge isn't new"


def test_characters_and_positions_map_onto_each_other() -> None:
    text = visible()
    span = text.span(text.text.index("bridge"), text.text.index("bridge") + 6)
    assert (span.first, span.last) == (5, 6)
    assert text.cut(5) == len("An old bri")
    assert text.cut(0) == text.cut(2) == 0
    assert text.cut(7) == text.cut(6)


def test_words_on_either_side_of_a_token() -> None:
    before, after = visible().find_word("bridg", 6)
    assert (before.start, after.start) == (7, 18)
    before, after = visible().find_word("bridg", 4)
    assert before is None
    assert after.start == 7
    # what a token has begun of a word counts as a word
    assert visible().find_word("bri", 5)[0] is not None


@pytest.mark.parametrize(
    ("quote", "position", "expected"),
    [
        ("old bridge", 6, (True, False)),
        ("OLD  bridge.", 6, (True, False)),
        ("[user] An old", 6, (True, False)),
        ("old bri", 5, (True, False)),
        ("old bri", 6, (False, False)),  # ends inside of a word that is whole by now
        ("ridge", 6, (False, False)),
        ("old bridge", 4, (False, True)),
        ("bridge\\nThe", 12, (True, False)),
        ("isn’t new", 12, (True, False)),
        ("the old bridge", 12, (False, False)),
    ],
)
def test_quotations_are_found_verbatim(
    quote: str, position: int, expected: tuple[bool, bool]
) -> None:
    before, after = visible().find_quote(quote, position)
    assert (before is not None, after is not None) == expected


def test_a_quotation_that_is_partly_there() -> None:
    share, span = visible().longest_run("a new old bridge", 12)
    assert share == 0.5
    assert visible().text[span.start : span.end] == "old bridge"
    assert visible().longest_run("elephants", 12) == (0.0, None)


def test_quotations_are_made_plain() -> None:
    assert plain_quote("…Of  it?") == "of it"
    assert plain_quote('"') == "'"
    assert plain_quote("\\n\\n") == ""


def test_a_transcript_of_one_token() -> None:
    text = Visible.of(["Hi"], ["content"], ["user"])
    assert text.find_word("hi", 0)[0].text == "hi"
    assert text.span(0, 2).first == text.span(0, 2).last == 0
    empty = Visible.of(["<s>"], ["template"], ["user"])
    assert empty.find_word("hi", 0) == (None, None)
    assert empty.find_quote("hi", 0) == (None, None)


def test_text_whose_tokens_are_not_known() -> None:
    whole = Visible.of_text("Hi.", "\nHello", roles_after=["assistant"], ends_turn=True)
    assert whole.text == "Hi.\nHello"
    assert whole.cut(0) == 3
    assert whole.roles[0] == "user"
    assert whole.roles[-1] == "assistant"
