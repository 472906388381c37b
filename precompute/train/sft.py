"""Supervised training of an AV or AR by LoRA: the loop, its schedule, its checkpoints.

Knows optimiser, schedule, logging and resuming. Knows nothing of what a batch means (see tasks.py).
The decision a reader would question: no autocast. On a CPU it converts activations several times a
block; instead the whole model computes in one dtype (that of inference) and the optimiser keeps
float32 masters of the few weights that are trained.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nla_core.errors import NLAError
from nla_core.nla.families import parts_of
from precompute.train.examples import Examples
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


class MasterWeights:
    """AdamW on float32 copies of the trained weights, which themselves stay in compute dtype."""

    def __init__(self, trained: list[nn.Parameter], lr: float) -> None:
        self.trained = trained
        self.masters = [p.detach().float().clone() for p in trained]
        self.optimizer = torch.optim.AdamW(self.masters, lr=lr, weight_decay=0.0)

    def step(self, lr: float, clip: float) -> float:
        """Apply the gradients of the last backward pass; returns their norm before clipping."""
        for master, weight in zip(self.masters, self.trained, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self.masters, clip)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.write_back()
        return float(norm)

    @torch.no_grad()
    def write_back(self) -> None:
        for master, weight in zip(self.masters, self.trained, strict=True):
            weight.copy_(master)

    def state(self) -> dict[str, Tensor]:
        state = {f"{i}.master": m.detach() for i, m in enumerate(self.masters)}
        for i, master in enumerate(self.masters):
            for name in ("exp_avg", "exp_avg_sq"):
                state[f"{i}.{name}"] = self.optimizer.state[master][name]
        return {name: tensor.contiguous() for name, tensor in state.items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor], step: int) -> None:
        for i, master in enumerate(self.masters):
            master.copy_(state[f"{i}.master"])
            self.optimizer.state[master] = {
                "step": torch.tensor(float(step)),
                "exp_avg": state[f"{i}.exp_avg"].to(master.device),
                "exp_avg_sq": state[f"{i}.exp_avg_sq"].to(master.device),
            }
        self.write_back()


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

    ``out/last`` always holds the last whole checkpoint, ``out/log.jsonl`` one line a validation.
    The order of examples depends on seed and step alone: a resumed run sees the same batches.
    """
    out.mkdir(parents=True, exist_ok=True)
    weights = MasterWeights(task.parameters, settings.lr)
    step = _resume(out, settings, weights)
    began, losses = time.monotonic(), []
    lengths = data.rows["label"].str.len().tolist()
    for batch in _batches(lengths, settings, step):
        labels = data.rows["label"].iloc[batch.tolist()].tolist()
        loss = task.loss(data.hidden[batch].float(), labels)
        if not torch.isfinite(loss):
            raise NLAError(
                f"Training diverged at step {step}",
                why="The loss is not a number",
                fix=f"Lower --lr; the checkpoint in {out / 'last'} is from before",
            )
        loss.backward()
        norm = weights.step(settings.lr * schedule(step, settings), settings.clip)
        losses.append(loss.item())
        step += 1
        out_of_time = time.monotonic() - began > stop_after_s
        if step % 10 == 0:
            rate = (time.monotonic() - began) / len(losses)
            _say(f"step {step}/{settings.steps} loss {_mean(losses[-10:]):.3f} {rate:.2f} s/step")
        if step % settings.validate_every == 0 or step == settings.steps:
            line = {"step": step, "loss": _mean(losses[-50:]), "grad_norm": norm}
            line |= _validate(task, validation)
            line["seconds"] = time.monotonic() - began
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            _say(json.dumps(line))
        if step % settings.checkpoint_every == 0 or step == settings.steps or out_of_time:
            _checkpoint(out, settings, step, weights, save_weights)
        if out_of_time:
            return


def schedule(step: int, settings: SftSettings) -> float:
    """Share of the peak learning rate at a step."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    through = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, through)))
    return settings.final_lr_share + (1 - settings.final_lr_share) * cosine


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


def _checkpoint(
    out: Path,
    settings: SftSettings,
    step: int,
    weights: MasterWeights,
    save_weights: Callable[[Path], None],
) -> None:
    staging = out / ".writing"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    save_weights(staging)
    save_file(weights.state(), staging / "optimizer.safetensors")
    (staging / "state.json").write_text(json.dumps({"step": step, "settings": asdict(settings)}))
    last, old = out / "last", out / ".old"
    shutil.rmtree(old, ignore_errors=True)
    if last.exists():
        last.rename(old)
    staging.rename(last)
    shutil.rmtree(old, ignore_errors=True)


def _resume(out: Path, settings: SftSettings, weights: MasterWeights) -> int:
    last = out / "last" if (out / "last").exists() else out / ".old"
    if not (last / "state.json").is_file():
        return 0
    state = json.loads((last / "state.json").read_text())
    if state["settings"] != asdict(settings):
        raise NLAError(
            f"{out} holds a run with other settings",
            why=f"It was started with {state['settings']}",
            fix="Use these settings, or another --out",
        )
    step = int(state["step"])
    weights.load(load_file(last / "optimizer.safetensors"), step)
    _say(f"resuming at step {step}")
    return step


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
