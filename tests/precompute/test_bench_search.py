"""The synthetic dataset is a sound one and follows from its seed; the benchmark measures it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nla_core.embed import MiniLM
from nla_core.store import integrity
from nla_core.store.dataset import Dataset
from precompute.benches import million, search
from precompute.benches.million import make_million
from precompute.cli import main
from tests.helpers import hash_vectors, make_dataset


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source")
    make_dataset(root)
    return root


def test_the_synthetic_dataset_is_sound(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(million, "BLOCK", 7)  # more than one block
    real = Dataset.open(source)
    version = make_million(real, tmp_path / "one", 2_000)
    dataset = Dataset.open(tmp_path / "one")
    assert not integrity.problems(dataset.directory, dataset.manifest)
    assert 2_000 <= dataset.manifest.counts["readings"] < 2_200
    assert make_million(real, tmp_path / "two", 2_000) == version
    assert make_million(real, tmp_path / "three", 2_000, seed=1) != version


def test_vectors_are_near_real_ones_and_texts_are_new(source: Path, tmp_path: Path) -> None:
    real = Dataset.open(source)
    make_million(real, tmp_path, 2_000)
    dataset = Dataset.open(tmp_path)
    made = dataset.explanation_vectors().astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-2)
    nearest = (made @ real.explanation_vectors().astype(np.float32).T).max(axis=1)
    assert 0.7 < np.median(nearest) < 0.99
    texts = [set(of.find_readings()["explanation"]) for of in (dataset, real)]
    assert len(texts[0]) > 5 * len(texts[1])


def test_the_benchmark_measures_and_says_what_is_missed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Encoder:
        name = "hash"
        dimension = 16

        def embed(self, texts: Sequence[str]) -> np.ndarray:
            return hash_vectors(texts)

    assert {"name", "dimension", "embed"} <= {*dir(MiniLM)}
    monkeypatch.setattr(search, "MiniLM", Encoder)
    out = tmp_path / "out.json"
    command = ["bench", "search", "--rows", "600", "--queries", "20", "--dataset", str(source)]
    command += ["--dir", str(tmp_path / "made"), "--json", str(out)]
    assert main(command) in (0, 1)
    result = json.loads(out.read_text())
    assert result["rows"] >= 600
    assert result["recall_at_10"]["no filter"] == 1.0
    assert {"p50", "p95", "max", "cpu_p50", "cpu_p95"} == set(result["hybrid_ms"])
    assert result["targets_met"]["recall_at_10"]
    monkeypatch.setitem(search.TARGETS, "keyword_p95_ms", 0)
    assert main([*command, "--note", "again"]) == 1
    result = json.loads(out.read_text())
    assert (result["ok"], result["make_s"], result["note"]) == (False, None, "again")
