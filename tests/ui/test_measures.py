"""Measures: one value a token, on a scale that does not depend on the transcript."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from nla_core.data.dataset import Dataset
from nla_core.links import CompareMeasure, Measure
from nla_core.ui import measures
from nla_core.ui.transcript_view import TranscriptView
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


def test_every_measure_that_a_link_names_has_a_scale() -> None:
    assert set(measures.SCALES) == {*get_args(Measure), *get_args(CompareMeasure)}
    for scale in measures.SCALES.values():
        assert scale.low <= scale.zero < scale.high


@pytest.mark.parametrize("measure", get_args(Measure))
def test_a_colour_is_the_value_of_its_token(view: TranscriptView, measure: Measure) -> None:
    likeness = dict.fromkeys(view.readings, 0.3)
    values = measures.along(view, measure, likeness)
    drawn = measures.colouring(view, measure, values, phrase="x", hits=[3])
    assert len(drawn["values"]) == len(view.chips)
    for chip, value in zip(view.chips, drawn["values"], strict=True):
        token = view.tokens[chip.position]
        expected = {
            "fve": view.readings[chip.position][0].fve if chip.position in view.readings else None,
            "surprisal": token.surprisal if token.section == "content" else None,
            "norm": token.norm_pct if token.section == "content" else None,
            "phrase": likeness.get(chip.position),
        }[measure]
        assert value == (None if expected is None else pytest.approx(expected, abs=1e-4))
    assert drawn["hits"] == [3]
    other = measures.colouring(view, measure, values, phrase="y")
    assert other["id"] != drawn["id"]  # so that the browser paints anew
