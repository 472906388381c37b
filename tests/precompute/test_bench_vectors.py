"""`bench vectors` searches real rows both ways."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from nla_core.store.dataset import Dataset
from precompute.benches import vectors
from precompute.benches.million import make_million, synthetic_vectors
from tests.helpers import make_dataset


def test_the_rows_are_those_of_the_synthetic_dataset(tmp_path: Path) -> None:
    make_dataset(tmp_path / "source")
    source = Dataset.open(tmp_path / "source")
    make_million(source, tmp_path / "made", 300)
    expected = Dataset.open(tmp_path / "made").explanation_vectors()[:300]
    made = np.stack([*synthetic_vectors(source, 300)][:300]).astype(np.float16)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs faiss")
def test_each_size_is_searched_both_ways(tmp_path: Path) -> None:
    make_dataset(tmp_path / "source")
    args = argparse.Namespace(
        dataset=tmp_path / "source",
        sizes=[300, 2_000],
        queries=5,
        dir=tmp_path,
        note="",
        json=tmp_path / "out.json",
    )
    assert vectors.main(args) == 0
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [one["rows"] for one in result["sizes"]] == [300, 2_000]
    for one in result["sizes"]:
        assert 0.9 <= one["recall_at_10"] <= 1
        assert one["index_mb"] > 0
        assert one["exact_ms"] > 0
    assert not list(tmp_path.glob("nla-vectors-*"))
