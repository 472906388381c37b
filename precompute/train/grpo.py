"""One step of GRPO: sample groups, reward them by the AR, move the AV, teach the AR the same texts.

Knows the order of things within a step and what is reported of it. Knows nothing of schedules,
files and resuming (see rl_run.py). The decision a reader would question: the AR learns after the
AV's gradient is taken, from the very texts it has just judged; judging with the newer AR would pay
the AV for what the AR has memorised.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nla_core.metrics import mse_nrm, rank_of_own
from nla_core.models.devices import fitting
from nla_core.models.pair import Reference
from nla_core.models.reconstructor import Reconstructor
from nla_core.readings import derive_seed
from precompute.train.collapse import Signals, signals
from precompute.train.objective import Objective, policy_loss
from precompute.train.policy import Policy
from precompute.train.rewards import RewardSettings, advantages, rewards
from precompute.train.sampling import Sample, Sampling, draw, rebuild
from precompute.train.state import MasterWeights, diverged
from precompute.train.tasks import ReconstructorTask


@dataclass(frozen=True, slots=True)
class StepSettings:
    """``vectors`` a step; ``inner`` AV updates on the same samples; ``clip`` of gradient norms.

    ``truncate`` is the share of samples of which the AR sees only a part, so that what matters has
    to stand where it is never lost.
    """

    vectors: int = 8
    sampling: Sampling = field(default_factory=Sampling)
    reward: RewardSettings = field(default_factory=RewardSettings)
    objective: Objective = field(default_factory=Objective)
    by_std: bool = False
    inner: int = 1
    truncate: float = 0.0
    clip: float = 1.0


@dataclass(slots=True)
class Batch:
    """The samples of one step with all that is known of them; tensors are ``[n]``."""

    samples: list[Sample]
    own: Tensor  # index of each sample's vector in ``true``
    true: Tensor  # [b, d]
    shown: list[str]  # what the AR saw of each text
    errors: Tensor  # mse_nrm
    rewards: Tensor
    advantages: Tensor
    signals: Signals


class Grpo:
    """Both halves while they learn. Sizes shrink for good where a GPU's memory does not suffice."""

    def __init__(
        self,
        policy: Policy,
        ar: ReconstructorTask,
        reconstructor: Reconstructor,
        reference: Reference,
        weights: dict[str, MasterWeights],
        settings: StepSettings,
        *,
        sample_batch: int,
        micro_batch: int,
    ) -> None:
        self.policy, self.ar, self.reconstructor = policy, ar, reconstructor
        self.reference, self.weights, self.settings = reference, weights, settings
        self.sample_batch, self.micro_batch = sample_batch, micro_batch

    def step(
        self, hidden: Tensor, rows: Sequence[int], number: int, lr_av: float, lr_ar: float
    ) -> tuple[Batch, dict[str, float]]:
        """Learn from ``hidden[rows]``; seeds hang on ``number``. Returns what is worth logging."""
        batch = self.sample(hidden, rows, number)
        line = self._describe(batch) | self._learn_av(batch, lr_av)
        return batch, line | self._learn_ar(batch, lr_ar)

    def sample(self, hidden: Tensor, rows: Sequence[int], number: int) -> Batch:
        """Draw the groups of a step and reward them."""
        settings = self.settings
        samples = self.draw(hidden, rows, settings.sampling, number)
        own = torch.arange(len(rows)).repeat_interleave(settings.sampling.group)
        true = hidden[list(rows)].float()
        shown = [self._shown(s, number) for s in samples]
        predicted = rebuild(self.reconstructor, shown, batch_size=self.micro_batch)
        usable = torch.tensor([s.usable for s in samples])
        lengths = torch.tensor([float(len(s.token_ids)) for s in samples])
        value = rewards(predicted, true, own, lengths, usable, settings.reward, self.reference.mean)
        first = slice(None, None, settings.sampling.group)
        return Batch(
            samples=samples,
            own=own,
            true=true,
            shown=shown,
            errors=mse_nrm(predicted, true[own]),
            rewards=value,
            advantages=advantages(value, settings.sampling.group, by_std=settings.by_std),
            signals=signals(
                [s.text for s in samples[first]],
                [s.finish for s in samples[first]],
                rank_of_own(predicted[first], true, self.reference.mean),
            ),
        )

    def draw(self, hidden: Tensor, rows: Sequence[int], how: Sampling, number: int) -> list[Sample]:
        """Samples of the policy as it is now."""
        sampler = self.policy.sampler()
        samples, self.sample_batch = fitting(
            lambda size: draw(sampler, hidden, rows, how, step=number, batch_size=size),
            self.sample_batch,
        )
        return samples

    def fve(self, errors: Tensor) -> float:
        return 1.0 - float(errors.mean()) / self.reference.rawvar

    def _describe(self, batch: Batch) -> dict[str, float]:
        n = len(batch.samples)
        return {
            "reward": float(batch.rewards.mean()),
            "reward_std": float(batch.rewards.std(correction=0)),
            "advantage_std": float(batch.advantages.std(correction=0)),
            "fve": self.fve(batch.errors),
            "tokens": sum(len(s.token_ids) for s in batch.samples) / n,
            "failed": sum(not s.usable for s in batch.samples) / n,
        } | batch.signals.as_dict()

    def _shown(self, sample: Sample, number: int) -> str:
        """The text, or a part of it for the share ``truncate``, seeded as the sample is."""
        rng = random.Random(derive_seed(sample.seed, "truncate", number))
        words = sample.text.split(" ")
        if rng.random() >= self.settings.truncate or len(words) < 2:
            return sample.text
        count = rng.randint(1, len(words) - 1)
        # Where the prompt ends with the explanation, the AR is read at its last word: keep the end.
        at_the_end = self.ar.template.rstrip().endswith("{explanation}")
        return " ".join(words[-count:] if at_the_end else words[:count])

    def _learn_av(self, batch: Batch, lr: float) -> dict[str, float]:
        """``inner`` updates on the batch; what is reported is from before the first."""
        tokens = max(1, sum(len(s.token_ids) for s in batch.samples))
        constants: dict[int, tuple[Tensor, Tensor]] = {}
        line: dict[str, float] = {}
        for _ in range(self.settings.inner):
            sums, self.micro_batch = fitting(
                lambda size: self._av_gradient(batch, constants, tokens, size), self.micro_batch
            )
            norm = self.weights["av"].step(lr, self.settings.clip)
            line = line or {"kl": sums[0] / tokens, "log_prob": sums[1] / tokens, "grad_av": norm}
        return line

    def _av_gradient(
        self, batch: Batch, constants: dict[int, tuple[Tensor, Tensor]], tokens: int, size: int
    ) -> tuple[float, float]:
        """Gradients over the batch; sums of KL and of log-probabilities over its tokens.

        ``constants`` keeps each sample's log-probabilities of the first inner step and of the
        reference, which later inner steps are held against.
        """
        limit = self.settings.sampling.max_new_tokens

        def part_gradient(part: list[int]) -> tuple[float, float]:
            samples = [batch.samples[i] for i in part]
            hidden = batch.true[batch.own[part]]
            known = all(i in constants for i in part)
            if not known:
                with self.policy.as_reference():
                    of_reference, _ = self.policy.log_probs(hidden, samples, limit)
            now, mask = self.policy.log_probs(hidden, samples, limit)
            if not known:
                found = zip(part, now.detach(), of_reference, mask, strict=True)
                constants.update({i: (old[m], ref[m]) for i, old, ref, m in found})
            before, reference = (_padded([constants[i][k] for i in part], mask) for k in range(2))
            advantage = batch.advantages[part].to(now.device)
            loss, kl = policy_loss(now, before, reference, advantage, mask, self.settings.objective)
            if not torch.isfinite(loss):
                raise diverged("The policy's loss is not a number")
            (loss / tokens).backward()
            return float(kl), float(now.detach().sum())

        _clear(self.policy.parameters)
        lengths = [len(s.token_ids) for s in batch.samples]
        return _summed(part_gradient, _parts(lengths, range(len(lengths)), size))

    def _learn_ar(self, batch: Batch, lr: float) -> dict[str, float]:
        """One regression step on the whole texts of the batch; none where there is no such text."""
        usable = [i for i, s in enumerate(batch.samples) if s.usable]
        if not usable:
            return {"grad_ar": 0.0}
        lengths = [len(text) for text in batch.shown]

        def gradient(size: int) -> tuple[float, float]:
            def part_gradient(part: list[int]) -> tuple[float, float]:
                texts = [batch.shown[i] for i in part]
                loss = self.ar.loss(batch.true[batch.own[part]], texts)
                loss = loss * (len(part) / len(usable))
                if not torch.isfinite(loss):
                    raise diverged("The AR's loss is not a number")
                loss.backward()
                return loss.item(), 0.0

            _clear(self.ar.parameters)
            return _summed(part_gradient, _parts(lengths, usable, size))

        (loss, _), self.micro_batch = fitting(gradient, self.micro_batch)
        return {"ar_loss": loss, "grad_ar": self.weights["ar"].step(lr, self.settings.clip)}


def _parts(lengths: Sequence[int], chosen: Sequence[int], size: int) -> list[list[int]]:
    """Indices in micro-batches of similar length, so that little of them is padding."""
    order = sorted(chosen, key=lengths.__getitem__)
    return [order[i : i + size] for i in range(0, len(order), size)]


def _summed(
    work: Callable[[list[int]], tuple[float, float]], parts: Sequence[list[int]]
) -> tuple[float, float]:
    done = [work(part) for part in parts]
    return sum(a for a, _ in done), sum(b for _, b in done)


def _padded(rows: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Rows of different lengths in the shape of ``mask``, zero where there is no token."""
    flat = torch.cat(list(rows))
    return torch.zeros(mask.shape, dtype=flat.dtype, device=mask.device).masked_scatter(mask, flat)


def _clear(parameters: Sequence[Any]) -> None:
    for parameter in parameters:
        parameter.grad = None
