"""Batches of sequences of different lengths."""

from __future__ import annotations

import pytest

from nla_core.models.target import by_length

pytestmark = pytest.mark.unit


def test_batches_by_length_hold_every_sequence_once_and_little_padding() -> None:
    lengths = [3, 50, 4, 49, 5, 200, 48]
    batches = list(by_length(lengths, 150))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert [5] in batches, "longer than the budget: alone"
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 150
    assert list(by_length([], 10)) == []
