"""The AV as a policy: its log-probabilities are those it samples by; the warm start stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nla_core.errors import NLAError
from nla_core.models import decoding
from nla_core.models.pair import load_half
from nla_core.models.reconstructor import Reconstructor
from nla_core.models.verbalizer import LocalVerbalizer
from nla_core.schema import Finish
from precompute.train.examples import Examples
from precompute.train.halves import Halves, find_halves
from precompute.train.policy import Policy, load_ar_task, load_policy, save_half
from precompute.train.runs import ADAPTER_FILE
from precompute.train.sampling import Sample, Sampling, draw

pytestmark = pytest.mark.unit

CPU, F32 = torch.device("cpu"), torch.float32
TEMPERATURE, LIMIT = 1.3, 11
"""Hot and short: some texts end by their tag, some are cut."""


@pytest.fixture(scope="module")
def halves(toy: Path) -> Halves:
    return find_halves(av=toy / "av", ar=toy / "ar")


@pytest.fixture
def policy(halves: Halves) -> Policy:
    return load_policy(halves, device=CPU, dtype=F32, temperature=TEMPERATURE)


@pytest.fixture(scope="module")
def hidden(toy: Path) -> Tensor:
    return Examples.load(toy / "data" / "rl").hidden.float()


def _shake(policy: Policy, by: float = 0.05) -> None:
    with torch.no_grad():
        for i, parameter in enumerate(policy.parameters):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
            parameter.add_(by * noise)


def _samples(policy: Policy, hidden: Tensor, rows: range) -> list[Sample]:
    how = Sampling(group=1, temperature=TEMPERATURE, max_new_tokens=LIMIT)
    return draw(policy.sampler(), hidden, rows, how)


def test_log_probs_are_those_of_what_was_drawn(
    policy: Policy, hidden: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _shake(policy)
    recorded: list[float] = []
    pick = decoding._pick

    def recording(logits: Tensor, temperature: float, draws: Any) -> Tensor:
        tokens = pick(logits, temperature, draws)
        recorded.append(float(torch.log_softmax(logits / temperature, -1)[0, tokens[0]]))
        return tokens

    monkeypatch.setattr(decoding, "_pick", recording)
    samples, expected = [], []
    for row in range(24):
        recorded.clear()
        samples += _samples(policy, hidden, range(row, row + 1))
        expected.append(list(recorded))
    found, mask = policy.log_probs(hidden[:24], samples, LIMIT)
    assert mask.sum(1).tolist() == [len(e) for e in expected]
    for row, values in enumerate(expected):
        assert found[row][mask[row]].tolist() == pytest.approx(values, abs=1e-4)
    assert not found[~mask].any()
    assert {s.finish for s in samples} == {Finish.CLOSED, Finish.CUT}


def test_to_end_without_a_tag_is_a_decision_too(policy: Policy, hidden: Tensor) -> None:
    """Such a sample lacks its stop token, which was drawn like any other."""
    words = tuple(policy.tokenizer("lazy fox")["input_ids"])
    stop = policy.tokenizer.eos_token_id
    ended = Sample(0, 0, 0, "lazy fox", Finish.CUT, words)
    full = replace(ended, token_ids=(*words, stop))
    found, mask = policy.log_probs(hidden[:1], [ended], LIMIT)
    expected, _ = policy.log_probs(hidden[:1], [full], len(words) + 1)
    assert int(mask.sum()) == len(words) + 1
    assert torch.equal(found, expected)
    _, of_cut = policy.log_probs(hidden[:1], [ended], len(words))
    _, of_closed = policy.log_probs(hidden[:1], [replace(ended, finish=Finish.CLOSED)], LIMIT)
    assert int(of_cut.sum()) == int(of_closed.sum()) == len(words)


def test_at_the_start_the_policy_is_the_reference_to_the_last_bit(
    policy: Policy, hidden: Tensor
) -> None:
    samples = _samples(policy, hidden, range(8))
    now, _ = policy.log_probs(hidden[:8], samples, LIMIT)
    with policy.as_reference():
        reference, _ = policy.log_probs(hidden[:8], samples, LIMIT)
    assert torch.equal(now.detach(), reference)


def test_the_reference_stays_while_the_policy_moves(policy: Policy, hidden: Tensor) -> None:
    samples = _samples(policy, hidden, range(4))
    start = policy.log_probs(hidden[:4], samples, LIMIT)[0].detach()
    _shake(policy)
    now, _ = policy.log_probs(hidden[:4], samples, LIMIT)
    with policy.as_reference():
        reference, _ = policy.log_probs(hidden[:4], samples, LIMIT)
    assert torch.equal(reference, start)
    assert (now.detach() - start).abs().max() > 1e-3
    assert now.requires_grad
    assert not reference.requires_grad
    now.sum().backward()
    graded = {n for n, p in policy.model.named_parameters() if p.grad is not None}
    assert len(graded) == len(policy.parameters)
    assert all(".default." in name for name in graded)


def test_what_is_saved_is_the_trained_policy_alone(
    policy: Policy, halves: Halves, hidden: Tensor, tmp_path: Path
) -> None:
    _shake(policy, by=0.2)
    policy.save(tmp_path / "av", halves.base.spec)
    names = set(load_file(tmp_path / "av" / ADAPTER_FILE))
    assert names == set(load_file(halves.av_dir / ADAPTER_FILE))
    model = load_half(tmp_path / "av", halves.base.folder, dtype=F32, device=CPU)
    how = Sampling(group=1, temperature=0.0, max_new_tokens=LIMIT)
    saved = draw(LocalVerbalizer(model, halves.tokenizer, halves.av), hidden, range(8), how)
    warm = load_policy(halves, device=CPU, dtype=F32, temperature=1.0).sampler()
    assert saved == draw(policy.sampler(), hidden, range(8), how)
    assert saved != draw(warm, hidden, range(8), how)


def test_the_ar_judges_with_the_weights_it_is_trained_in(halves: Halves, tmp_path: Path) -> None:
    texts = ["fox rain", "lazy dog brown"]
    ar = load_ar_task(halves, device=CPU, dtype=F32)
    judge = Reconstructor(ar.model, ar.head, halves.tokenizer, halves.ar)
    before = judge.reconstruct(texts)
    assert torch.allclose(before, ar.predict(texts).detach(), atol=1e-5)
    with torch.no_grad():
        for parameter in ar.parameters:
            parameter.add_(0.01)
    after = judge.reconstruct(texts)
    assert torch.allclose(after, ar.predict(texts).detach(), atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-3)
    save_half(ar.model, halves.ar, tmp_path / "ar", halves.base.spec, ar.head)
    again = load_ar_task(replace(halves, ar_dir=tmp_path / "ar"), device=CPU, dtype=F32)
    assert torch.allclose(again.predict(texts).detach(), after, atol=1e-5)


def test_full_weights_are_refused(halves: Halves, toy: Path) -> None:
    with pytest.raises(NLAError, match="cannot be trained by GRPO"):
        load_policy(replace(halves, av_dir=toy / "base"), device=CPU, dtype=F32, temperature=1.0)
