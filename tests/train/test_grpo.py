"""GRPO on a toy pair: gradients, a run that learns, and what survives when a run goes wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nla_core.errors import NLAError
from nla_core.nla.pair import Reference
from precompute.cli import main
from precompute.train.collapse import Limits
from precompute.train.examples import Examples
from precompute.train.grpo import Grpo, StepSettings
from precompute.train.halves import find_halves, load_verbalizer
from precompute.train.journal import Journal, Shown
from precompute.train.judge import Judge, load_judge
from precompute.train.policy import Policy, load_policy
from precompute.train.rewards import FAILED
from precompute.train.rl_run import TIMES, Outcome, RunSettings, rows_of_step, run_grpo
from precompute.train.sampling import Sampling, draw
from precompute.train.state import MasterWeights

CPU = torch.device("cpu")
SAMPLING = Sampling(group=4, max_new_tokens=12)
SETTINGS = RunSettings(
    steps=4,
    lr_av=1e-3,
    lr_ar=1e-3,
    warmup=1,
    validate_every=2,
    validation=8,
    show_every=2,
    step=StepSettings(vectors=4, sampling=SAMPLING),
)


def _grpo(toy: Path, micro_batch: int = 64, **settings: Any) -> Grpo:
    halves = find_halves(av=toy / "av", ar=toy / "ar")
    policy = load_policy(halves, device=CPU, dtype=torch.float32, temperature=1.0)
    judge = load_judge(halves, device=CPU, dtype=torch.float32)
    weights = {
        "av": MasterWeights(policy.parameters, 1e-3),
        "ar": MasterWeights(judge.task.parameters, 1e-3),
    }
    return Grpo(
        policy,
        judge,
        Reference.of(Examples.load(toy / "data" / "rl").hidden),
        weights,
        StepSettings(vectors=4, sampling=SAMPLING, **settings),
        sample_batch=64,
        micro_batch=micro_batch,
    )


def _run(toy: Path, out: Path, settings: RunSettings = SETTINGS, **more: Any) -> Outcome:
    halves = find_halves(av=toy / "av", ar=toy / "ar")
    return run_grpo(halves, toy / "data", out, settings, device="cpu", dtype="float32", **more)


def _log(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def _adapter(out: Path, role: str) -> dict[str, Tensor]:
    return load_file(out / "last" / role / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def hidden(toy: Path) -> Tensor:
    return Examples.load(toy / "data" / "rl").hidden


@pytest.fixture(scope="module")
def whole(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grpo") / "whole"
    assert _run(toy, out).ended == "finished"
    return out


# ---- one step ------------------------------------------------------------------------------------


def _gradients(grpo: Grpo, hidden: Tensor) -> list[Tensor]:
    """Of both halves on the same batch, as the optimiser would be given them."""
    taken: list[Tensor] = []

    def keep(trained: Sequence[Any]) -> Callable[[float, float], float]:
        def step(lr: float, clip: float) -> float:
            taken.extend(p.grad.clone() for p in trained)
            return 0.0

        return step

    for role, weights in grpo.weights.items():
        grpo.weights[role].step = keep(weights.trained)  # type: ignore[method-assign]
    grpo.step(hidden, [0, 1, 2, 3], 0, 0.0, 0.0)
    return taken


def test_a_gradient_does_not_depend_on_how_it_is_cut(toy: Path, hidden: Tensor) -> None:
    at_once, cut = (_gradients(_grpo(toy, micro_batch=size), hidden) for size in (64, 3))
    assert any(g.abs().max() > 1e-3 for g in at_once)
    for a, b in zip(at_once, cut, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_a_first_step_has_no_divergence_and_rewards_what_came_back(
    toy: Path, hidden: Tensor
) -> None:
    batch, line = _grpo(toy).step(hidden, [0, 1, 2, 3], 0, 0.0, 0.0)
    assert line["kl"] == 0.0
    for sample, error, reward in zip(batch.samples, batch.errors, batch.rewards, strict=True):
        assert reward.item() == pytest.approx(-error.item() if sample.usable else FAILED)
    assert batch.advantages.reshape(-1, 4).sum(1).tolist() == pytest.approx([0.0] * 4, abs=1e-5)


def test_the_gradient_is_that_of_the_surrogate(toy: Path, hidden: Tensor) -> None:
    grpo = _grpo(toy)
    batch = grpo.sample(hidden, [0, 1, 2, 3], 0)
    tokens = sum(len(s.token_ids) for s in batch.samples)

    @torch.no_grad()
    def surrogate() -> float:
        found, mask = grpo.policy.log_probs(batch.true[batch.own], batch.samples, 12)
        return float((batch.advantages[:, None] * found * mask).sum()) / tokens

    before = surrogate()
    grpo._av_gradient(batch, {}, tokens, 64)
    gradients = [p.grad.clone() for p in grpo.policy.parameters]
    steepness = sum(float(g.square().sum()) for g in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(grpo.policy.parameters, gradients, strict=True):
            parameter.sub_(0.1 * gradient)
    assert surrogate() - before == pytest.approx(0.1 * steepness, rel=0.1)


def test_the_av_learns_to_finish_its_texts(
    toy: Path, hidden: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The AR is content with every whole text and does not learn: failing is all that costs."""
    grpo = _grpo(toy)
    same = hidden[:1].float().expand(4, -1)
    monkeypatch.setattr(grpo.judge, "read", lambda texts, _: same[:1].expand(len(texts), -1))
    grpo.settings = replace(grpo.settings, sampling=replace(SAMPLING, group=16))
    failed = [grpo.step(same, range(4), i, 1e-2, 0.0)[1]["failed"] for i in range(13)]
    assert sum(failed[-4:]) < sum(failed[:4]) - 0.2


