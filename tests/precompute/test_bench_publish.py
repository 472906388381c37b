"""`bench publish` publishes and opens for real, in processes of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from nla_core.errors import NLAError
from nla_core.store.manifest import current_version, read_manifest
from precompute.benches.publish import bench_publish, child, growth
from tests.helpers import make_dataset


def test_each_size_is_published_opened_and_measured(tmp_path: Path) -> None:
    make_dataset(tmp_path / "source")
    result = bench_publish(tmp_path / "source", (200, 800), tmp_path)
    assert [one["readings"] for one in result["sizes"]] == [200, 800]
    for one in result["sizes"]:
        root = tmp_path / f"readings-{one['readings']}"
        counts = read_manifest(root / current_version(root)).counts
        assert counts["readings"] >= one["readings"]
        assert one["publish_peak_mb"] > 20
        assert one["open_s"] > 0
    assert result["memory_exponent"] is not None


def test_a_step_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(NLAError, match="ended with code"):
        child("open", str(tmp_path / "nothing"))


def test_an_exponent_is_a_slope() -> None:
    found = [{"readings": n, "s": 3.0 * n**2} for n in (10, 100, 1000)]
    assert growth(found, "s") == 2.0
    assert growth(found[:1], "s") is None
