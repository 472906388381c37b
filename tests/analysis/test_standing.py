"""Constructed transcripts with known answers: where a planted word stands decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nla_core.analysis.claims import Claim, Kind, split_claims
from nla_core.analysis.standing import (
    STANDING_TEXT,
    THRESHOLDS_FILE,
    Meaning,
    Standing,
    Thresholds,
    judge,
)
from nla_core.analysis.visible import Visible
from nla_core.errors import NLAError
from tests.analysis.embedder import BagOfWords

pytestmark = pytest.mark.unit

LIMITS = Thresholds.load()


def standing(
    kind: Kind, text: str, before: str, after: str = "", *, lexical: bool = False, **place: object
) -> Standing:
    claim = Claim(kind, text, 0, len(text))
    visible = Visible.of_text(before, after, **place)  # type: ignore[arg-type]
    meaning = None if lexical else Meaning(visible, BagOfWords().embed, [claim])
    return judge(claim, visible, 0, meaning, LIMITS).standing


SAID, FORESEEN, UNSPOKEN, UNCLEAR = (
    Standing.SAID, Standing.FORESEEN, Standing.UNSPOKEN, Standing.UNCLEAR,
)  # fmt: skip


@pytest.mark.parametrize("kind", [Kind.TOPIC, Kind.NAME, Kind.PREDICTION])
@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("We saw a lantern there", " and went on", SAID),
        ("We went on there", " and saw a lantern", FORESEEN),
        ("We saw two lanterns there", " and went on", SAID),
        ("We went on there", " and came back", UNSPOKEN),
        ("We saw a lantern there", " and another lantern", SAID),
    ],
)
def test_a_planted_word(kind: Kind, before: str, after: str, expected: Standing) -> None:
    assert standing(kind, "lantern", before, after) is expected
    assert standing(kind, "lantern", before, after, lexical=True) is expected


@pytest.mark.parametrize(
    ("claim", "before", "expected"),
    [
        ("14", "She has 14 pencils", SAID),
        ("14", "She has fourteen or 41 pencils", UNSPOKEN),
        ("14", "She has 1 and 4 pencils", UNSPOKEN),
        ("seven", "It rang 7 times", SAID),
        ("1000", "It brought 1,000 tonnes", SAID),
        ("1000", "It brought 3,100 tonnes", UNSPOKEN),
    ],
)
def test_numbers_are_themselves(claim: str, before: str, expected: Standing) -> None:
    assert standing(Kind.TOPIC, claim, before, " here") is expected


def test_a_sentence_with_another_number_is_not_said() -> None:
    before = "Ana has 14 red pencils in her bag."
    assert standing(Kind.SENTENCE, "Ana has 14 red pencils.", before) is SAID
    assert standing(Kind.SENTENCE, "Ana has 15 red pencils.", before) is not SAID


def test_a_negated_sentence_is_not_said() -> None:
    before = "The tram is free on Sundays, says the driver."
    assert standing(Kind.SENTENCE, "The tram is free on Sundays.", before) is SAID
    assert standing(Kind.SENTENCE, "The tram isn't free on Sundays.", before) is not SAID
    negated = "The tram is not free on Sundays, says the driver."
    assert standing(Kind.SENTENCE, "The tram is free on Sundays.", negated) is not SAID
    assert standing(Kind.SENTENCE, "The tram is never free on Sundays.", negated) is SAID
    # A topic is named by a text that denies it, too.
    assert standing(Kind.TOPIC, "tram", "There is no tram here", "") is SAID


@pytest.mark.parametrize(
    ("claim", "before", "expected"),
    [
        ("Hund", "Der Hund schläft am Fenster", SAID),
        ("Hunde", "Die Katze schläft am Fenster", UNSPOKEN),
        ("завтра", "Как будет завтра", SAID),
        ("猫", "猫が窓のそばで", SAID),
        ("犬", "猫が窓のそばで", UNSPOKEN),
    ],
)
def test_other_languages(claim: str, before: str, expected: Standing) -> None:
    assert standing(Kind.TOPIC, claim, before, " .") is expected


@pytest.mark.parametrize(
    ("quote", "expected"),
    [
        ("the old bridge", SAID),
        ("over the river", FORESEEN),
        ("bridge over the", FORESEEN),  # runs across the token
        ("the new bridge", Standing.QUOTE_NOT_FOUND),
        ("The old   BRIDGE…", SAID),
        ("bridges", Standing.QUOTE_NOT_FOUND),  # a quotation is not inflected
    ],
)
@pytest.mark.parametrize("kind", [Kind.QUOTE, Kind.TEXT])
def test_quotations(kind: Kind, quote: str, expected: Standing) -> None:
    assert standing(kind, quote, "We saw the old bridge", " over the river") is expected


def test_a_quotation_that_is_not_found_points_at_what_is_there() -> None:
    visible = Visible.of_text("We saw the old bridge", "")
    claim = Claim(Kind.QUOTE, "at the old mill", 0, 15)
    verdict = judge(claim, visible, 0, None, LIMITS)
    assert verdict.standing is Standing.QUOTE_NOT_FOUND
    assert verdict.score == 0.5
    assert visible.text[verdict.evidence.start : verdict.evidence.end] == "the old"


@pytest.mark.parametrize(
    ("word", "after", "expected"),
    [
        ("the", " the river", FORESEEN),
        ("the", " a river and the sea", UNCLEAR),
        (",", ", and more", FORESEEN),
        (".", ", and more", UNCLEAR),
        ("rivers", " river of ice", FORESEEN),
        ("but", ", but then", FORESEEN),
        ("sea", " river and the sea", FORESEEN),
        ("moon", " river and the sea", UNSPOKEN),
        ("bridge", " river and the sea", SAID),
        ("ger", "ger of ice", FORESEEN),
    ],
)
def test_expected_words(word: str, after: str, expected: Standing) -> None:
    assert standing(Kind.PREDICTION, word, "We saw the bridge and fin", after) is expected


def test_the_end_of_a_turn_is_expected() -> None:
    assert standing(Kind.PREDICTION, "[end]", "Hi.", "\nHello", ends_turn=True) is FORESEEN
    assert standing(Kind.PREDICTION, "[end]", "Hi.", "") is FORESEEN
    assert standing(Kind.PREDICTION, "[end]", "Hi.", " Hello") is UNCLEAR


def test_whose_turn_it_is() -> None:
    place = {"role": "user", "roles_after": ["assistant"]}
    assert standing(Kind.PLACE, "User", "Hi", " there", **place) is SAID
    assert standing(Kind.PLACE, "Answer", "Hi", " there", **place) is FORESEEN
    assert standing(Kind.PLACE, "System", "Hi", " there", **place) is UNSPOKEN
    assert standing(Kind.PLACE, "Text", "Hi", " there", **place) is UNCLEAR


def test_evidence_points_at_tokens_and_characters() -> None:
    visible = Visible.of([" We", " saw", " ice", " and", " snow"], ["content"] * 5, ["user"] * 5)
    verdict = judge(Claim(Kind.TOPIC, "snow", 0, 4), visible, 1, None, LIMITS)
    assert verdict.standing is FORESEEN
    assert (verdict.evidence.first, verdict.evidence.last) == (4, 4)
    assert visible.text[verdict.evidence.start : verdict.evidence.end] == "snow"


def test_words_about_the_text_decide_nothing() -> None:
    text = "The final phrase of the sentence describes a bridge."
    assert standing(Kind.SENTENCE, text, "We saw the old bridge") is SAID
    assert standing(Kind.TOPIC, "the", "We saw the old bridge") is UNCLEAR


@pytest.mark.parametrize(
    "explanation",
    [
        "",
        "x" * 5_000,
        "<div>" * 500,
        "思考中。用户问天气。",
        'User, prose, at "cut',
        "word " * 3_000,
    ],
)
def test_bad_explanations_are_judged_all_the_same(explanation: str) -> None:
    claims = split_claims(explanation)
    visible = Visible.of_text("A short text", " goes on")
    meaning = Meaning(visible, BagOfWords().embed, claims)
    for claim in claims:
        verdict = judge(claim, visible, 0, meaning, LIMITS)
        assert verdict.standing in Standing
        assert 0.0 <= verdict.score <= 1.0


def test_a_transcript_of_one_token_and_of_none() -> None:
    for visible in (
        Visible.of(["Hi"], ["content"], ["user"]),
        Visible.of(["<s>"], ["template"], ["user"]),
    ):
        claims = split_claims('User, prose, at "Hi". Next: a / rain. About: rain. Text: Hi') + (
            split_claims("The rain falls on Rome.")
        )
        meaning = Meaning(visible, BagOfWords().embed, claims)
        found = {c.text: judge(c, visible, 0, meaning, LIMITS).standing for c in claims}
        assert found["rain"] is UNSPOKEN
        assert found["Rome"] is UNSPOKEN


def test_every_standing_is_explained() -> None:
    assert set(STANDING_TEXT) == set(Standing)


def test_thresholds_are_checked_and_hashed(tmp_path: Path) -> None:
    data = json.loads(THRESHOLDS_FILE.read_text())
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(data | {"word_said": 0.123}))
    assert Thresholds.load(path).key != LIMITS.key
    for broken in ({"word_said": 2.0}, {"word_said": None}):
        path.write_text(json.dumps(data | broken))
        with pytest.raises(NLAError, match="cannot be used"):
            Thresholds.load(path)
    del data["word_said"]
    path.write_text(json.dumps(data))
    with pytest.raises(NLAError, match="word_said"):
        Thresholds.load(path)
