"""``train grpo``: the run around the steps of GRPO, from a warm-started pair to a better one.

Knows schedule, order of vectors, validation, early stopping, files and resuming. Knows nothing of
what happens within a step (see grpo.py). The decision a reader would question: a checkpoint is only
written where greedy texts on validation vectors are in health, also when time runs out, so that
``out/last`` never holds a collapsed policy, at the price of a validation for each checkpoint.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nla_core.errors import NLAError
from nla_core.metrics import mse_nrm, rank_of_own
from nla_core.models.devices import pick_device, pick_dtype
from nla_core.models.pair import Reference
from nla_core.models.reconstructor import Reconstructor
from precompute.output import say
from precompute.train.collapse import Limits, Signals, signals, what_collapsed
from precompute.train.examples import Examples
from precompute.train.grpo import Batch, Grpo, StepSettings
from precompute.train.halves import Halves
from precompute.train.journal import Journal, Shown
from precompute.train.policy import as_warm_start, load_ar_task, load_policy, save_half
from precompute.train.record import require_data
from precompute.train.sampling import Sampling, rebuild
from precompute.train.sft import schedule
from precompute.train.state import (
    MasterWeights,
    diverged,
    load_checkpoint,
    save_checkpoint,
)

SHOWN_VECTORS = 2


@dataclass(frozen=True, slots=True)
class RunSettings:
    """One run. ``lr_av`` and ``lr_ar`` are the peaks of one cosine with linear warm-up."""

    steps: int
    lr_av: float
    lr_ar: float
    step: StepSettings = field(default_factory=StepSettings)
    warmup: int = 10
    final_lr_share: float = 0.1
    validate_every: int = 25
    validation_vectors: int = 48
    show_every: int = 10
    limits: Limits = field(default_factory=Limits)
    split: str = "rl"
    seed: int = 0


def train_grpo(
    halves: Halves,
    data: Path,
    out: Path,
    settings: RunSettings,
    *,
    sample_batch: int = 128,
    micro_batch: int = 16,
    device: str = "auto",
    dtype: str = "auto",
    minutes: float = math.inf,
) -> dict[str, Any]:
    """Train both halves on ``data/<split>``, or go on with the run in ``out``.

    ``out/last/av`` and ``out/last/ar`` hold the last healthy checkpoint, ``out/log.jsonl`` a line a
    step, ``out/samples.txt`` texts to read. Returns the figures that ``describe`` puts into words.
    Raises NLAError for samples that cannot differ, where the data belongs to another model, ``out``
    to another run, or a loss or gradient is not a number; ``last`` then stays as it was.
    """
    _check(settings.step.sampling)
    require_data(data, halves.base, halves.av.layer)
    examples, validation = Examples.load(data / settings.split), Examples.load(data / "val")
    where = pick_device(device)
    kind = pick_dtype(where, dtype)
    policy = load_policy(
        halves, device=where, dtype=kind, temperature=settings.step.sampling.temperature
    )
    ar = load_ar_task(halves, device=where, dtype=kind)
    grpo = Grpo(
        policy,
        ar,
        # It holds the very modules that are trained: after an update it judges with the new ones.
        Reconstructor(ar.model, ar.head, halves.tokenizer, halves.ar),
        Reference.of(examples.hidden),
        {
            "av": MasterWeights(policy.parameters, settings.lr_av),
            "ar": MasterWeights(ar.parameters, settings.lr_ar),
        },
        settings.step,
        sample_batch=sample_batch,
        micro_batch=micro_batch,
    )
    return _Run(halves, grpo, examples, validation, settings, out).go(minutes * 60)


def _check(how: Sampling) -> None:
    if how.group < 2 or how.temperature <= 0:
        raise NLAError(
            "Nothing can be learned from these samples",
            why=f"{how.group} sample(s) a vector at temperature {how.temperature}: a group's "
            "samples are compared with each other, so there must be several that differ",
            fix="Use --samples 2 or more and a --temperature above 0",
        )


class _Run:
    def __init__(
        self,
        halves: Halves,
        grpo: Grpo,
        examples: Examples,
        validation: Examples,
        settings: RunSettings,
        out: Path,
    ) -> None:
        self.halves, self.grpo, self.out = halves, grpo, out
        self.examples, self.validation, self.settings = examples, validation, settings
        # Copied before a checkpoint is loaded. It pays nobody: two halves that learn from each
        # other can agree on a language of their own, and nothing else shows it as early.
        head = copy.deepcopy(grpo.ar.head)
        self.first_ar = Reconstructor(grpo.ar.model, head, halves.tokenizer, halves.ar)
        self.identity = asdict(settings) | {"pair": halves.fingerprint()}
        out.mkdir(parents=True, exist_ok=True)
        found = load_checkpoint(out, self.identity, grpo.weights)
        self.step = 0 if found is None else int(found["step"])
        self.journal = Journal(out, resumed_at=None if found is None else self.step)
        if found is None:
            # The warm start is the first checkpoint, and what later health is measured against.
            figures, self.start = self.validate()
            self.journal.write({"step": 0, "val": figures})
            self._save()
        else:
            self.start = Signals(**found["start"])

    def go(self, seconds: float) -> dict[str, Any]:
        """Step until the end, the end of the time, or collapse."""
        settings, began = self.settings, time.monotonic()
        saved, collapsed = self.step, list[str]()
        for rows in _orders(len(self.examples.rows), settings, self.step):
            step_began = time.monotonic()
            share = schedule(
                self.step,
                steps=settings.steps,
                warmup=settings.warmup,
                final_share=settings.final_lr_share,
            )
            batch, figures_of_step = self.grpo.step(
                self.examples.hidden,
                rows,
                self.step,
                settings.lr_av * share,
                settings.lr_ar * share,
            )
            self.step += 1
            spent = time.monotonic() - step_began
            line: dict[str, Any] = {"step": self.step, **figures_of_step, "seconds": spent}
            line["tokens_per_second"] = sum(len(s.token_ids) for s in batch.samples) / spent
            out_of_time = time.monotonic() - began > seconds
            due = self.step % settings.validate_every == 0 or self.step == settings.steps
            if due or out_of_time:
                figures, health = self.validate()
                collapsed = what_collapsed(health, self.start, settings.limits)
                if due:
                    line["val"] = figures
            self._report(batch, line)
            if collapsed:
                break
            if due or out_of_time:
                self._save()
                saved = self.step
            if out_of_time:
                break
        return self._figures(saved, collapsed)

    def validate(self) -> tuple[dict[str, float], Signals]:
        """FVE and signals of greedy texts on the first vectors of ``val``, always the same ones."""
        n = min(self.settings.validation_vectors, len(self.validation.rows))
        greedy = Sampling(
            group=1, temperature=0.0, max_new_tokens=self.settings.step.sampling.max_new_tokens
        )
        samples = self.grpo.draw(self.validation.hidden, range(n), greedy, 0)
        true = self.validation.hidden[:n].float()
        texts, size = [s.text for s in samples], self.grpo.micro_batch
        predicted = rebuild(self.grpo.reconstructor, texts, batch_size=size)
        with as_warm_start(self.grpo.ar.model):
            by_first = rebuild(self.first_ar, texts, batch_size=size)
        fve = self.grpo.fve(mse_nrm(predicted, true))
        if not math.isfinite(fve):
            raise diverged("What the AR makes of the validation texts is not a number")
        ranks = rank_of_own(predicted, true, self.grpo.reference.mean)
        found = replace(
            signals(texts, [s.finish for s in samples], ranks),
            first_ar_fve=self.grpo.fve(mse_nrm(by_first, true)),
        )
        return {"fve": fve} | found.as_dict(), found

    def _report(self, batch: Batch, line: dict[str, Any]) -> None:
        self.journal.write(line)
        if self.step % self.settings.show_every == 0 or self.step == self.settings.steps:
            self.journal.show(self.step, self._shown(batch))
        val = f" | greedy FVE {line['val']['fve']:.3f}" if "val" in line else ""
        say(
            f"step {self.step}/{self.settings.steps} reward {line['reward']:.3f} "
            f"FVE {line['fve']:.3f} KL {line['kl']:.3f} tokens {line['tokens']:.0f} "
            f"cut {line['cut_rate']:.0%} {line['tokens_per_second']:.0f} tokens/s{val}"
        )

    def _shown(self, batch: Batch) -> list[Shown]:
        group = self.settings.step.sampling.group
        shown = []
        for first in range(0, len(batch.samples), group)[:SHOWN_VECTORS]:
            row = self.examples.rows.iloc[batch.samples[first].row]
            texts = [
                (self.grpo.fve(batch.errors[i]), batch.samples[i].text)
                for i in range(first, first + group)
            ]
            shown.append(
                Shown(row["context"], row["label"], sorted(texts, key=lambda t: t[0], reverse=True))
            )
        return shown

    def _save(self) -> None:
        state = {"step": self.step, "settings": self.identity, "start": self.start.as_dict()}
        save_checkpoint(self.out, state, self.grpo.weights, self._save_weights)

    def _save_weights(self, folder: Path) -> None:
        spec, ar = self.halves.base.spec, self.grpo.ar
        self.grpo.policy.save(folder / "av", spec)
        save_half(ar.model, self.halves.ar, folder / "ar", spec, ar.head)

    def _figures(self, saved: int, collapsed: list[str]) -> dict[str, Any]:
        lines = [line for line in self.journal.lines() if "val" in line and line["step"] <= saved]
        return {
            "steps": self.step,
            "of": self.settings.steps,
            "checkpoint": saved,
            "fve_start": lines[0]["val"]["fve"],
            "fve": lines[-1]["val"]["fve"],
            "fve_of_step": lines[-1]["step"],
            "collapsed": collapsed,
        }


def describe(figures: dict[str, Any]) -> str:
    """The figures in words."""
    fve = (
        f"FVE of greedy texts: {figures['fve_start']:.3f} at the start, {figures['fve']:.3f} "
        f"at step {figures['fve_of_step']}"
    )
    if figures["collapsed"]:
        return (
            f"Stopped at step {figures['steps']}, for the policy has collapsed: "
            f"{'; '.join(figures['collapsed'])}. The checkpoint is of step "
            f"{figures['checkpoint']}, from before. {fve}. Start again with a lower --lr-av or a "
            "higher --kl"
        )
    if figures["steps"] < figures["of"]:
        return (
            f"Time is up at step {figures['steps']} of {figures['of']}; the same command goes on. "
            f"{fve}"
        )
    return f"{figures['steps']} steps done. {fve}"


def _orders(total: int, settings: RunSettings, done: int) -> Iterator[list[int]]:
    """The vectors of each step from ``done`` on; a fresh seeded permutation each epoch."""
    size = min(settings.step.vectors, total)
    per_epoch = total // size
    for step in range(done, settings.steps):
        epoch, place = divmod(step, per_epoch)
        order = random.Random(settings.seed * 1000 + epoch).sample(range(total), total)
        yield order[place * size : (place + 1) * size]
