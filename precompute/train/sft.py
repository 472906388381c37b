"""Supervised training of an AV or AR by LoRA: the loop, its schedule, its checkpoints.

Knows schedule, logging and the order of batches. Knows nothing of what a batch means (see tasks.py)
or of how weights and checkpoints are kept (see state.py).
The decision a reader would question: no autocast. On a CPU it converts activations several times a
block; instead the whole model computes in one dtype (that of inference) and the optimiser keeps
float32 masters of the few weights that are trained.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nla_core.errors import NLAError
from nla_core.models.devices import fitting
from nla_core.models.families import parts_of
from precompute.output import say
from precompute.train.examples import Examples
from precompute.train.labels import without_parts
from precompute.train.state import (
    BEST,
    MasterWeights,
    diverged,
    load_checkpoint,
    replace_folder,
    save_checkpoint,
)
from precompute.train.tasks import Task

SORTED_BATCHES = 16


@dataclass(frozen=True, slots=True)
class SftSettings:
    """One run. ``lr`` is the peak of a cosine with linear warm-up."""

    steps: int
    lr: float
    batch_size: int = 32
    warmup: int = 20
    final_lr_share: float = 0.02
    clip: float = 1.0
    rank: int = 32
    alpha: int = 64
    validate_every: int = 50
    checkpoint_every: int = 50
    seed: int = 0
    drop_parts: float = 0.0
    """Chance of each part of a label to be left out in training; validation sees whole labels."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop_parts < 1:
            raise NLAError(
                f"--drop-parts is {self.drop_parts:g}",
                why="It is a chance: at least 0 and below 1",
                fix="Use a value such as 0.3",
            )

    def as_dict(self) -> dict[str, Any]:
        """As a checkpoint keeps them; one of a run without ``drop_parts`` does not name it."""
        kept = asdict(self)
        if not self.drop_parts:
            del kept["drop_parts"]
        return kept


def add_lora(model: Any, settings: SftSettings) -> Any:
    """Freeze ``model`` and put LoRA adapters on all its block linears (family table)."""
    from peft import LoraConfig, get_peft_model

    parts = parts_of(model)
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=list(parts.family.lora_targets),
        fan_in_fan_out=parts.config.model_type == "gpt2",
    )
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def train(
    task: Task,
    data: Examples,
    validation: Examples,
    settings: SftSettings,
    out: Path,
    *,
    save_weights: Callable[[Path], None],
    stop_after_s: float = math.inf,
) -> None:
    """Run (or go on with) a training in ``out``; raises NLAError when the loss is not a number.

    ``out/last`` always holds the last whole checkpoint, ``out/best`` the weights that did best on
    ``validation``, ``out/log.jsonl`` one line a validation.
    The order of examples depends on seed and step alone: a resumed run sees the same batches.
    """
    out.mkdir(parents=True, exist_ok=True)
    weights = MasterWeights(task.parameters, settings.lr)
    groups = {"optimizer": weights}
    found = load_checkpoint(out, settings.as_dict(), groups)
    step = 0 if found is None else int(found["step"])
    best = math.inf if found is None else float(found.get("best", math.inf))
    began, losses = time.monotonic(), []
    micro_batch = settings.batch_size
    lengths = data.rows["label"].str.len().tolist()
    for batch in _batches(lengths, settings, step):
        labels = data.rows["label"].iloc[batch.tolist()].tolist()
        if settings.drop_parts:
            rng = random.Random(f"{settings.seed}/parts/{step}")
            labels = [without_parts(label, settings.drop_parts, rng) for label in labels]
        hidden = data.hidden[batch].float()
        loss, micro_batch = fitting(partial(backward, task, hidden, labels), micro_batch)
        norm = weights.step(
            settings.lr * schedule(step, settings.steps, settings.warmup, settings.final_lr_share),
            settings.clip,
        )
        losses.append(loss)
        step += 1
        out_of_time = time.monotonic() - began > stop_after_s
        if step % 10 == 0:
            rate = (time.monotonic() - began) / len(losses)
            say(f"step {step}/{settings.steps} loss {_mean(losses[-10:]):.3f} {rate:.2f} s/step")
        if step % settings.validate_every == 0 or step == settings.steps:
            line = {"step": step, "loss": _mean(losses[-50:]), "grad_norm": norm}
            line |= _validate(task, validation)
            if line[task.watched] < best:
                best = line[task.watched]
                replace_folder(out / BEST, save_weights)
            line["seconds"] = time.monotonic() - began
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            say(json.dumps(line))
        if step % settings.checkpoint_every == 0 or step == settings.steps or out_of_time:
            state = {"step": step, "settings": settings.as_dict(), "best": best}
            save_checkpoint(out, state, groups, save_weights)
        if out_of_time:
            return


def backward(task: Task, hidden: Tensor, labels: Sequence[str], size: int) -> float:
    """Gradients of the mean loss of a batch, ``size`` rows at a time; returns the loss."""
    for parameter in task.parameters:
        parameter.grad = None
    total = 0.0
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        loss = task.loss(hidden[part], labels[part]) * (len(labels[part]) / len(labels))
        if not torch.isfinite(loss):
            raise diverged("The loss is not a number")
        loss.backward()
        total += loss.item()
    return total


def schedule(step: int, steps: int, warmup: int, final_share: float) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    through = (step - warmup) / max(1, steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, through)))
    return final_share + (1 - final_share) * cosine


def _batches(lengths: Sequence[int], settings: SftSettings, done: int) -> Iterator[Tensor]:
    """Index batches from step ``done`` on; a fresh seeded permutation each epoch.

    Labels of similar length share a batch, so that little of it is padding: within stretches of
    ``SORTED_BATCHES`` batches the permutation is sorted by length, and their order drawn again.
    """
    size = settings.batch_size
    per_epoch = len(lengths) // size
    if per_epoch == 0:
        raise NLAError(
            f"{len(lengths)} examples do not fill one batch of {size}",
            why="The training split is too small",
            fix="Prepare more windows, or lower --batch-size",
        )
    for epoch in range(done // per_epoch, math.ceil(settings.steps / per_epoch)):
        rng = random.Random(settings.seed * 1000 + epoch)
        order = rng.sample(range(len(lengths)), per_epoch * size)
        batches: list[list[int]] = []
        for start in range(0, len(order), size * SORTED_BATCHES):
            part = sorted(order[start : start + size * SORTED_BATCHES], key=lengths.__getitem__)
            batches += [part[i : i + size] for i in range(0, len(part), size)]
        rng.shuffle(batches)
        first = max(0, done - epoch * per_epoch)
        yield from map(torch.tensor, batches[first : settings.steps - epoch * per_epoch])


@torch.no_grad()
def _validate(task: Task, validation: Examples, n: int = 96) -> dict[str, float]:
    labels = validation.rows["label"].iloc[:n].tolist()
    return task.validate(validation.hidden[:n].float(), labels)


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))
