"""The stages of training that ``bench train`` times, each on the same small amount of work.

Knows what a stage is given: vectors, contexts and labels of the pair's own recorded test set. Knows
neither clocks nor figures, and no training code of its own: it calls the steps that ``train``
calls. The decision a reader would question: every learning rate is zero. A step costs the same with
it, the weights stay what they are, and each number of threads meets the same pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from nla_core.memory import fitting
from nla_core.nla.checkpoints import load_causal_lm
from nla_core.nla.layout import raw_pieces
from nla_core.nla.pair import Reference
from nla_core.nla.reconstructor import Reconstructor
from nla_core.nla.target import Target
from precompute.testset import TestSet
from precompute.train.corpus import Window
from precompute.train.examples import build_examples
from precompute.train.grpo import Grpo, StepSettings
from precompute.train.halves import Halves, load_verbalizer
from precompute.train.labels import Idf
from precompute.train.policy import load_ar_task, load_policy
from precompute.train.sampling import Sampling, draw
from precompute.train.sft import backward
from precompute.train.state import MasterWeights
from precompute.train.tasks import Task, VerbalizerTask
from precompute.train.teachers import StructuredTeacher

PER_WINDOW = 16
WINDOWS_AN_EXAMPLE = 2
GROUP = 8
MICRO_BATCH = 16


@dataclass(frozen=True, slots=True)
class Bench:
    """What all stages are given; ``batch`` examples a supervised step, and texts sampled."""

    halves: Halves
    reference: Reference
    tests: TestSet
    device: torch.device
    dtype: torch.dtype
    batch: int
    explanation_tokens: int

    def text_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of the texts alone, without prompts and padding."""
        encoded = self.halves.tokenizer(list(texts), add_special_tokens=False)
        return sum(map(len, encoded["input_ids"]))


@dataclass(frozen=True, slots=True)
class Stage:
    """``run(n)`` does the work on ``n`` examples and returns its tokens; ``models`` by role."""

    name: str
    run: Callable[[int], int]
    models: dict[str, Any]


def labelling(bench: Bench) -> list[Stage]:
    """The target reads contexts, a structured label is written for some positions of each."""
    model = load_causal_lm(bench.halves.base.folder, dtype=bench.dtype, device=bench.device)
    target = Target(model, bench.halves.tokenizer, bench.halves.av.layer)
    rows = bench.tests.rows
    teacher = StructuredTeacher(Idf.fit(rows["context"]))
    longest = rows.loc[rows.groupby("prompt_id", sort=False)["position"].idxmax()]

    def run(n: int) -> int:
        windows = [
            Window(
                doc_id=str(row.prompt_id),
                source=str(row.category),
                ids=tuple(row.token_ids),
                pieces=tuple(raw_pieces(target.tokenizer, list(row.token_ids))),
                is_chat=False,
            )
            for row in longest.head(n * WINDOWS_AN_EXAMPLE).itertuples()
        ]
        build_examples(target, windows, teacher, per_window=PER_WINDOW, seed="bench")
        return sum(len(window.ids) for window in windows)

    return [Stage("label", run, {"target": model})]


def sampling(bench: Bench) -> list[Stage]:
    """The AV as ``run``, ``eval`` and ``train expert`` use it, its adapter merged."""
    verbalizer = load_verbalizer(bench.halves, device=bench.device, dtype=bench.dtype)
    how = Sampling(group=1, max_new_tokens=bench.explanation_tokens)

    def run(n: int) -> int:
        samples = draw(verbalizer, bench.tests.hidden, range(n), how)
        return sum(len(sample.token_ids) for sample in samples)

    return [Stage("sampling", run, {"av_merged": verbalizer.model})]


def learning(bench: Bench) -> list[Stage]:
    """A supervised step of each half, then a step of GRPO, on the same two models."""
    halves = bench.halves
    policy = load_policy(halves, device=bench.device, dtype=bench.dtype, temperature=1.0)
    ar = load_ar_task(halves, device=bench.device, dtype=bench.dtype)
    av = VerbalizerTask(policy.model, halves.tokenizer, policy.slot, halves.av.injection_scale)
    weights = {role: MasterWeights(task.parameters, 0.0) for role, task in (("av", av), ("ar", ar))}
    learner = Grpo(
        policy,
        ar,
        Reconstructor(ar.model, ar.head, halves.tokenizer, halves.ar),
        bench.reference,
        weights,
        StepSettings(sampling=Sampling(group=GROUP, max_new_tokens=bench.explanation_tokens)),
        sample_batch=GROUP * MICRO_BATCH,
        micro_batch=MICRO_BATCH,
    )

    def supervised(role: str, task: Task, n: int) -> int:
        rows = _of_similar_length(bench.tests, n)
        labels = bench.tests.rows["label"].iloc[rows].tolist()
        fitting(partial(backward, task, bench.tests.hidden[rows], labels), n)
        weights[role].step(0.0, 1.0)
        return bench.text_tokens(labels)

    def grpo(n: int) -> int:
        batch, _ = learner.step(bench.tests.hidden, range(max(1, n // GROUP)), 0, 0.0, 0.0)
        return sum(len(sample.token_ids) for sample in batch.samples)

    return [
        Stage("sft_av", partial(supervised, "av", av), {"av": policy.model}),
        Stage("sft_ar", partial(supervised, "ar", ar), {"ar": ar.model}),
        Stage("grpo", grpo, {"av": policy.model, "ar": ar.model}),
    ]


def _of_similar_length(tests: TestSet, n: int) -> list[int]:
    """The ``n`` rows whose labels are of about median length: so batches are made in training."""
    order = sorted(range(len(tests.rows)), key=tests.rows["label"].str.len().tolist().__getitem__)
    start = (len(order) - n) // 2
    return order[start : start + n]
