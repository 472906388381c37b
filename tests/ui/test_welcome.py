"""The featured readings are those of the shipped dataset, and still say what is told of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nla_core.data.dataset import Dataset
from nla_core.ui.welcome import Featured, featured

DEMO = Path(__file__).resolve().parents[2] / "data/demo"


@pytest.fixture(scope="module")
def demo() -> Dataset:
    return Dataset.open(DEMO)


def test_there_are_eight() -> None:
    assert len(featured()) == 8
    assert len({(entry.transcript, entry.position) for entry in featured()}) == 8


@pytest.mark.parametrize("entry", featured(), ids=lambda entry: entry.title)
def test_a_featured_reading_says_what_is_told_of_it(demo: Dataset, entry: Featured) -> None:
    rows = demo.readings(entry.transcript)
    (explanation,) = rows[rows["position"] == entry.position]["explanation"]
    assert entry.holds.casefold() in explanation.casefold()
