"""``bench run`` on a tiny pair: what it measures, in what order, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nla_core.runs import models
from precompute.benches import run
from precompute.cli import main
from tests.precompute.fake import HashEmbedder
from tests.tiny import tiny_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pair(tmp_path_factory.mktemp("bench"))


def bench(pair: Path, out: Path, *more: str) -> tuple[int, dict]:
    command = ["bench", "run", "--nla", str(pair), "--device", "cpu", "--dtype", "float32",
               "--json", str(out), *more]  # fmt: skip
    return main(command), json.loads(out.read_text())


def test_times_are_in_order(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "MiniLM", HashEmbedder)
    code, found = bench(pair, tmp_path / "out.json", "--tokens", "12", "--repeat", "2")
    assert code == 0
    assert found["readings"] == 12
    times = [found[f"{name}_s"] for name in ("tokens", "first_reading", "all_readings")]
    assert times == sorted(times)
    assert times[-1] <= found["published_s"]
    assert found["within_targets"] is (times[1] <= 3 and times[2] <= 20)
    assert len(found["runs"]) == 2


def test_too_long_a_prompt_is_refused(pair: Path, tmp_path: Path) -> None:
    code, found = bench(pair, tmp_path / "out.json", "--tokens", "100000")
    assert code == 2
    assert "--tokens 1 to" in found["error"]["fix"]


def test_pairs_are_found_by_name(monkeypatch: pytest.MonkeyPatch, pair: Path) -> None:
    monkeypatch.setenv(models.PAIRS_VARIABLE, str(pair))
    found = models.configured()
    assert found[pair.name] == pair
    assert "smollm2-135m-L20" in found
