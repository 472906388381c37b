"""What a policy decides, what stays as it was while it learns, and what cannot be trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from nla_core.errors import NLAError
from nla_core.nla.injection import scale_for_injection
from nla_core.schema import Finish
from precompute.train.examples import Examples
from precompute.train.halves import find_halves
from precompute.train.policy import Policy, load_ar_task, load_policy
from precompute.train.sampling import Sample, Sampling, draw
from tests.tiny import tiny_pair

CPU = torch.device("cpu")
TEMPERATURE = 0.8
LIMIT = 16


@pytest.fixture
def policy(toy: Path) -> Policy:
    halves = find_halves(av=toy / "av", ar=toy / "ar")
    return load_policy(halves, device=CPU, dtype=torch.float32, temperature=TEMPERATURE)


@pytest.fixture(scope="module")
def hidden(toy: Path) -> Tensor:
    return Examples.load(toy / "data" / "rl").hidden.float()


def _samples(policy: Policy, hidden: Tensor) -> list[Sample]:
    how = Sampling(group=3, temperature=TEMPERATURE, max_new_tokens=LIMIT, seed=1)
    return draw(policy.sampler(), hidden, range(4), how)


def _vectors(hidden: Tensor, samples: list[Sample]) -> Tensor:
    return hidden[[s.row for s in samples]]


def _shift(model: object) -> None:
    """Move the trained adapter's weights, as learning would."""
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):  # type: ignore[attr-defined]
            parameter.add_(0.05)


@torch.no_grad()
def _as_sampled(policy: Policy, vector: Tensor, tokens: list[int]) -> list[float]:
    """Log-probabilities from the sampler's own prefill, then one token at a time."""
    sampler = policy.sampler()
    scaled = scale_for_injection(vector[None], policy.sidecar.injection_scale)
    cache, logits = sampler._prefill(scaled)
    found = []
    for token in tokens:
        found.append(torch.log_softmax(logits[0].float() / TEMPERATURE, -1)[token].item())
        step = policy.model(
            input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True
        )
        logits = step.logits[:, -1]
    return found


def test_giving_up_is_a_decision_and_being_cut_is_none(policy: Policy, hidden: Tensor) -> None:
    ids = tuple(policy.tokenizer("the fox")["input_ids"])
    cut = Sample(0, 0, 0, "the fox", Finish.CUT, ids)
    _, gave_up = policy.log_probs(hidden[:1], [cut], len(ids) + 1)
    _, was_cut = policy.log_probs(hidden[:1], [cut], len(ids))
    assert int(gave_up.sum()) == len(ids) + 1
    assert int(was_cut.sum()) == len(ids)
    found, _ = policy.log_probs(hidden[:1], [cut], len(ids) + 1)
    expected = _as_sampled(policy, hidden[0], [*ids, policy.tokenizer.eos_token_id])
    assert found[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_learning_moves_the_policy_and_not_the_reference(policy: Policy, hidden: Tensor) -> None:
    samples = _samples(policy, hidden)
    vectors = _vectors(hidden, samples)
    first = policy.log_probs(vectors, samples, LIMIT)[0].detach()
    _shift(policy.model)
    with policy.as_reference():
        reference, _ = policy.log_probs(vectors, samples, LIMIT)
    now, _ = policy.log_probs(vectors, samples, LIMIT)
    assert torch.equal(reference, first)
    assert not torch.allclose(now, first)
    now.sum().backward()
    trained = {id(p) for p in policy.parameters}
    for name, parameter in policy.model.named_parameters():
        assert (id(parameter) in trained) == (".default." in name)
        assert parameter.grad is None or id(parameter) in trained


def test_full_weights_are_refused(tmp_path: Path) -> None:
    halves = find_halves(pair=tiny_pair(tmp_path))
    with pytest.raises(NLAError, match="cannot be trained by GRPO"):
        load_policy(halves, device=CPU, dtype=torch.float32, temperature=1.0)
    with pytest.raises(NLAError, match="cannot be trained by GRPO"):
        load_ar_task(halves, device=CPU, dtype=torch.float32)
