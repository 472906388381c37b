"""Quotations in an explanation are looked up, and the text stays text."""

from __future__ import annotations

import re
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

from nla_core.data.dataset import Dataset
from nla_core.ui.charts import percent
from nla_core.ui.explanation import explanation, note_first, quote_marks, words_that_stand
from nla_core.ui.transcript_view import ReadingFacts, TranscriptView
from tests.helpers import make_dataset, transcript_id_of


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> TranscriptView:
    root: Path = tmp_path_factory.mktemp("dataset")
    make_dataset(root)
    dataset = Dataset.open(root)
    key = transcript_id_of("facts-001")
    row = dataset.transcript(key)
    assert row is not None
    return TranscriptView.of(row, dataset.tokens(key), dataset.readings(key))


def reading_of(view: TranscriptView, word: str, text: str) -> ReadingFacts:
    position = view.text_holds(word)[0]
    return replace(view.readings[position][0], explanation=text)


@pytest.mark.parametrize(
    ("quoted", "standing"),
    [
        ("What is the", "found"),
        ("what is THE", "found"),
        ("The capital is Paris", "later"),  # the answer has not been given there
        ("of France", "later"),
        ("the capital of Spain", "missing"),
    ],
)
def test_a_quotation_is_found_later_or_missing(
    view: TranscriptView, quoted: str, standing: str
) -> None:
    text = f'It says "{quoted}" here.'
    marks = quote_marks(view, reading_of(view, "capital", text))
    assert [text[start:end] for start, end, _ in marks] == [f'"{quoted}"']
    assert [mark[2] for mark in marks] == [standing]


NOTE = (
    "Question on a capital; the country is named. Next: of / {came} / zebra. "
    "Text: What is the harbour capital"
)


def drawn(view: TranscriptView, text: str, monkeypatch: pytest.MonkeyPatch, **changes: str) -> str:
    pieces: list[str] = []
    monkeypatch.setattr("streamlit.html", pieces.append)
    reading = replace(reading_of(view, "capital", text), **changes)
    explanation(view, reading, paragraph=None)
    return "".join(pieces)


def expected_at(view: TranscriptView, text: str) -> dict[str, float]:
    token = view.tokens[reading_of(view, "capital", text).position]
    return dict(zip(token.top_tokens, token.top_probs, strict=True))


def test_a_note_is_a_sentence_with_its_details_below(
    view: TranscriptView, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, p = next(iter(expected_at(view, NOTE).items()))
    page = drawn(view, NOTE.format(came=token.strip()), monkeypatch)
    said = re.search(r'<div class="nla-said note">(.*?)</div>', page, re.DOTALL)
    assert said is not None
    assert re.sub("<[^>]*>", "", said[1]) == "Question on a capital; the country is named."
    chips = re.findall(r'<li class="(\w*)"[^>]*><code>(.*?)</code><small>(.*?)</small>', page)
    assert (chips[-1][0], chips[-1][1], chips[-1][2]) == ("unlikely", "zebra", "not likely")
    likely = {word: (kind, share) for kind, word, share in chips}[token.strip()]
    assert likely[0] == ""
    assert likely[1].startswith(percent(p).replace("<", "&lt;"))


def test_words_of_the_running_text_are_lit_where_they_stand(
    view: TranscriptView, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = drawn(view, NOTE, monkeypatch)
    running = page[page.index("nla-running") :]
    assert re.findall("<mark>(.*?)</mark>", running) == ["What is the", "capital"]


@pytest.mark.parametrize(
    ("text", "before", "lit"),
    [
        ("the cat sat", "A cat sat. The end", ["cat sat"]),
        ("the cat sat", "the cat sat", ["the cat sat"]),
        ("of the", "of mice, the", []),
        ("beetroot", "rooted", []),
        ("東京に", "東京へ", ["東京"]),
        ("", "anything", []),
        ("anything", "", []),
    ],
)
def test_words_that_stand(text: str, before: str, lit: list[str]) -> None:
    assert [text[start:end] for start, end in words_that_stand(text, before)] == lit


def test_texts_of_models_are_never_markup(
    view: TranscriptView, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = drawn(
        view, "<b>Tag</b>; <i>now</i>. Next: <u> / </u>. Text: <s>is the capital", monkeypatch
    )
    assert not re.search("<(b|i|u|s)>", page)


@pytest.mark.parametrize(
    "text",
    [
        'User, prose, at "the capital". Next: of / is. About: capital. Text: the capital',
        "The user asks.\n\nThe final token is a noun.",
    ],
)
def test_other_forms_are_drawn_as_they_are(
    view: TranscriptView, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    page = drawn(view, text, monkeypatch)
    shown = "\n\n".join(
        re.sub("<[^>]*>", "", p) for p in re.findall(r"<p class=\"\" id=.*?</p>", page)
    )
    assert shown == text.replace('"', "&quot;")
    assert "nla-expects" not in page
    assert note_first(text) == escape(text)


def test_a_cut_note_says_so_where_it_ends(
    view: TranscriptView, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("Question on a capital; the", NOTE, "Question; asked. Next: of / is"):
        page = drawn(view, text, monkeypatch, finish="cut")
        assert page.count("[…]") == 1
    assert page.rindex("[…]") > page.index("nla-expects")
