"""Chips, steps between them, and the reading that stands for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nla_core.analysis.visible import Visible
from nla_core.data.dataset import Dataset
from nla_core.schema import Section
from nla_core.ui.token_strip import strip_data
from nla_core.ui.transcript_view import TranscriptView
from tests.helpers import ERROR_PROMPT, PROMPTS, make_dataset, transcript_id_of


@pytest.fixture(scope="module")
def view_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TranscriptView]:
    root: Path = tmp_path_factory.mktemp("dataset")
    make_dataset(root, samples=2)
    dataset = Dataset.open(root)

    def build(prompt_id: str) -> TranscriptView:
        key = transcript_id_of(prompt_id)
        row = dataset.transcript(key)
        assert row is not None
        return TranscriptView.of(row, dataset.tokens(key), dataset.readings(key))

    return build


ANSWERED = [prompt[0] for prompt in PROMPTS if prompt[0] != ERROR_PROMPT]


@pytest.mark.parametrize("prompt_id", ANSWERED)
def test_chips_hold_every_token_once_and_the_whole_text(
    view_of: Callable[[str], TranscriptView], prompt_id: str
) -> None:
    view = view_of(prompt_id)
    positions = [position for chip in view.chips for position in chip.positions]
    assert positions == list(range(len(view.tokens)))
    assert "".join(chip.text for chip in view.chips) == "".join(t.text for t in view.tokens)
    content = "".join(chip.text for chip in view.chips if not chip.markup)
    assert content == "".join(said for _, said in view.messages)


def test_a_character_of_several_tokens_is_one_chip(
    view_of: Callable[[str], TranscriptView],
) -> None:
    view = view_of("language-001")
    chip = next(chip for chip in view.chips if chip.text == "挨")
    assert len(chip.positions) == 2
    assert chip.position == chip.positions[-1]
    assert {view.chip_of(position) for position in chip.positions} == {chip}


@pytest.mark.parametrize("markup", [False, True])
def test_steps_visit_every_chip_and_come_back(
    view_of: Callable[[str], TranscriptView], markup: bool
) -> None:
    view = view_of("language-001")
    stops = [chip.position for chip in view.chips if markup or not chip.markup]
    walked = [stops[0]]
    while (following := view.step(walked[-1], 1, markup=markup)) is not None:
        walked.append(following)
    assert walked == stops
    while (before := view.step(walked[-1], -1, markup=markup)) is not None:
        walked.append(before)
    assert walked[len(stops) - 1 :] == stops[::-1]


def test_steps_from_a_hidden_token_go_to_its_neighbours(
    view_of: Callable[[str], TranscriptView],
) -> None:
    view = view_of("facts-001")
    shown = [chip.position for chip in view.chips if not chip.markup]
    hidden = next(c.position for c in view.chips if c.markup and c.position > shown[0])
    assert view.step(hidden, 1, markup=False) == min(p for p in shown if p > hidden)
    assert view.step(hidden, -1, markup=False) == max(p for p in shown if p < hidden)
    assert view.step(0, -1, markup=False) is None
    assert view.step(0, 1, markup=False) == shown[0]


def test_readings_are_found_by_position_and_sample(
    view_of: Callable[[str], TranscriptView],
) -> None:
    view = view_of("facts-001")
    position = next(t.position for t in view.tokens if t.section == Section.CONTENT)
    first, second = view.readings[position]
    assert (first.sample, second.sample) == (0, 1)
    assert view.reading(position, 1) == second
    assert view.reading(position, 9) == first  # no such sample: the first one
    assert view.reading(0) is None  # a token of the template


def test_the_invitation_is_a_word_of_the_answer_without_flags(
    view_of: Callable[[str], TranscriptView],
) -> None:
    view = view_of("facts-002")
    position = view.invitation()
    assert position is not None
    assert view.tokens[position].role == "assistant"
    assert view.readings[position][0].flags == ()
    assert sum(c.isalpha() for c in view.tokens[position].text) > 2


def test_a_failed_transcript_keeps_its_error_and_messages(
    view_of: Callable[[str], TranscriptView],
) -> None:
    view = view_of(ERROR_PROMPT)
    assert view.failed
    assert view.error is not None
    assert "8,192" in view.error
    assert view.messages[0][0] == "user"
    assert view.chips == ()
    assert view.nearest(3) is None
    assert view.invitation() is None


def test_the_strip_gets_numbers_and_plain_texts(
    view_of: Callable[[str], TranscriptView],
) -> None:
    view = view_of("markup-001")
    data = strip_data(view, strip_id="v/1")
    assert len(data["chips"]) == len(view.chips)
    assert {(chip["turn"], chip["role"]) for chip in data["chips"]} == {
        (0, "user"),
        (1, "assistant"),
    }
    texts = "".join(chip["text"] for chip in data["chips"])
    assert "<script>alert(1)</script>" in texts  # unescaped: the browser sets it as text
    unread = [chip for chip in data["chips"] if chip["fve"] is None]
    assert all(chip["markup"] for chip in unread)


def test_a_phrase_is_found_in_the_text_and_in_the_readings(
    view_of: Callable[[str], TranscriptView],
) -> None:
    view = view_of("facts-001")
    (first, second) = (view.text_holds("CAPITAL"), view.text_holds("capital is"))
    assert [view.tokens[p].text.strip() for p in first] == ["capital", "capital"]
    assert [view.tokens[p].text.strip() for p in second] == ["is"]  # where it is complete
    assert view.text_holds("") == view.text_holds("zeppelin") == ()
    word = next(iter(view.readings.values()))[0].explanation.split()[0]
    held = view.readings_hold(word)
    assert held
    for position, found in view.readings.items():
        holds = any(word.casefold() in r.explanation.casefold() for r in found)
        assert (position in held) is holds
    assert view.readings_hold("") == ()


def test_the_text_until_a_token_ends_with_it(view_of: Callable[[str], TranscriptView]) -> None:
    view = view_of("language-001")
    whole = "\n".join(said for _, said in view.messages)
    for token in view.tokens:
        assert view.text_until(token.position) + view.text_after(token.position) == whole
        if token.section == Section.CONTENT:
            assert view.text_until(token.position).endswith(token.text)


def test_the_visible_text_is_the_one_that_claims_are_held_against(
    view_of: Callable[[str], TranscriptView],
) -> None:
    view = view_of("facts-001")
    held = Visible.of(
        [t.text for t in view.tokens],
        [t.section for t in view.tokens],
        [t.role for t in view.tokens],
    )
    assert view.visible == held.text
    assert len({t.turn for t in view.tokens}) > 1  # one turn would not tell them apart
    for token in view.tokens:
        assert len(view.text_until(token.position)) == held.cut(token.position)


def test_a_range_is_cut_to_what_there_is(view_of: Callable[[str], TranscriptView]) -> None:
    view = view_of("facts-001")
    last = len(view.tokens) - 1
    assert view.span((2, 5)) == (2, 5)
    assert view.span((2, 99_999)) == (2, last)
    assert view.span((99_000, 99_999)) is view.span(None) is None
