"""`bench publish` publishes and opens for real, in processes of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from nla_core.errors import NLAError
from precompute.benches.publish import GROWN, bench_publish, child, growth
from tests.helpers import make_dataset


def test_each_size_is_published_opened_and_measured(tmp_path: Path) -> None:
    make_dataset(tmp_path / "source")
    result = bench_publish(tmp_path / "source", (200, 800), tmp_path)
    assert all(one["readings"] >= n for one, n in zip(result["sizes"], (200, 800), strict=True))
    for one in result["sizes"]:
        assert 20 < one["publish_own_mb"] <= one["publish_peak_mb"]
        assert 20 < one["derive_own_mb"] <= one["derive_peak_mb"]
        assert one["publish_rows_per_s"] > 0
        assert one["bytes_a_reading"] > 2 * 16
        assert one["derived_bytes_a_reading"] > 0
        assert 0 < one["open_s"] <= one["first_words_s"]
    assert result["largest_open_s"] == result["sizes"][-1]["open_s"]
    assert set(result["exponents"]) == set(GROWN)
    assert not list(tmp_path.glob("readings-*")), "a dataset of each size would fill the disk"


def test_a_step_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(NLAError, match="ended with code"):
        child("open", str(tmp_path / "nothing"))


def test_an_exponent_is_a_slope() -> None:
    found = [{"readings": n, "s": 3.0 * n**2} for n in (10, 100, 1000)]
    assert growth(found, "s") == 2.0
    assert growth(found[:1], "s") is None
