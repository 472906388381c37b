"""A GRPO run: schedule, validation, checkpoints, early stop.

Knows the order of vectors, when to look whether the policy is well, and what is kept. Knows nothing
of what happens within a step (see grpo.py). The decision a reader would question: a checkpoint is
written only after a validation that found nothing wrong, so that the last checkpoint is always one
to go on from, whatever stopped the run.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nla_core.errors import NLAError
from nla_core.metrics import mse_nrm, rank_of_own
from nla_core.nla.devices import pick_device, pick_dtype
from nla_core.nla.pair import Reference
from nla_core.nla.reconstructor import Reconstructor
from precompute.train.collapse import Limits, Signals, signals, what_collapsed
from precompute.train.examples import Examples
from precompute.train.grpo import Batch, Grpo, StepSettings
from precompute.train.halves import Halves
from precompute.train.journal import Journal, Shown
from precompute.train.policy import as_warm_start, load_ar_task, load_policy, save_half
from precompute.train.record import require_data
from precompute.train.sampling import Sampling, rebuild
from precompute.train.sft import schedule
from precompute.train.state import MasterWeights, load_checkpoint, save_checkpoint, say

AV, AR = "av", "ar"


@dataclass(frozen=True, slots=True)
class RunSettings:
    """``lr_av`` and ``lr_ar`` are the peaks of cosines with linear warm-up."""

    steps: int = 300
    lr_av: float = 2e-4
    lr_ar: float = 1e-4
    warmup: int = 10
    final_lr_share: float = 0.1
    validate_every: int = 25
    validate_vectors: int = 64
    show_every: int = 10
    shown_vectors: int = 2
    seed: int = 0
    limits: Limits = field(default_factory=Limits)


def train_grpo(
    halves: Halves,
    data: Path,
    out: Path,
    how: StepSettings,
    run: RunSettings,
    *,
    split: str = "rl",
    sample_batch: int = 128,
    micro_batch: int = 32,
    device: str = "auto",
    dtype: str = "auto",
    stop_after_s: float = float("inf"),
) -> dict[str, Any]:
    """Run (or go on with) GRPO in ``out``; returns the figures of the last validation.

    ``out/last`` holds the last healthy checkpoint with ``av/`` and ``ar/``, ``out/log.jsonl`` a
    line a step, ``out/samples.txt`` texts to read. Raises NLAError for a loss that is not a number,
    for a collapsed policy, and for settings or data that do not belong to the run in ``out``.
    """
    _check(how.sampling)
    require_data(data, halves.base, halves.av.layer)
    where = pick_device(device)
    kind = pick_dtype(where, dtype)
    examples, val = Examples.load(data / split), Examples.load(data / "val")
    if len(examples.rows) < how.vectors:
        raise NLAError(
            f"{len(examples.rows)} vectors do not fill one step of {how.vectors}",
            why=f"The split '{split}' of {data} is too small",
            fix="Prepare more windows (--rl-windows), or lower --vectors",
        )
    out.mkdir(parents=True, exist_ok=True)
    trainer = _trainer(halves, examples.hidden, how, run, where, kind, sample_batch, micro_batch)
    # Copied before a checkpoint is loaded. It pays nobody: two halves that learn from each other
    # can agree on a language of their own, and nothing else shows it as early.
    first = Reconstructor(
        trainer.ar.model, copy.deepcopy(trainer.ar.head), halves.tokenizer, halves.ar
    )
    settings = {
        "step": asdict(how),
        "run": asdict(run),
        "split": split,
        "pair": halves.fingerprint(),
    }
    found = load_checkpoint(out, settings, trainer.weights)
    step = 0 if found is None else int(found["step"])
    journal = Journal(out, resumed_at=None if found is None else step)

    def save(state: dict[str, Any]) -> None:
        def weights(folder: Path) -> None:
            spec = halves.base.spec
            trainer.policy.save(folder / AV, spec)
            save_half(trainer.ar.model, halves.ar, folder / AR, spec, trainer.ar.head)

        save_checkpoint(out, {"settings": settings} | state, trainer.weights, weights)

    held_out = val.hidden[: run.validate_vectors].float()
    if found is None:
        checked, start = _validate(trainer, first, held_out, step)
        journal.write({"step": 0} | checked)
        save({"step": 0, "start": start.as_dict(), "checked": checked})
    else:
        start, checked = Signals(**found["start"]), found["checked"]
    began = time.monotonic()
    while step < run.steps:
        rows = _rows(len(examples.rows), how.vectors, step, run.seed)
        share = schedule(step, run.steps, run.warmup, run.final_lr_share)
        at = time.monotonic()
        batch, line = trainer.step(
            examples.hidden, rows, step, run.lr_av * share, run.lr_ar * share
        )
        step += 1
        line |= {"step": step, "seconds": time.monotonic() - at}
        line["tokens_per_second"] = line["tokens"] * len(batch.samples) / line["seconds"]
        if step % run.show_every == 0 or step == run.steps:
            journal.show(step, _shown(trainer, batch, examples, rows, run.shown_vectors))
        out_of_time = time.monotonic() - began > stop_after_s
        if step % run.validate_every == 0 or step == run.steps or out_of_time:
            checked, now = _validate(trainer, first, held_out, step)
            line |= checked
            journal.write(line)
            if wrong := what_collapsed(now, start, run.limits):
                raise _collapsed(wrong, step, out)
            save({"step": step, "start": start.as_dict(), "checked": checked})
        else:
            journal.write(line)
        say(_told(line, run.steps))
        if out_of_time:
            break
    return {"step": step} | checked


def _trainer(
    halves: Halves,
    hidden: Tensor,
    how: StepSettings,
    run: RunSettings,
    device: torch.device,
    dtype: torch.dtype,
    sample_batch: int,
    micro_batch: int,
) -> Grpo:
    policy = load_policy(halves, device=device, dtype=dtype, temperature=how.sampling.temperature)
    ar = load_ar_task(halves, device=device, dtype=dtype)
    # It judges with the very weights that are trained, so each step sees the AR of this moment.
    reconstructor = Reconstructor(ar.model, ar.head, halves.tokenizer, halves.ar)
    weights = {
        AV: MasterWeights(policy.parameters, run.lr_av),
        AR: MasterWeights(ar.parameters, run.lr_ar),
    }
    return Grpo(
        policy,
        ar,
        reconstructor,
        Reference.of(hidden),
        weights,
        how,
        sample_batch=sample_batch,
        micro_batch=micro_batch,
    )


def _rows(n: int, vectors: int, step: int, seed: int) -> list[int]:
    """The vectors of a step: a fresh seeded permutation each epoch, resumed or not."""
    per_epoch = n // vectors
    epoch, place = divmod(step, per_epoch)
    order = random.Random(seed * 1_000_003 + epoch).sample(range(n), n)
    return order[place * vectors : (place + 1) * vectors]


def _check(how: Sampling) -> None:
    if how.group < 2 or how.temperature <= 0:
        raise NLAError(
            "Nothing can be learned from these samples",
            why=f"{how.group} sample(s) a vector at temperature {how.temperature}: a group's "
            "samples are compared with each other, so there must be several that differ",
            fix="Use --samples 2 or more and a --temperature above 0",
        )


def _validate(
    trainer: Grpo, first: Reconstructor, hidden: Tensor, step: int
) -> tuple[dict[str, float], Signals]:
    """Greedy texts of held-out vectors: ``val_fve`` and the signals of collapse."""
    greedy = replace(trainer.settings.sampling, group=1, temperature=0.0)
    rows = range(len(hidden))
    samples = trainer.draw(hidden, rows, greedy, step)
    texts = [s.text for s in samples]
    predicted = rebuild(trainer.reconstructor, texts, batch_size=trainer.micro_batch)
    with as_warm_start(trainer.ar.model):
        by_first = rebuild(first, texts, batch_size=trainer.micro_batch)
    ranks = rank_of_own(predicted, hidden, trainer.reference.mean)
    found = replace(
        signals(texts, [s.finish for s in samples], ranks),
        first_ar_fve=trainer.fve(mse_nrm(by_first, hidden)),
    )
    line = {"val_fve": trainer.fve(mse_nrm(predicted, hidden))}
    return line | {f"val_{name}": value for name, value in found.as_dict().items()}, found


def _shown(
    trainer: Grpo, batch: Batch, examples: Examples, rows: Sequence[int], n: int
) -> list[Shown]:
    group = trainer.settings.sampling.group
    shown = []
    for place, row in enumerate(rows[:n]):
        own = range(place * group, (place + 1) * group)
        texts = sorted(
            ((trainer.fve(batch.errors[i]), batch.samples[i].text) for i in own), reverse=True
        )
        facts = examples.rows.iloc[row]
        shown.append(Shown(str(facts["context"]), str(facts["label"]), texts))
    return shown


def _collapsed(wrong: Sequence[str], step: int, out: Path) -> NLAError:
    return NLAError(
        f"The policy has collapsed at step {step}",
        why="; ".join(wrong),
        fix=f"{out / 'last'} is the last healthy checkpoint: assemble it, or start again from it "
        "with a larger --kl, a smaller --lr-av or --infonce",
    )


def _told(line: dict[str, float], steps: int) -> str:
    text = (
        f"step {line['step']}/{steps} fve {line['fve']:.3f} kl {line['kl']:.3f} "
        f"{line['tokens']:.0f} tokens, failed {line['failed']:.0%}, {line['seconds']:.1f} s"
    )
    return text + (f", validation {line['val_fve']:.3f}" if "val_fve" in line else "")
