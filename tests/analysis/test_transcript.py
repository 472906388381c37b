"""A whole transcript at once: recurrence, predictions, divergence, and how much work it is."""

from __future__ import annotations

import numpy as np
import pytest

from nla_core.analysis.claims import split_claims
from nla_core.analysis.semantic import (
    STRIDE_WORDS,
    WINDOW_WORDS,
    EmbedOnce,
    SemanticIndex,
    window_ranges,
)
from nla_core.analysis.standing import Standing, Thresholds, expectation
from nla_core.analysis.transcript import WINDOW, Compared, compare_transcript, recurrences
from nla_core.analysis.visible import Visible
from tests.analysis.embedder import BagOfWords

pytestmark = pytest.mark.unit


def tokens_of(text: str) -> dict[str, list]:
    texts = [" " + word for word in text.split()]
    return {
        "text": texts,
        "section": ["content"] * len(texts),
        "role": ["user"] * len(texts),
        "top_tokens": [[" the", " of"]] * len(texts),
        "top_probs": [[0.5, 0.25]] * len(texts),
    }


def compared(text: str, explanations: dict[int, str], embed: EmbedOnce | None = None) -> Compared:
    embed = embed or EmbedOnce(BagOfWords().embed)
    return compare_transcript(
        tokens_of(text),
        list(explanations),
        list(explanations.values()),
        embed(list(explanations.values())),
        embed=embed,
        thresholds=Thresholds.load(),
    )


def test_a_claim_that_neighbours_make_recurs() -> None:
    texts = ["About the lantern.", "Two lanterns burn.", "A boat.", "The lantern again."]
    claims = [split_claims(f"User, prose. About: {word}. Text: x") for word in
              ("lantern", "lanterns", "boat", "lantern")]  # fmt: skip
    found = recurrences([4, 5, 6, 30], texts, claims)
    topic = [next(r for r, c in zip(row, own, strict=True) if c.kind == "topic")
             for row, own in zip(found, claims, strict=True)]  # fmt: skip
    assert [(r.count, r.neighbours) for r in topic] == [(1, 2), (1, 2), (0, 2), (0, 0)]


def test_a_word_without_content_never_recurs() -> None:
    claims = [split_claims('User, prose, at "x". Next: the / [end]. Text: x')] * 3
    found = recurrences([0, 1, 2], ["the of the end"] * 3, claims)
    by_kind = {c.kind: r for c, r in zip(claims[0], found[0], strict=True)}
    assert by_kind["prediction"].count == 0


def test_predictions_are_held_against_the_target() -> None:
    claims = split_claims('User, prose, at "a". Next: the / rain / old bridge. Text: a')
    found = expectation(claims, [" rain", " The", "the"], [0.5, 0.2, 0.1], " rain")
    assert found.words == ("the", "rain", "old")
    assert found.ranks == (2, 1, None)
    assert found.mass == pytest.approx(0.8)
    assert found.came is True
    assert found.first_named
    assert expectation(claims, [], [], None).came is None
    assert expectation(split_claims("A sentence."), [" a"], [1.0], " a") is None


def test_an_explanation_near_what_comes_diverges() -> None:
    text = "one two boats lie upside down on sand " * 2 + "then a red lantern burns all night long"
    result = compared(text, {7: "boats upside on sand", 8: "red lantern burns night", 9: "pears"})
    apart = result.divergence
    assert apart.so_far[0] > apart.to_come[1] - 0.5
    assert apart.so_far[0] > apart.so_far[1]
    assert apart.to_come[1] > apart.so_far[1]
    assert apart.neither[2] > max(apart.neither[:2])
    assert np.isnan(apart.unrelated).all()


def test_a_side_without_text_has_no_similarity() -> None:
    result = compared("one lantern", {1: "lantern"})
    assert np.isnan(result.divergence.to_come[0])
    assert not np.isnan(result.divergence.neither[0])


def test_windows_cover_the_text_and_never_cross_a_token() -> None:
    text = " ".join(f"word{i}" for i in range(50))
    visible = Visible.of([" " + w for w in text.split()], ["content"] * 50, ["user"] * 50)
    ranges = window_ranges(visible)
    assert ranges[0][0] == visible.words[0].start
    assert ranges[-1][1] == visible.words[-1].end
    index = SemanticIndex.of_windows(visible, BagOfWords().embed)
    row = np.ones(len(ranges), np.float32)
    for position in range(50):
        before, after = index.nearest(row, position)
        if before:
            assert before.span.last <= position
        if after:
            assert after.span.first > position
    assert index.nearest(row, 49)[1] is None


def test_the_work_grows_with_the_transcript_not_with_its_square() -> None:
    """4,000 tokens, 800 of them read: texts embedded and windows compared stay linear."""

    def work(n: int) -> tuple[int, int, int]:
        names = [a + b for a in "bcdfghk" for b in ("at", "ol", "um", "ick", "orn", "ent", "ast")]
        text = " ".join(names[i % len(names)] for i in range(n))
        embed = EmbedOnce(BagOfWords().embed)
        explanation = (
            'User, prose, at "bat bol". Next: bum / rain. About: rain, dent. Text: bat bol bum'
        )
        result = compared(text, dict.fromkeys(range(n - n // 5, n), explanation), embed)
        assert len(result.readings) == n // 5
        looked = max(r.neighbours for row in result.readings for r in [j.recurrence for j in row])
        return embed.computed, len(result.windows.starts), looked

    small, large = work(400), work(4_000)
    assert large[1] <= 4_000 / STRIDE_WORDS + WINDOW_WORDS
    assert large[1] <= 10.5 * small[1]
    assert large[0] <= small[0] + large[1]
    assert small[2] == large[2] == 2 * WINDOW


def test_everything_of_a_reading_is_judged() -> None:
    result = compared(
        "we saw a lantern on the shore and a boat",
        {3: 'User, prose, at "a lantern". Next: on / of. About: boat, rain. Text: saw a lantern'},
    )
    (judged,) = result.readings
    assert {item.claim.text: item.verdict.standing for item in judged} == {
        "User": Standing.SAID,
        "a lantern": Standing.SAID,
        "on": Standing.FORESEEN,
        "of": Standing.UNCLEAR,
        "boat": Standing.FORESEEN,
        "rain": Standing.UNSPOKEN,
        "saw a lantern": Standing.SAID,
    }
    assert result.expectations[0].came is True


def test_each_text_is_embedded_once() -> None:
    bag = BagOfWords()
    embed = EmbedOnce(bag.embed)
    first = embed(["a b", "c d", "a b"])
    again = embed(["c d"])
    assert bag.texts == embed.computed == 2
    assert np.array_equal(first[1], again[0])
    assert len(embed([])) == 0
