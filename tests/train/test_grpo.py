"""GRPO on the toy: the policy is what is sampled, steps teach, runs resume, collapse stops."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nla_core.errors import NLAError
from nla_core.nla.injection import scale_for_injection
from precompute.cli import main
from precompute.train import rl_run
from precompute.train.collapse import Limits
from precompute.train.examples import Examples
from precompute.train.grpo import Grpo, StepSettings
from precompute.train.halves import find_halves, half_of_run
from precompute.train.policy import Policy, load_policy
from precompute.train.rl_run import AR, AV, RunSettings, _trainer, train_grpo
from precompute.train.sampling import Sampling, draw

pytestmark = pytest.mark.unit

SAMPLING = Sampling(group=4, temperature=1.0, max_new_tokens=16)
STEP = StepSettings(vectors=4, sampling=SAMPLING)
RUN = RunSettings(steps=4, warmup=1, validate_every=2, validate_vectors=8, show_every=2)


def _halves(toy: Path) -> Any:
    return find_halves(av=toy / "av", ar=toy / "ar")


def _new(toy: Path, how: StepSettings = STEP, run: RunSettings = RUN, micro: int = 16) -> Grpo:
    hidden = Examples.load(toy / "data" / "rl").hidden
    cpu = torch.device("cpu")
    return _trainer(_halves(toy), hidden, how, run, cpu, torch.float32, 16, micro)


def _train(toy: Path, out: Path, run: RunSettings = RUN, **more: Any) -> dict[str, Any]:
    return train_grpo(
        _halves(toy), toy / "data", out, STEP, run, device="cpu", dtype="float32", **more
    )


@pytest.fixture(scope="module")
def policy(toy: Path) -> Policy:
    return load_policy(
        _halves(toy), device=torch.device("cpu"), dtype=torch.float32, temperature=0.7
    )


def test_log_probabilities_are_those_of_the_sampler(toy: Path, policy: Policy) -> None:
    hidden = Examples.load(toy / "data" / "rl").hidden[:3].float()
    samples = draw(policy.sampler(), hidden, range(3), replace(SAMPLING, group=1, temperature=0.7))
    with torch.no_grad():
        found, mask = policy.log_probs(hidden, samples, SAMPLING.max_new_tokens)
    sampler = policy.sampler()
    for row, sample in enumerate(samples):
        vector = scale_for_injection(hidden[row : row + 1], policy.sidecar.injection_scale)
        cache, logits = sampler._prefill(vector)
        seen: list[float] = []
        for token in sample.token_ids:
            seen.append(float(torch.log_softmax(logits[0].float() / 0.7, -1)[token]))
            logits = policy.model(
                input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True
            ).logits[:, -1]
        assert found[row][mask[row]][: len(seen)].tolist() == pytest.approx(seen, abs=1e-4)


def test_reference_equals_the_policy_at_the_start(toy: Path, policy: Policy) -> None:
    hidden = Examples.load(toy / "data" / "rl").hidden[:4].float()
    samples = draw(policy.sampler(), hidden, range(4), replace(SAMPLING, group=1))
    now, _ = policy.log_probs(hidden, samples, 16)
    with policy.as_reference():
        before, _ = policy.log_probs(hidden, samples, 16)
    assert torch.equal(now.detach(), before)
    assert now.requires_grad
    assert all(p.requires_grad for p in policy.parameters)


def test_a_step_is_the_same_however_it_is_cut(toy: Path) -> None:
    hidden = Examples.load(toy / "data" / "rl").hidden
    results = []
    for micro in (16, 3):
        trainer = _new(toy, micro=micro)
        _, line = trainer.step(hidden, [0, 1, 2, 3], 0, 1e-3, 1e-3)
        results.append((line, [m.clone() for w in trainer.weights.values() for m in w.masters]))
    (whole, masters), (cut, others) = results
    assert whole["kl"] == cut["kl"] == 0.0
    assert cut["grad_av"] == pytest.approx(whole["grad_av"], rel=1e-3)
    for a, b in zip(masters, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_gradient_is_that_of_the_surrogate(toy: Path) -> None:
    trainer = _new(toy)
    batch = trainer.sample(Examples.load(toy / "data" / "rl").hidden, [0, 1, 2, 3], 0)
    tokens = sum(len(s.token_ids) for s in batch.samples)

    @torch.no_grad()
    def surrogate() -> float:
        found, mask = trainer.policy.log_probs(batch.true[batch.own], batch.samples, 16)
        return float((batch.advantages[:, None] * found * mask).sum()) / tokens

    before = surrogate()
    trainer._av_gradient(batch, {}, tokens, 16)
    gradients = [p.grad.clone() for p in trainer.policy.parameters]
    steepness = sum(float(g.square().sum()) for g in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(trainer.policy.parameters, gradients, strict=True):
            parameter.sub_(0.1 * gradient)
    assert surrogate() - before == pytest.approx(0.1 * steepness, rel=0.1)


def test_a_full_gpu_halves_what_is_learned_at_a_time(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, honest = _new(toy), Policy.log_probs

    def small(self: Policy, vectors: torch.Tensor, samples: Any, limit: int) -> Any:
        if len(samples) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return honest(self, vectors, samples, limit)

    monkeypatch.setattr(Policy, "log_probs", small)
    trainer.step(Examples.load(toy / "data" / "rl").hidden, [0, 1, 2, 3], 0, 1e-3, 1e-3)
    assert trainer.micro_batch == 4
    assert "going on with 4 rows" in capsys.readouterr().err


def test_the_reward_rises_with_a_fixed_judge(toy: Path) -> None:
    how = replace(STEP, vectors=8, sampling=replace(SAMPLING, group=8))
    trainer = _new(toy, how, micro=64)
    hidden = Examples.load(toy / "data" / "rl").hidden
    found = []
    for step in range(10):
        rows = rl_run._rows(len(hidden), how.vectors, step, 0)
        found.append(trainer.step(hidden, rows, step, 5e-3, 0.0)[1]["reward"])
    assert sum(found[-3:]) > sum(found[:3])


def test_a_resumed_run_is_the_undisturbed_one(toy: Path, tmp_path: Path) -> None:
    done = _train(toy, tmp_path / "whole")
    for _ in range(2):
        _train(toy, tmp_path / "broken", stop_after_s=0)
    again = _train(toy, tmp_path / "broken", stop_after_s=0), _train(toy, tmp_path / "broken")
    assert again[-1]["val_fve"] == pytest.approx(done["val_fve"], abs=1e-5)
    lines = [
        [json.loads(text) for text in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "broken")
    ]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    for whole, broken in zip(*lines, strict=True):
        for name in ("fve", "kl", "reward"):
            if name in whole:
                assert broken[name] == pytest.approx(whole[name], abs=1e-5)
    weights = [
        load_file(tmp_path / name / "last" / AV / "adapter_model.safetensors")
        for name in ("whole", "broken")
    ]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-6)
    checks = [line for line in lines[0] if "val_fve" in line]
    assert checks[0]["val_first_ar_fve"] == pytest.approx(checks[0]["val_fve"], abs=1e-5)
    assert checks[-1]["val_first_ar_fve"] != pytest.approx(checks[-1]["val_fve"], abs=1e-5)
    assert lines[1][-1]["val_first_ar_fve"] == pytest.approx(checks[-1]["val_first_ar_fve"])
    text = (tmp_path / "whole" / "samples.txt").read_text()
    assert text.count("==== step ") == 2
    assert "label:   " in text


def test_collapse_stops_and_keeps_the_last_healthy_checkpoint(toy: Path, tmp_path: Path) -> None:
    strict = replace(RUN, limits=Limits(rank_at_1_kept=99.0))
    with pytest.raises(NLAError, match="collapsed at step 2") as caught:
        _train(toy, tmp_path, strict)
    assert "no longer tell vectors apart" in str(caught.value)
    state = json.loads((tmp_path / "last" / "state.json").read_text())
    assert state["step"] == 0
    assert half_of_run(tmp_path, AV).name == AV
    assert half_of_run(tmp_path, AR).name == AR


def test_numbers_that_are_none_leave_the_checkpoint_alone(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _train(toy, tmp_path, stop_after_s=0)
    before = (tmp_path / "last" / "state.json").stat().st_mtime_ns

    def broken(*_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        nothing = torch.tensor(float("nan"), requires_grad=True)
        return nothing, nothing

    monkeypatch.setattr("precompute.train.grpo.policy_loss", broken)
    with pytest.raises(NLAError, match="diverged"):
        _train(toy, tmp_path)
    assert (tmp_path / "last" / "state.json").stat().st_mtime_ns == before


def test_other_settings_and_too_few_vectors_are_refused(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["train", "grpo", "--av", str(toy / "av"), "--ar", str(toy / "ar")]
    start += ["--data", str(toy / "data"), "--device", "cpu", "--dtype", "float32"]
    start += ["--explanation-tokens", "8", "--samples", "2"]
    assert main([*start, "--out", str(tmp_path / "few"), "--vectors", "71"]) == 2
    assert "70 vectors do not fill one step of 71" in capsys.readouterr().err
    one = [*start, "--out", str(tmp_path / "one"), "--vectors", "2", "--steps", "1"]
    assert main(one) == 0
    assert main([*one, "--samples", "1"]) == 2
    assert "Nothing can be learned" in capsys.readouterr().err
    assert main([*one, "--kl", "0.5"]) == 2
    assert "other settings" in capsys.readouterr().err