def test_inner_steps_are_held_against_the_policy_that_sampled(toy: Path, hidden: Tensor) -> None:
    grpo = _grpo(toy, inner=2)
    _, line = grpo.step(hidden, [0, 1, 2, 3], 0, 1e-3, 1e-3)
    assert line["kl"] == 0.0  # of the first of them
    assert grpo.weights["av"].updates == 2
    assert grpo.weights["ar"].updates == 1
    _, line = grpo.step(hidden, [4, 5, 6, 7], 1, 1e-3, 1e-3)
    assert line["kl"] > 0.0


def test_a_full_gpu_halves_what_is_learned_at_a_time(
    toy: Path, hidden: Tensor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grpo, honest = _grpo(toy, micro_batch=16), Policy.log_probs

    def small(self: Policy, vectors: Tensor, samples: Any, limit: int) -> Any:
        if len(samples) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return honest(self, vectors, samples, limit)

    monkeypatch.setattr(Policy, "log_probs", small)
    _, line = grpo.step(hidden, [0, 1, 2, 3], 0, 1e-3, 1e-3)
    assert grpo.micro_batch == 4
    assert "going on with 4 rows" in capsys.readouterr().err
    assert line["kl"] == 0.0


def test_the_part_that_is_shown_keeps_the_end_where_the_ar_is_read(
    toy: Path, hidden: Tensor
) -> None:
    batch, _ = _grpo(toy, truncate=1.0).step(hidden, [0, 1, 2, 3], 0, 0.0, 0.0)
    longer = [
        (s.text, part)
        for s, part in zip(batch.samples, batch.shown, strict=True)
        if len(s.text.split(" ")) > 1
    ]
    assert longer
    assert all(text.endswith(part) and len(part) < len(text) for text, part in longer)


# ---- a run ---------------------------------------------------------------------------------------


def test_a_run_raises_the_reward(toy: Path, tmp_path: Path) -> None:
    """On eight vectors that every step sees, so that rewards of steps can be compared."""
    shutil.copytree(toy / "data", tmp_path / "data")
    rl = Examples.load(toy / "data" / "rl")
    Examples(rl.rows.iloc[:8], rl.hidden[:8]).save(tmp_path / "data" / "rl")
    step = StepSettings(vectors=8, sampling=SAMPLING)
    settings = replace(
        SETTINGS, steps=10, lr_ar=3e-3, warmup=2, validate_every=10, validation=8, step=step
    )
    halves = find_halves(av=toy / "av", ar=toy / "ar")
    out = tmp_path / "run"
    run_grpo(halves, tmp_path / "data", out, settings, device="cpu", dtype="float32")
    rewards = [line["reward"] for line in _log(out)[1:]]
    assert len(rewards) == 10
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.05


def test_each_vector_is_sampled_once_an_epoch() -> None:
    first = [row for step in range(5) for row in rows_of_step(step, 21, SETTINGS)]
    second = [row for step in range(5, 10) for row in rows_of_step(step, 21, SETTINGS)]
    assert len(set(first)) == len(set(second)) == 20
    assert first != second
    with pytest.raises(NLAError, match="3 vectors do not fill one step of 4"):
        rows_of_step(0, 3, SETTINGS)


def test_an_interrupted_run_has_the_same_log_and_weights(
    toy: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "broken"
    for done in (1, 2, 3):
        outcome = _run(toy, out, minutes=0)
        assert (outcome.ended, outcome.steps) == ("out of time", done)
    assert _run(toy, out).ended == "finished"
    assert _log(out) == _log(whole)
    assert (out / "samples.txt").read_text() == (whole / "samples.txt").read_text()
    for role in ("av", "ar"):
        again, once = _adapter(out, role), _adapter(whole, role)
        assert all(torch.equal(again[name], once[name]) for name in once)
    assert _run(toy, out).steps == 4  # nothing is left to do


def test_a_killed_run_makes_the_lost_steps_again(toy: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    assert _run(toy, out, minutes=0).steps == 1
    with (out / "log.jsonl").open("a") as log:  # a step after the checkpoint, then the end
        log.write('{"step": 2, "reward": -9.0}\n')
    _run(toy, out)
    assert _log(out) == _log(whole)


def test_samples_can_be_read(whole: Path) -> None:
    blocks = (whole / "samples.txt").read_text().split("==== step ")[1:]
    assert [block.split()[0] for block in blocks] == ["1", "2", "4"]
    assert "context: …they tell of" in blocks[0]
    scores = [float(line.split()[0]) for line in blocks[0].splitlines() if line[:1] in ("+", "-")]
    assert len(scores) == 8
    assert scores[:4] == sorted(scores[:4], reverse=True)


def test_both_halves_of_a_run_become_a_pair(
    toy: Path, whole: Path, tmp_path: Path, hidden: Tensor
) -> None:
    run, pair = str(whole), tmp_path / "pair"
    assert main(["train", "assemble", "--av", run, "--ar", run, "--out", str(pair)]) == 0
    assert json.loads((pair / "av" / "training.json").read_text())["steps_done"] == 4
    texts = []
    for halves in (find_halves(pair=pair), find_halves(av=whole, ar=whole)):
        av = load_verbalizer(halves, device=CPU, dtype=torch.float32)
        greedy = Sampling(group=1, temperature=0.0, max_new_tokens=12)
        texts.append([s.text for s in draw(av, hidden, range(8), greedy)])
    assert texts[0] == texts[1]
    assert not torch.equal(*(_first_weight(folder) for folder in (whole, toy / "av")))


def _first_weight(run: Path) -> Tensor:
    folder = run / "last" / "av" if (run / "last" / "av").is_dir() else run / "last"
    weights = load_file(folder / "adapter_model.safetensors")
    return weights[min(weights)]


def test_the_command_runs_and_says_what_came_of_it(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data", str(toy / "data"), "--out", str(tmp_path / "run")]
    halves = ["--av", str(toy / "av"), "--ar", str(toy / "ar"), "--device", "cpu"]
    size = ["--steps", "1", "--vectors", "2", "--samples", "2", "--explanation-tokens", "8"]
    options = ["--reward", "log-mse", "--infonce", ".5", "--length-penalty", ".001"]
    more = ["--truncate", ".5", "--scale-advantages", "--validation", "4", "--dtype", "float32"]
    result = tmp_path / "result.json"
    command = ["train", "--json", str(result), "grpo", *where, *halves, *size, *options, *more]
    assert main(command) == 0
    assert "train assemble" in capsys.readouterr().out
    found = json.loads(result.read_text())
    assert (found["ended"], found["steps"], found["collapsed"]) == ("finished", 1, [])
    assert main([*command, "--kl", "0.5"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert main([*command, "--samples", "1"]) == 2
    assert "Nothing can be learned" in capsys.readouterr().err


# ---- what goes wrong -----------------------------------------------------------------------------


def test_collapse_stops_the_run_and_keeps_the_checkpoint_before(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # No policy tells ten times as many vectors apart: this one is found collapsed at once.
    limits = Limits(rank_at_1_kept=10.0)
    outcome = _run(toy, tmp_path / "run", replace(SETTINGS, limits=limits))
    assert (outcome.ended, outcome.steps) == ("collapsed", 0)
    assert "no longer tell vectors apart" in outcome.collapsed[0]
    assert "collapsed at step 2" in capsys.readouterr().err
    assert _log(tmp_path / "run")[-1]["collapsed"] == list(outcome.collapsed)
    kept, start = _adapter(tmp_path / "run", "av"), _adapter_of(toy)
    assert all(torch.equal(kept[name], start[name]) for name in start)


def _adapter_of(toy: Path) -> dict[str, Tensor]:
    return load_file(toy / "av" / "last" / "adapter_model.safetensors")


def test_what_is_not_a_number_is_refused_and_the_checkpoint_survives(
    toy: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert _run(toy, out, minutes=0).steps == 1
    before = {p: p.read_bytes() for p in (out / "last").rglob("*") if p.is_file()}
    honest = Judge.read
    monkeypatch.setattr(Judge, "read", lambda *a: honest(*a) * float("nan"))
    with pytest.raises(NLAError, match="not a number"):
        _run(toy, out)
    assert {p: p.read_bytes() for p in (out / "last").rglob("*") if p.is_file()} == before
    monkeypatch.undo()
    _run(toy, out)
    assert _log(out) == _log(whole)


def test_another_warm_start_is_refused(toy: Path, whole: Path, tmp_path: Path) -> None:
    """Going on with another KL reference wrecks a run."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    with pytest.raises(NLAError, match="other settings"):
        run_grpo(
            find_halves(av=whole, ar=whole),
            toy / "data",
            out,
            SETTINGS,
            device="cpu",
            dtype="float32",
        )


def test_a_text_cannot_pass_for_a_header_of_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path, resumed_at=None)
    journal.show(1, [Shown("a", "b", [(0.5, "x\n==== step 7\ny")])])
    journal.show(2, [Shown("a", "b", [(0.1, "z")])])
    Journal(tmp_path, resumed_at=1)
    text = (tmp_path / "samples.txt").read_text()
    assert text.count("==== step ") == 1
    assert text.startswith("==== step 1\n")
