"""`bench train` on a toy pair: what is counted was computed, and no weight is changed by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nla_core.nla.families import parts_of
from nla_core.nla.pair import find_pair
from precompute.benches import flops
from precompute.benches.flops import Weights, clock, counting, matmul_peak
from precompute.benches.stages import Bench, learning
from precompute.cli import main
from precompute.evaluation.throughput import STAGES, read_record
from precompute.testset import FOLDER, TestSet
from precompute.train.halves import find_halves
from precompute.train.policy import load_ar_task, load_policy
from tests.tiny import TEXT, tiny_pair

pytestmark = pytest.mark.unit

CPU, F32 = torch.device("cpu"), torch.float32
WORDS = TEXT.split()


def _testset(pair: Path, prompts: Path) -> None:
    lines = [
        {
            "id": f"p{i}",
            "category": "facts",
            "title": "t",
            "tags": [],
            "messages": [{"role": "user", "content": " ".join(WORDS[i : i + 24])}],
        }
        for i in range(5)
    ]
    prompts.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    where = ["--device", "cpu", "--dtype", "float32"]
    assert main(["testset", "--nla", str(pair), "--corpus", str(prompts), *where]) == 0


@pytest.fixture(scope="module")
def pair(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench")
    runs = ["--av", str(toy / "av"), "--ar", str(toy / "ar")]
    assert main(["train", "assemble", *runs, "--out", str(root / "pair")]) == 0
    _testset(root / "pair", root / "prompts.jsonl")
    return root / "pair"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flops, "PEAK_SIZES", (32, 64))
    monkeypatch.setattr(flops, "PEAK_SECONDS", 0.01)


def _bench(pair: Path, *more: str) -> list[str]:
    where = ["--device", "cpu", "--dtype", "float32", "--explanation-tokens", "8"]
    return ["bench", "train", "--nla", str(pair), *where, *more]


def _products(counter: FlopCounterMode) -> int:
    """Operations of matrix products, without those inside attention."""
    by_op = counter.get_flop_counts()["Global"]
    return sum(n for op, n in by_op.items() if str(op) in ("aten.mm", "aten.addmm"))


def test_reading_costs_what_torch_counts(toy: Path) -> None:
    halves = find_halves(av=toy / "av", ar=toy / "ar")
    policy = load_policy(halves, device=CPU, dtype=F32, temperature=1.0)
    ids = torch.arange(12).reshape(2, 6)
    counter = FlopCounterMode(display=False)
    with counting(policy.model) as counted, counter, policy.as_reference():
        states = policy.parts.decoder(input_ids=ids).last_hidden_state
        policy.parts.logits(states[:, -1])
    assert (counted.read, counted.read_logits) == (12, 2)
    assert counted.operations == _products(counter) > 0
    assert counted.learned == counted.learned_logits == 0


@pytest.mark.parametrize("role", ["av", "ar"])
def test_learning_costs_what_torch_counts(toy: Path, role: str) -> None:
    """Up to the gradient of the first block's input, which nobody needs."""
    halves = find_halves(av=toy / "av", ar=toy / "ar")
    if role == "av":
        model = load_policy(halves, device=CPU, dtype=F32, temperature=1.0).model
    else:
        model = load_ar_task(halves, device=CPU, dtype=F32).model
    parts = parts_of(model)
    with counting(model) as counted, FlopCounterMode(display=False) as counter:
        states = parts.decoder(input_ids=torch.arange(12).reshape(2, 6)).last_hidden_state
        parts.head(states.reshape(12, -1)).square().mean().backward()
    torch_says = _products(counter)
    assert counted.learned == counted.learned_logits == 12
    weights = Weights.of(model)
    assert weights.lora > 0
    assert (weights.head == 0) == (role == "ar")
    spared = 12 * (2 * weights.blocks + 2 * weights.lora) / len(parts.layers)
    assert counted.operations - spared < torch_says < counted.operations


def test_nothing_is_counted_outside(toy: Path) -> None:
    halves = find_halves(av=toy / "av", ar=toy / "ar")
    ar = load_ar_task(halves, device=CPU, dtype=F32)
    with counting(ar.model) as counted, torch.no_grad():
        ar.predict(["the fox"])
    before = counted.read
    assert before > 0
    ar.predict(["the fox"])
    assert counted.read == before


def test_the_clock_and_the_peak_measure() -> None:
    with clock(CPU) as spent:
        sum(range(200_000))
    assert spent.cpu_s > 0
    assert spent.wall_s > 0
    peak = matmul_peak(CPU, F32)
    assert set(peak) == {"gflop_per_s", "gflop_per_cpu_s"}
    assert min(peak.values()) > 0


def test_the_record_holds_every_stage_and_adds_up(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, threads = tmp_path / "record.json", torch.get_num_threads()
    sizes = ["--batch-size", "4", "--threads", "1", "2", "--repeats", "2", "--note", "t"]
    assert main(_bench(pair, *sizes, "--json", str(out))) == 0
    assert torch.get_num_threads() == threads
    record = read_record(out)
    assert record["ok"] is True
    assert record["note"] == "t"
    assert record["pair_id"] == "pair"
    assert set(record["weights"]) == {"target", "av", "av_merged", "ar"}
    assert record["weights"]["av_merged"]["lora"] == 0 < record["weights"]["av"]["lora"]
    assert set(record["threads"]) == {"1", "2"}
    for found in record["threads"].values():
        assert set(found["stages"]) == set(STAGES)
        peak = found["peak"]["float32"]
        for figures in found["stages"].values():
            assert figures["tokens"] > 0
            rate = figures["gflop"] / figures["seconds"]
            assert figures["share_of_peak"] == pytest.approx(rate / peak["gflop_per_s"])
            assert figures["tokens_per_s"] == pytest.approx(
                figures["tokens"] / figures["seconds"], abs=0.5
            )
    one, two = (record["threads"][n]["stages"] for n in ("1", "2"))
    assert all(one[name]["gflop"] == two[name]["gflop"] for name in STAGES), "the work is fixed"
    assert "| step of GRPO | 2 |" in capsys.readouterr().out


def test_the_pair_stays_what_it_is(pair: Path) -> None:
    bench = Bench(
        find_halves(pair=pair),
        find_pair(pair).reference,
        TestSet.load(pair / FOLDER),
        CPU,
        F32,
        batch=8,
        explanation_tokens=8,
    )
    stages = learning(bench)
    grpo = next(stage for stage in stages if stage.name == "grpo")

    def weights() -> list[Any]:
        return [p.clone() for model in grpo.models.values() for p in model.parameters()]

    before = weights()
    assert all(stage.run(8) > 0 for stage in stages)
    assert all(map(torch.equal, before, weights()))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--batch-size", "500"), "smaller than a batch"),
        (("--batch-size", "1"), "--batch-size 1"),
        (("--threads", "1", "0"), "--threads [1, 0]"),
        (("--repeats", "0"), "--repeats 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    pair: Path, more: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_bench(pair, *more)) == 2
    assert named in capsys.readouterr().err


def test_a_pair_without_adapters_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tiny_pair(tmp_path)
    _testset(whole, tmp_path / "prompts.jsonl")
    assert main(_bench(whole, "--batch-size", "4")) == 2
    assert "no LoRA adapter" in capsys.readouterr().err
