"""What a training run carries from step to step: trained weights, optimiser, checkpoints.

Knows float32 masters of weights that compute in another dtype, and a checkpoint folder that is
always whole. Knows nothing of losses. The decision a reader would question: a gradient that is not
a number raises before it is applied, so that no checkpoint can ever hold what it would have made of
the weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nla_core.errors import NLAError
from precompute.output import say

STATE_FILE = "state.json"
LAST, BEST = "last", "best"


class MasterWeights:
    """AdamW on float32 copies of the trained weights, which themselves stay in compute dtype."""

    def __init__(self, trained: list[nn.Parameter], lr: float) -> None:
        self.trained = trained
        self.masters = [p.detach().float().clone() for p in trained]
        self.updates = 0
        self.optimizer = torch.optim.AdamW(self.masters, lr=lr, weight_decay=0.0)

    def step(self, lr: float, clip: float) -> float:
        """Apply the gradients of the last backward pass; returns their norm before clipping.

        Raises NLAError, with the weights as they were, where the norm is not a finite number.
        """
        for master, weight in zip(self.masters, self.trained, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self.masters, clip)
        if not torch.isfinite(norm):
            raise diverged("The gradient is not a number")
        self.updates += 1
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
                moments = self.optimizer.state[master]
                state[f"{i}.{name}"] = moments[name] if moments else torch.zeros_like(master)
        state["updates"] = torch.tensor(self.updates)
        return {name: tensor.contiguous() for name, tensor in state.items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor], step: int) -> None:
        """Take over ``state``; ``step`` stands in for the number of updates it may lack."""
        self.updates = int(state.get("updates", torch.tensor(step)))
        for i, master in enumerate(self.masters):
            master.copy_(state[f"{i}.master"])
            self.optimizer.state[master] = {
                "step": torch.tensor(float(self.updates)),
                "exp_avg": state[f"{i}.exp_avg"].to(master.device),
                "exp_avg_sq": state[f"{i}.exp_avg_sq"].to(master.device),
            }
        self.write_back()


def save_checkpoint(
    out: Path,
    state: Mapping[str, Any],
    weights: Mapping[str, MasterWeights],
    save_weights: Callable[[Path], None],
) -> None:
    """Replace ``out/last`` by the present weights, ``<name>.safetensors`` and ``state.json``.

    ``state`` holds at least step and settings. A crash at any point leaves a whole checkpoint in
    ``last`` or, for a moment, in ``.old-last``.
    """

    def write(folder: Path) -> None:
        save_weights(folder)
        for name, group in weights.items():
            save_file(group.state(), folder / f"{name}.safetensors")
        (folder / STATE_FILE).write_text(json.dumps(dict(state)))

    replace_folder(out / LAST, write)


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new folder, then put it in the place of ``folder``."""
    staging, old = folder.with_name(".writing"), folder.with_name(f".old-{folder.name}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    write(staging)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    out: Path, settings: Mapping[str, Any], weights: Mapping[str, MasterWeights]
) -> dict[str, Any] | None:
    """Load the last checkpoint into ``weights`` and return its state; None where there is none.

    Raises NLAError where it belongs to a run with other settings.
    """
    last = out / LAST if (out / LAST).exists() else out / f".old-{LAST}"
    if not (last / STATE_FILE).is_file():
        return None
    state: dict[str, Any] = json.loads((last / STATE_FILE).read_text())
    if state["settings"] != dict(settings):
        raise NLAError(
            f"{out} holds a run with other settings",
            why=f"It was started with {state['settings']}",
            fix="Use these settings, or another --out",
        )
    for name, group in weights.items():
        group.load(load_file(last / f"{name}.safetensors"), int(state["step"]))
    say(f"resuming at step {state['step']}")
    return state


def diverged(why: str) -> NLAError:
    """The refusal to go on with a loss or gradient that is not a number."""
    return NLAError(
        "Training diverged",
        why=why,
        fix="Lower the learning rate; the last checkpoint is from before and stays as it is",
    )
