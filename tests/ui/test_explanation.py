"""Quotations in an explanation are looked up, and the text stays text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nla_core.store.dataset import Dataset
from nla_core.ui.explanation import quote_marks
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
