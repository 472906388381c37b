"""Explanations cut into claims: both ways of writing, and what comes out of bad ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nla_core.analysis.claims import LONGEST_SENTENCE, MOST_CLAIMS, Kind, split_claims

pytestmark = pytest.mark.unit

FIELDS = 'User, prose, at "of it?". Next: [end] / \\n / I. About: dime, price, prices. Text: of it?'
PROSE = """The user asks about a poet, clearly John Milton and "Paradise Lost".
- The final token "was" opens the answer; next tokens likely "John" or "blind".
2. **Format**: a <b>short</b> answer to Mr. Abel, e.g. one name."""


def found(text: str) -> list[tuple[str, str]]:
    return [(str(claim.kind), claim.text) for claim in split_claims(text)]


def test_fields_are_read_by_name() -> None:
    assert found(FIELDS) == [
        ("place", "User"),
        ("quote", "of it?"),
        ("prediction", "[end]"),
        ("prediction", "\\n"),
        ("prediction", "i"),
        ("topic", "dime"),
        ("topic", "price"),
        ("text", "of it?"),
    ]


def test_prose_is_read_by_sentence() -> None:
    texts = found(PROSE)
    assert ("name", "John Milton") in texts
    assert ("quote", "Paradise Lost") in texts
    assert ("quote", "was") in texts
    assert ("prediction", "John") in texts
    assert ("prediction", "blind") in texts
    assert ("name", "Mr. Abel") in texts
    sentences = [text for kind, text in texts if kind == "sentence"]
    assert [text.split()[0] for text in sentences] == [
        "The",
        "Format",
    ]  # the second one speaks of the text only
    assert sentences[-1].endswith("e.g. one name.")


def test_other_orders_and_names_of_fields() -> None:
    assert found("topic: rain. reading: the old bridge. next: a / b.") == [
        ("topic", "rain"),
        ("text", "the old bridge."),
        ("prediction", "a"),
        ("prediction", "b"),
    ]


def test_ranges_point_at_what_is_claimed() -> None:
    for explanation in (FIELDS, PROSE):
        for claim in split_claims(explanation):
            piece = explanation[claim.start : claim.end]
            if claim.kind is Kind.SENTENCE:
                assert piece.split()[-1] == claim.text.split()[-1]
            elif claim.kind is not Kind.PLACE:
                assert claim.text.casefold() in piece.casefold()


@pytest.mark.parametrize("text", ["", " \n ", "<div><p></p></div>", "...", "—", "**  **"])
def test_nothing_to_claim(text: str) -> None:
    assert split_claims(text) == ()


def test_a_cut_explanation_keeps_what_is_whole() -> None:
    cut = 'Answer, prose, at "a morning". Next: , / that. About: jennifer. Text: of it\n</explanat'
    assert found(cut)[-1] == ("text", "of it")
    assert found('Answer, prose, at "a morn') == [("place", "Answer")]


def test_one_endless_line_is_cut_into_pieces() -> None:
    line = " ".join(f"word{i}" for i in range(5_000))
    claims = split_claims(line)
    assert 1 < len(claims) <= MOST_CLAIMS
    assert max(c.end - c.start for c in claims) <= LONGEST_SENTENCE
    assert len(split_claims("x" * 100_000)) <= MOST_CLAIMS


def test_other_scripts_are_sentences_too() -> None:
    assert found("思考中。用户问天气。") == [("sentence", "思考中。"), ("sentence", "用户问天气。")]
    assert ("sentence", "Пользователь спрашивает о погоде.") in found(
        "Пользователь спрашивает о погоде."
    )


def test_markup_is_not_claimed() -> None:
    text = "<p>The <b>bridge</b> is old.</p><script>alert(1)</script> <|im_end|>"
    assert not any("<" in claim or "script" in claim for _, claim in found(text))
    assert ("quote", "<div>") in found('The text holds "<div>" as code.')


@given(st.text(max_size=400))
def test_any_text_gives_claims_inside_of_it(text: str) -> None:
    for claim in split_claims(text):
        assert 0 <= claim.start < claim.end <= len(text)
        assert claim.text.strip()
