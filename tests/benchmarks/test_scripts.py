"""Each benchmark on something small: it measures what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import app, corpus, imports, readings, search
from nla_core.data.dataset import Dataset
from nla_core.errors import NLAError
from nla_core.models.pair import LoadedPair, find_pair, load_pair
from tests.helpers import make_dataset
from tests.precompute.fake import HashEmbedder
from tests.tiny import D_MODEL, tiny_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pair(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def loaded(pair: Path) -> LoadedPair:
    return load_pair(find_pair(pair), device="cpu", dtype="float32")


def test_the_av_writes_what_generate_writes(loaded: LoadedPair) -> None:
    vectors = torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(0))
    plain = readings.as_it_is(loaded.pair, loaded.verbalizer)
    found = readings.av_figures(loaded.verbalizer, plain, vectors, tokens=6, n_alone=2, rounds=1)
    assert found["same_texts_batched"].value == 100
    assert found["same_texts_one_by_one"].value == 100
    assert all(figure.value > 0 for figure in found.values())


def test_floors_are_below_what_is_taken(
    loaded: LoadedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.harness.MATMUL_SECONDS", 0.01)
    found = readings.floor_figures(loaded, ["the fox", "rain"], [[5, 6, 7], [8] * 9], 1)
    assert 0 < found["ar_share_of_floor"].value < 1
    assert 0 < found["extract_share_of_floor"].value < 1
    blocks, head = readings.weights(loaded.target.model)
    layers = loaded.target.parts.layers
    assert blocks == sum(p.numel() for p in layers.parameters() if p.dim() == 2)
    assert head == loaded.target.parts.head.weight.numel()


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs faiss")
def test_each_size_is_searched_both_ways() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(50, 16)).astype(np.float32)
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    found = search.by_size(real, [300, 2_000], 5)
    for size in (300, 2_000):
        assert 0.9 <= found[f"recall_{size}"].value <= 1
        ratio = found[f"exact_{size}_ms"].value / found[f"index_{size}_ms"].value
        assert found[f"index_{size}_against_exact"].value == pytest.approx(ratio)


def test_drawn_vectors_are_near_real_ones() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(50, 64)).astype(np.float32)
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    made = np.concatenate([*search.drawn(real, 1_500, rng)])
    assert made.shape == (1_500, 64)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    nearest = (made @ real.T).max(axis=1)
    assert 0.7 < np.median(nearest) < 0.99


def test_words_are_searched_in_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(tmp_path / "tiny")
    monkeypatch.setattr(search, "MiniLM", lambda: HashEmbedder())
    found = search.by_words(Dataset.open(tmp_path / "tiny"), 4)
    assert found.keys() == {f"{m}_{q}_ms" for m in ("keyword", "hybrid") for q in ("p50", "p95")}
    assert 0 < found["keyword_p50_ms"].value <= found["keyword_p95_ms"].value


def test_a_typed_prompt_goes_through_the_queue_and_the_store(pair: Path) -> None:
    touched = imports.one_prompt(pair, "the fox", HashEmbedder(), "cpu")
    files = {Path(file).relative_to(imports.ROOT).as_posix() for file in touched.modules}
    assert {"nla_core/explain.py", "nla_core/models/verbalizer.py", "nla_core/errors.py"} & files
    assert any(file.startswith("nla_core/data/") for file in files)
    assert len(touched.functions) > len(files) > 10
    assert touched.deepest > 3


def test_what_a_statement_loads_is_counted() -> None:
    own, every = imports.loaded_by("import nla_core.errors")
    assert own == 2
    assert every > own


def test_a_run_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(NLAError, match="A run of the benchmark failed") as caught:
        corpus.run(1, ["--nla", str(tmp_path / "nothing")])
    assert "nothing" in caught.value.why


def test_a_dataset_without_readings_is_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path / "empty", [("long-001", "long text", "Too long", [], [("user", "a")])])
    with pytest.raises(NLAError, match="nothing to read"):
        app.Material.of(Dataset.open(tmp_path / "empty"))


@pytest.mark.app
@pytest.mark.slow
def test_people_are_answered_by_the_real_server(tmp_path: Path) -> None:
    make_dataset(tmp_path / "tiny", samples=2)
    figures, wrong = app.measure(tmp_path / "tiny", [1, 2], 2, 0.0)
    assert wrong == []
    for n in (1, 2):
        for act in app.ACTS:
            key = f"{act.replace(' ', '_')}_{n}"
            assert 0 < figures[f"{key}_p50_ms"].value <= figures[f"{key}_p95_ms"].value
    assert figures["token_click_1_against_bare"].value > 0
