"""GRPO on a toy pair: rewards rise, interrupted runs end alike, collapse and NaN leave no trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nla_core.models.pair import Reference
from nla_core.models.reconstructor import Reconstructor
from precompute.cli import main
from precompute.train import grpo as grpo_module
from precompute.train.examples import Examples
from precompute.train.grpo import Grpo, StepSettings
from precompute.train.halves import find_halves
from precompute.train.objective import Objective
from precompute.train.policy import Policy, load_ar_task, load_policy
from precompute.train.sampling import Sampling
from precompute.train.state import MasterWeights

pytestmark = pytest.mark.unit

CPU, F32 = torch.device("cpu"), torch.float32


def _grpo(toy: Path, out: Path, *more: str, json_to: Path | None = None) -> int:
    result = [] if json_to is None else ["--json", str(json_to)]
    start = ["--av", str(toy / "av"), "--ar", str(toy / "ar"), "--data", str(toy / "data")]
    size = ["--samples", "6", "--vectors", "6", "--explanation-tokens", "14", "--warmup", "2"]
    rates = ["--lr-av", "1e-2", "--lr-ar", "1e-3", "--device", "cpu", "--dtype", "float32"]
    return main(["train", *result, "grpo", *start, "--out", str(out), *size, *rates, *more])


def _log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def _timeless(out: Path) -> list[dict[str, Any]]:
    times = ("seconds", "tokens_per_second")
    return [{k: v for k, v in line.items() if k not in times} for line in _log(out)]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _step_of(out: Path) -> int:
    return int(json.loads((out / "last" / "state.json").read_text())["step"])


class Recording(MasterWeights):
    """Keeps the gradients and leaves the weights as they are."""

    seen: list[Tensor]

    def step(self, lr: float, clip: float) -> float:
        self.seen = [p.grad.clone() for p in self.trained if p.grad is not None]
        assert len(self.seen) == len(self.trained)
        return 0.0


def _one_step(
    toy: Path, micro_batch: int, settings: StepSettings, *, moved: float = 0.0
) -> tuple[Grpo, dict[str, Any]]:
    """A step that moves nothing, of a policy that is ``moved`` away from its reference."""
    halves = find_halves(av=toy / "av", ar=toy / "ar")
    hidden = Examples.load(toy / "data" / "rl").hidden
    policy = load_policy(halves, device=CPU, dtype=F32, temperature=1.0)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(moved)
    ar = load_ar_task(halves, device=CPU, dtype=F32)
    learner = Grpo(
        policy,
        ar,
        Reconstructor(ar.model, ar.head, halves.tokenizer, halves.ar),
        Reference.of(hidden),
        {"av": Recording(policy.parameters, 0.0), "ar": Recording(ar.parameters, 0.0)},
        settings,
        sample_batch=64,
        micro_batch=micro_batch,
    )
    _, line = learner.step(hidden, [3, 5, 8], 0, 0.0, 0.0)
    return learner, line


def test_a_step_is_the_same_however_it_is_cut(toy: Path) -> None:
    """Divergence weighs here, and the policy has left its reference, so that it has a gradient."""
    settings = StepSettings(
        sampling=Sampling(group=4, max_new_tokens=14), objective=Objective(kl=0.5), truncate=0.5
    )
    (whole, line), *others = [_one_step(toy, size, settings, moved=0.02) for size in (12, 5, 1)]
    assert line["kl"] > 0.0
    for other, other_line in others:
        assert other_line == pytest.approx(line, abs=1e-5)
        for role in ("av", "ar"):
            pairs = zip(whole.weights[role].seen, other.weights[role].seen, strict=True)
            assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-3) for a, b in pairs)
            assert any(bool(g.abs().max() > 1e-4) for g in whole.weights[role].seen)


def test_inner_steps_are_held_against_what_was_sampled(toy: Path) -> None:
    """With weights that stay, a second inner step has the ratio 1 and the same gradient."""
    sampling = Sampling(group=4, max_new_tokens=14)
    once, _ = _one_step(toy, 12, StepSettings(sampling=sampling))
    twice, _ = _one_step(toy, 12, StepSettings(sampling=sampling, inner=2))
    pairs = zip(once.weights["av"].seen, twice.weights["av"].seen, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_gradient_is_that_of_the_surrogate(toy: Path) -> None:
    """Against finite differences, on samples that stay the same."""
    learner, _ = _one_step(toy, 12, StepSettings(sampling=Sampling(group=4, max_new_tokens=14)))
    batch = learner.sample(Examples.load(toy / "data" / "rl").hidden, [3, 5, 8], 0)
    tokens = sum(len(s.token_ids) for s in batch.samples)

    @torch.no_grad()
    def surrogate() -> float:
        found, mask = learner.policy.log_probs(batch.true[batch.own], batch.samples, 14)
        return float((batch.advantages[:, None] * found * mask).sum()) / tokens

    before = surrogate()
    gradients = learner.weights["av"].seen
    with torch.no_grad():
        for parameter, gradient in zip(learner.policy.parameters, gradients, strict=True):
            parameter.sub_(0.1 * gradient)
    steepness = sum(float(g.square().sum()) for g in gradients)
    assert surrogate() - before == pytest.approx(0.1 * steepness, rel=0.1)


def test_a_full_gpu_halves_what_is_learned_at_a_time(
    toy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    honest = Policy.log_probs

    def small(self: Policy, vectors: Tensor, samples: Any, limit: int) -> Any:
        if len(samples) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return honest(self, vectors, samples, limit)

    settings = StepSettings(sampling=Sampling(group=4, max_new_tokens=14))
    expected, _ = _one_step(toy, 12, settings)
    monkeypatch.setattr(Policy, "log_probs", small)
    learner, _ = _one_step(toy, 12, settings)
    assert learner.micro_batch == 3
    assert "going on with 3 rows" in caplog.text
    pairs = zip(learner.weights["av"].seen, expected.weights["av"].seen, strict=True)
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-3) for a, b in pairs)


@pytest.fixture(scope="module")
def trained(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grpo") / "run"
    more = ["--steps", "24", "--validate-every", "12", "--show-every", "12"]
    assert _grpo(toy, out, *more, json_to=out.with_suffix(".json")) == 0
    return out


def test_rewards_rise(trained: Path) -> None:
    lines = _log(trained)
    rewards = [line["reward"] for line in lines[1:]]
    assert sum(rewards[-8:]) / 8 > sum(rewards[:8]) / 8 + 0.05
    assert lines[1]["kl"] == 0.0
    assert lines[-1]["kl"] > 0.0
    assert [line["step"] for line in lines if "val" in line] == [0, 12, 24]
    first, last = lines[0]["val"], lines[-1]["val"]
    assert first["first_ar_fve"] == pytest.approx(first["fve"], abs=1e-5)
    assert last["first_ar_fve"] != pytest.approx(last["fve"], abs=1e-4)
    figures = json.loads(trained.with_suffix(".json").read_text())
    assert figures["checkpoint"] == figures["steps"] == 24
    assert figures["fve"] == lines[-1]["val"]["fve"]
    assert (trained / "samples.txt").read_text().count("==== step ") == 2


def test_one_run_is_assembled_as_both_halves(toy: Path, trained: Path, tmp_path: Path) -> None:
    runs = ["--av", str(trained), "--ar", str(trained)]
    assert main(["train", "assemble", *runs, "--out", str(tmp_path / "pair")]) == 0
    halves = find_halves(pair=tmp_path / "pair")
    assert (halves.av.role, halves.ar.role) == ("av", "ar")
    for role in ("av", "ar"):
        name = "adapter_model.safetensors"
        shipped = load_file(tmp_path / "pair" / role / name)
        start = load_file(toy / role / "last" / name)
        assert any(not torch.allclose(shipped[k].float(), start[k], atol=1e-2) for k in start)
        record = json.loads((tmp_path / "pair" / role / "training.json").read_text())
        assert record["steps_done"] == 24
        assert [line["step"] for line in record["log"]] == [0, 12, 24]


def test_an_interrupted_run_has_the_same_curve(toy: Path, tmp_path: Path) -> None:
    more = ["--steps", "4", "--validate-every", "3", "--show-every", "2"]
    assert _grpo(toy, tmp_path / "whole", *more) == 0
    broken = tmp_path / "broken"
    assert _grpo(toy, broken, *more, "--minutes", "0") == 0
    assert _step_of(broken) == 1
    assert _grpo(toy, broken, *more, "--minutes", "0") == 0
    # As after a power cut: a line and a text of a step that the checkpoint does not know.
    with (broken / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 3, "reward": 9.0}) + "\n")
    with (broken / "samples.txt").open("a") as samples:
        samples.write("==== step 4\nlost\n\n")
    assert _grpo(toy, broken, *more) == 0
    assert _timeless(broken) == _timeless(tmp_path / "whole")
    texts = [(out / "samples.txt").read_text() for out in (broken, tmp_path / "whole")]
    assert texts[0] == texts[1]
    assert _bytes(broken / "last" / "av") == _bytes(tmp_path / "whole" / "last" / "av")


def test_another_runs_folder_is_refused(
    toy: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _bytes(trained)
    assert _grpo(toy, trained, "--steps", "25") == 2
    assert "holds a run with other settings" in capsys.readouterr().err
    assert _bytes(trained) == before


def test_collapse_stops_and_the_last_healthy_checkpoint_stays(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate of 5 leaves no language; the checkpoint is the warm start."""
    out, result = tmp_path / "run", tmp_path / "figures.json"
    more = ["--steps", "9", "--validate-every", "2", "--lr-av", "5"]
    assert _grpo(toy, out, *more, json_to=result) == 0
    figures = json.loads(result.read_text())
    assert figures["steps"] == 2
    assert figures["checkpoint"] == _step_of(out) == 0
    assert any("have no end" in sentence for sentence in figures["collapsed"])
    assert "have no end" in capsys.readouterr().out
    name = "av/adapter_model.safetensors"
    saved, start = load_file(out / "last" / name), load_file(toy / "av" / "last" / name[3:])
    assert all(torch.equal(saved[k], start[k]) for k in start)


def test_samples_that_cannot_differ_are_refused(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["--samples", "1"], ["--temperature", "0"]):
        assert _grpo(toy, tmp_path / "run", *wrong) == 2
        assert "Nothing can be learned" in capsys.readouterr().err


def test_what_is_not_a_number_is_refused_before_it_is_saved(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, more = tmp_path / "run", ["--steps", "3"]
    assert _grpo(toy, out, *more, "--minutes", "0") == 0
    before = _bytes(out / "last")
    rewards = grpo_module.rewards
    monkeypatch.setattr(grpo_module, "rewards", lambda *args: rewards(*args) * float("nan"))
    assert _grpo(toy, out, *more) == 2
    assert "Training diverged" in capsys.readouterr().err
    assert _bytes(out / "last") == before


def test_an_ar_that_is_broken_from_the_start_is_refused(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> Tensor:
        return torch.full((16, 32), float("nan"))

    monkeypatch.setattr("precompute.train.rl_run.rebuild", broken)
    assert _grpo(toy, tmp_path / "run", "--steps", "2") == 2
    assert "validation texts is not a number" in capsys.readouterr().err
    assert not (tmp_path / "run" / "last").exists()
