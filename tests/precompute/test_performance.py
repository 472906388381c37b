"""Floors, predictions and the check of ratios, on small models and invented records."""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nla_core.errors import NLAError
from nla_core.nla.lengths import by_length
from nla_core.nla.pair import LoadedPair, Reference, find_pair, load_pair
from precompute import bench
from precompute.benches import batches, precision, roofline
from precompute.benches.corpus import exponent
from precompute.benches.explain import bench_explain
from precompute.benches.performance import NOTES, read, render
from precompute.benches.promises import LABELS, PROMISES, regressions
from precompute.benches.reading import STAGES, Material, Work
from precompute.benches.shapes import random_model
from precompute.corpus import read_corpus
from precompute.cost import chosen
from precompute.gpus import gpu
from precompute.occupancy import StepCosts
from precompute.prediction import Sample, Size, estimate, extent, predict
from scripts.bench import BENCHES, KEPT, PAGE, check, label_of
from tests.tiny import D_MODEL, tiny_pair

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedPair:
    folder = tiny_pair(tmp_path_factory.mktemp("performance"))
    return load_pair(find_pair(folder), device="cpu", dtype="float32")


@pytest.fixture
def material(loaded: LoadedPair) -> Material:
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(5, D_MODEL, generator=draw)
    return Material(loaded, vectors, ["the fox", "rain", "a b c"], [[5, 6, 7], [8] * 9], 6)


def test_stages_count_useful_work_alone(material: Material) -> None:
    found = {name: STAGES[name](material).run() for name in STAGES}
    target = material.loaded.target
    blocks = sum(p.numel() for p in target.parts.layers.parameters() if p.dim() == 2)
    head = target.parts.head.weight.numel()
    (extract,) = found["extract"].passes
    assert extract[0] == pytest.approx(2 * (blocks + head) * 12 / 1e9)
    assert extract[1] == pytest.approx(4 * (blocks + head) / 1e9)
    assert found["extract"].units == 12
    assert found["decode"].units <= 5 * 6
    assert len(found["decode"].passes) <= 5, "the token of the last step is not fed back"
    assert found["reading"].units == 5
    slot = material.loaded.verbalizer.slot
    own = 1 + len(slot.suffix_ids) + len(slot.prefill_ids)
    (prefill,) = found["prefill"].passes
    assert prefill[0] == pytest.approx((2 * blocks * own + 2 * head) * 5 / 1e9)


def test_a_floor_is_the_larger_of_arithmetic_and_memory() -> None:
    work = Work(1, [(10.0, 1.0), (1.0, 10.0)])
    assert work.floor(10.0, 1.0) == pytest.approx(1.0 + 10.0)
    assert work.bound_by(10.0, 1.0) == "memory"
    assert work.bound_by(0.1, 1.0) == "arithmetic"


def test_the_roofline_of_a_tiny_pair(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "TRIAD_BYTES", 1 << 20)
    monkeypatch.setattr(roofline, "TRIAD_SECONDS", 0.01)
    stages = [STAGES["ar"](material), STAGES["decode"](material)]
    found = roofline.measure(stages, torch.device("cpu"), torch.float32)
    assert all(rate > 0 for rate in found["machine"].values())
    assert set(found["stages"]) == {"ar", "decode"}
    for stage in found["stages"].values():
        assert 0 < stage["reached"] < 1


def test_explaining_is_held_against_both_ways_to_generate(loaded: LoadedPair) -> None:
    vectors = torch.randn(4, D_MODEL, generator=torch.Generator().manual_seed(2))
    attention = loaded.verbalizer.model.config._attn_implementation
    found = bench_explain(loaded.verbalizer, loaded.verbalizer, vectors, 5, one_by_one=2)
    assert found["same_texts_batched"] == 4
    assert found["same_texts_one_by_one"] == 2
    assert found["ratio_one_by_one"] > 0
    assert found["ratio_batched"] > 0
    assert loaded.verbalizer.model.config._attn_implementation == attention


def test_a_number_format_is_held_against_float32(tmp_path: Path) -> None:
    pair = find_pair(tiny_pair(tmp_path))
    prompts = read_corpus(sorted(precision.PROMPTS.glob("facts.jsonl"))).prompts[:3]
    found = precision.measure(pair, prompts, "cpu", "bfloat16", 8, 5)
    same = precision.measure(pair, prompts, "cpu", "float32", 8, 5)
    assert found["n"] == 8
    assert found["documents"] == 3
    assert 0 < found["target_mse_nrm"] < 1e-3
    assert found["difference"] == pytest.approx(found["fve"] - found["fve_float32"], abs=1e-4)
    assert found["difference_ci"]["low"] <= found["difference"] <= found["difference_ci"]["high"]
    assert 0 < abs(found["ar_difference"]) < 0.1
    assert (same["difference"], same["same_texts"], same["shown"]) == (0.0, 8, True)
    with pytest.raises(NLAError, match="do not suffice for 100000 vectors"):
        precision.measure(pair, prompts, "cpu", "bfloat16", 100_000, 5)


def test_a_difference_is_judged_by_its_interval_over_prompts() -> None:
    """Two of four prompts lose, two gain: nothing on average, and nothing shown."""
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(40, D_MODEL, generator=draw)
    places = [precision.Place(i // 10, i) for i in range(40)]
    near, far = (hidden + c * torch.randn(40, D_MODEL, generator=draw) for c in (0.2, 0.6))
    swapped = (torch.arange(40) < 20)[:, None]
    exact = precision.Lane(hidden, ["a"] * 40, torch.where(swapped, near, far), 1.0)
    fast = precision.Lane(hidden, ["a"] * 40, torch.where(swapped, far, near), 1.0)
    reference = Reference(1.0, torch.zeros(D_MODEL), torch.zeros(101), 40)
    found = precision.compare(exact, fast, exact.rebuilt, places, reference)
    assert abs(found["difference"]) < 0.1
    assert found["difference_ci"]["low"] < -0.1 < 0.1 < found["difference_ci"]["high"]
    assert not found["shown"]
    assert found["ar_difference"] == 0.0


def test_batches_of_growing_size_until_memory_ends(
    loaded: LoadedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "TRIAD_BYTES", 1 << 20)
    monkeypatch.setattr(roofline, "TRIAD_SECONDS", 0.01)
    vectors = torch.randn(3, D_MODEL, generator=torch.Generator().manual_seed(4))
    found = batches.measure(loaded.verbalizer, vectors, [1, 4], 5)
    assert [one["batch"] for one in found["sizes"]] == [1, 4]
    assert found["too_large"] is None
    assert found["best"] in found["sizes"]
    for one in found["sizes"]:
        assert 0 < one["reached"] < 1
        assert one["readings_per_s"] == pytest.approx(one["batch"] / one["seconds"])
    real = loaded.verbalizer.verbalize

    def small_memory(some: torch.Tensor, **kwargs: Any) -> Any:
        if len(some) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(some, **kwargs)

    monkeypatch.setattr(loaded.verbalizer, "verbalize", small_memory)
    found = batches.measure(loaded.verbalizer, vectors, [4, 8, 16], 5)
    assert [one["batch"] for one in found["sizes"]] == [4]
    assert found["too_large"] == 8


def test_a_check_that_compares_nothing_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, name, ratio in (
        ("fresh", "explain-cpu", 1.5),
        ("same", "explain-cpu", 1.8),
        ("other", "explain-cpu-bf16", 3.0),
        ("worse", "explain-cpu", 1.0),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.json").write_text(json.dumps({"ratio_batched": ratio}))
    monkeypatch.setattr("scripts.bench.ROOT", tmp_path)
    monkeypatch.setattr("scripts.bench.KEPT", tmp_path / "same")
    assert check(tmp_path / "worse") == 1
    capsys.readouterr()
    assert check(tmp_path / "fresh") == 0
    assert "0 of 1 ratios" in capsys.readouterr().out
    assert check(tmp_path / "other") == 2
    assert "Nothing to compare" in capsys.readouterr().out


@pytest.mark.parametrize("device", LABELS)
def test_what_make_bench_runs_is_what_is_promised(device: str) -> None:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    for name, flags in BENCHES[device].items():
        parser.parse_args([name.split("-")[0], *flags])  # exits where a flag is unknown
    made = {f"{name}-{device}" for name in BENCHES[device]}
    assert {p.file for p in PROMISES if p.file.endswith(f"-{device}")} <= made


def test_random_models_have_the_shape_that_was_asked_for() -> None:
    model = random_model("tiny", 50, torch.device("cpu"), torch.float32)
    assert model(input_ids=torch.tensor([[1, 2]])).logits.shape == (1, 2, 50)
    with pytest.raises(NLAError, match="no shape 'huge'"):
        random_model("huge", 50, torch.device("cpu"), torch.float32)


def test_batches_by_length_hold_every_sequence_once_and_little_padding() -> None:
    lengths = [3, 50, 4, 49, 5, 200, 48]
    batches = list(by_length(lengths, 150))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert [5] in batches, "longer than the budget: alone"
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 150
    assert list(by_length([], 10)) == []


# ---- plan ----------------------------------------------------------------------------------------

SAMPLE = Sample(
    prompts=2,
    tokens=100,
    answer_tokens=20,
    readings=80,
    lengths=(40,) * 80,
    steps=StepCosts(0.1, 0.0, 0.01),
    cpu_s={"target": 10.0, "av": 40.0, "ar": 8.0, "embedding": 4.0, "writing": 2.0},
    wall_s={"target": 5.0, "av": 20.0, "ar": 4.0, "embedding": 2.0, "writing": 1.0},
    answers_cpu_s=0.0,
    load_cpu_s=6.0,
    load_wall_s=7.0,
    bytes_once=1_000,
    bytes_written=9_000,
    peak_bytes=10**9,
)


def test_a_corpus_of_the_samples_size_takes_what_the_sample_took() -> None:
    same = predict(SAMPLE, Size(2, 80, 1, 64, 20))
    assert (same.tokens, same.readings) == (100, 80)
    assert same.cpu_s == pytest.approx(6 + sum(SAMPLE.cpu_s.values()))
    assert same.disk_bytes == 9_000
    assert not same.is_estimate


def test_what_is_paid_once_is_paid_once() -> None:
    size = Size(20, 800, 1, 64, 8)
    assert extent(SAMPLE, size) == (1000, 800)
    found = predict(SAMPLE, size)
    assert found.cpu_s == pytest.approx(6 + 10 * (10 + 40 + 8 + 4) + 2)
    assert found.disk_bytes == 81_000
    assert found.usd(2.0) == pytest.approx(found.wall_s / 1800)
    assert extent(SAMPLE, Size(20, 800, 1, 64, 8))[1] * 1 == 800


def test_a_batch_that_empties_is_not_scaled_up() -> None:
    """80 texts in 64 places take the steps of two batches; 800 take those of 13, not of 20."""
    by_steps = replace(SAMPLE, steps=StepCosts(0.0, 1.0, 0.0))
    found = predict(by_steps, Size(20, 800, 1, 64, 20))
    assert found.parts_s["av"] == pytest.approx(SAMPLE.cpu_s["av"] * 13 / 2)
    cut = predict(by_steps, Size(20, 800, 1, 64, 8))  # 267 and twice 266: five batches each
    assert cut.parts_s["av"] == pytest.approx(SAMPLE.cpu_s["av"] * 15 / 2)
    nothing = predict(replace(SAMPLE, steps=StepCosts(0.0, 0.0, 0.0)), Size(20, 800, 1, 64, 20))
    assert nothing.parts_s["av"] == pytest.approx(SAMPLE.cpu_s["av"] * 10)


def test_prompts_of_a_shard_are_answered_together() -> None:
    """Of 10 s for two prompts 6 are answers: again for each shard, and a little for its rows."""
    answered = replace(SAMPLE, answers_cpu_s=6.0, steps=StepCosts(0.0, 8.0, 1.0))
    assert predict(answered, Size(2, 80, 1, 64, 8)).parts_s["target"] == pytest.approx(10.0)
    found = predict(answered, Size(20, 800, 1, 64, 8))  # 8, 8 and 4 prompts: 16, 16 and 12 for 10
    assert found.parts_s["target"] == pytest.approx(4.0 * 10 + 6.0 * 44 / 10)


def test_an_estimate_for_a_gpu_goes_by_the_shares_reached_here() -> None:
    from precompute.benches.reading import Costs
    from precompute.prediction import Models

    costs = Costs(position=15.0, logits=1.0, blocks=15.0, head=1.0, cached=1e-3)
    models = Models(costs, costs, costs, 32, 15, 50)
    here = predict(SAMPLE, Size(2, 80, 1, 64, 20))
    works = {part: Work(1, [(9_890.0, 0.0)]) for part in ("target", "av", "ar")}
    half = dict.fromkeys(works, 0.5)
    found = estimate(here, gpu("h100"), works, half, models, batch=64)
    assert found.parts_s["av"] == pytest.approx(0.02)
    assert found.is_estimate
    assert found.memory_bytes > 48e9
    tiny = {part: Work(1, [(0.0, 0.0)] * 1000) for part in works}
    slow = estimate(here, gpu("h100"), tiny, half, models, batch=64)
    assert slow.parts_s["av"] > 1, "kernels have to be started"
    with pytest.raises(NLAError, match="'abacus'"):
        gpu("abacus")


def test_prompts_are_chosen_over_the_range_of_lengths() -> None:
    prompts: list[Any] = [f"p{i}" for i in range(10)]
    lengths = [10 * (i + 1) for i in range(10)]
    assert len(chosen(prompts, lengths, 20)) == 2
    assert len(chosen(prompts, lengths, 10_000)) == 10
    some = chosen(prompts, lengths, 200)
    mean = sum(lengths[prompts.index(p)] for p in some) / len(some)
    assert 45 <= mean <= 65


# ---- records -------------------------------------------------------------------------------------

RECORDS: dict[str, Any] = {
    "explain-cpu": {"ratio_one_by_one": 20.0, "ratio_batched": 1.8},
    "roofline-cpu": {"stages": {"ar": {"reached": 0.7}}},
    "corpus-cpu": {"exponent": 1.0},
}


def test_only_ratios_that_got_worse_by_a_fifth_are_told() -> None:
    fresh = copy.deepcopy(RECORDS)
    assert regressions(fresh, RECORDS) == []
    fresh["explain-cpu"]["ratio_batched"] = 1.5  # within a fifth
    fresh["explain-cpu"]["ratio_one_by_one"] = 15.0
    fresh["roofline-cpu"]["stages"]["ar"]["reached"] = 0.9
    fresh["corpus-cpu"]["exponent"] = 1.3
    told = regressions(fresh, RECORDS)
    assert len(told) == 2
    assert "one `generate` a vector" in told[0]
    assert "exponent" in told[1]
    assert regressions({}, RECORDS) == [], "what was not measured again is not compared"


def test_the_exponent_of_a_line_is_one() -> None:
    assert exponent([100, 1000, 10_000], [3.0, 30.0, 300.0]) == pytest.approx(1.0)
    assert exponent([10, 100], [1.0, 100.0]) == pytest.approx(2.0)
    assert exponent([10], [1.0]) is None


def test_the_page_is_that_of_the_records() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(KEPT), "run: python scripts/bench.py --page"


def test_a_page_says_what_was_not_measured_and_what_is_not_met(tmp_path: Path) -> None:
    (tmp_path / NOTES).write_text("## Notes\n", encoding="utf-8")
    (tmp_path / "explain-cpu.json").write_text(json.dumps(RECORDS["explain-cpu"]))
    page = render(tmp_path)
    assert "| AV against one batched `generate`, cpu | 1.80× | ≥ 2× | **no** |" in page
    assert "| AV against one `generate` a vector, cpu | 20.00× | ≥ 8× | yes |" in page
    assert "| AR scoring, share of its floor, cpu | not measured |" in page
    assert "Not measured: a CUDA GPU; `python scripts/bench.py --device cuda` on one" in page
    assert "Not measured: a CPU that multiplies bfloat16" in page
    assert "bf16 |" not in page
    assert read(tmp_path).keys() == {"explain-cpu"}
    (tmp_path / "explain-cpu-bf16.json").write_text(json.dumps({"ratio_batched": 3.0}))
    page = render(tmp_path)
    assert "| AV against one batched `generate`, cpu-bf16 | 3.00× | ≥ 2× | yes |" in page
    assert "a CPU that multiplies bfloat16" not in page


@pytest.mark.parametrize(("has", "label"), [(True, "cpu-bf16"), (False, "cpu")])
def test_records_of_a_cpu_are_told_apart_by_number_format(
    monkeypatch: pytest.MonkeyPatch, has: bool, label: str
) -> None:
    monkeypatch.setattr("nla_core.nla.devices.cpu_has_bf16", lambda: has)
    assert label_of("cpu") == label
    assert label in LABELS


def test_a_metered_run_is_the_same_run(loaded: LoadedPair, tmp_path: Path) -> None:
    """What is predicted of a corpus that is its own sample is what happened, rows and all."""
    import numpy as np

    from nla_core.explain import Explainer
    from precompute.benches.flops import Spent
    from precompute.corpus import Corpus, Prompt
    from precompute.cost import foretell
    from precompute.plan import Settings

    class Embedder:
        name, dimension = "none", 4

        def embed(self, texts: Any) -> np.ndarray:
            return np.eye(4, dtype=np.float32)[[len(t) % 4 for t in texts]]

    prompts = tuple(
        Prompt(f"p{i}", "c", "t", (), ({"role": "user", "content": text},))
        for i, text in enumerate(("the fox", "rain falls on people"))
    )
    explainer = Explainer(loaded)
    settings = Settings(max_new_tokens=2, explanation_tokens=3, batch_size=400, dtype="float32")
    sample, size, said = foretell(
        Corpus(prompts, ()),
        settings,
        explainer,
        Embedder(),
        Spent(1.0, 1.0),
        StepCosts(0.01, 0.01, 0.001),
    )
    assert size.prompts == sample.prompts == 2
    assert said.readings == sample.readings > 5
    assert said.tokens == sample.tokens
    assert said.cpu_s == pytest.approx(1.0 + sum(sample.cpu_s.values()))
    assert said.disk_bytes == sample.bytes_written
    assert all(sample.cpu_s[part] > 0 for part in ("target", "av", "ar", "writing"))
