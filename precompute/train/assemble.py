"""From two finished runs to one pair folder that the app and every verb can load.

Knows which files a shipped pair holds. Knows nothing of training. The decision a reader would
question: adapters are shipped in float16; they were trained against base weights in bfloat16, whose
rounding is coarser.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from nla_core.errors import NLAError
from nla_core.models.reconstructor import HEAD_FILE
from nla_core.models.sidecar import FILE_NAME
from precompute.train.halves import half_of_run
from precompute.train.runs import ADAPTER_CONFIG, ADAPTER_FILE
from precompute.train.state import LAST, STATE_FILE


def assemble(av_run: Path, ar_run: Path, out: Path, checkpoint: str = LAST) -> None:
    """Write ``out/av`` and ``out/ar`` from the ``last`` or ``best`` checkpoints of two runs.

    Best is by labels. After training on samples the last one is meant: its texts leave the labels.
    """
    for role, run in (("av", av_run), ("ar", ar_run)):
        half = half_of_run(run, role, checkpoint)
        if not (half / ADAPTER_FILE).is_file():
            raise NLAError(
                f"No finished checkpoint in {run}",
                why=f"{half / ADAPTER_FILE} does not exist",
                fix=f"Run `python -m precompute train {role}` first",
            )
        folder = out / role
        folder.mkdir(parents=True, exist_ok=True)
        for name in (ADAPTER_FILE, HEAD_FILE):
            if (half / name).is_file():
                _shrink(half / name, folder / name)
        shutil.copyfile(half / FILE_NAME, folder / FILE_NAME)
        shutil.copyfile(half / ADAPTER_CONFIG, folder / ADAPTER_CONFIG)
        log = run / "log.jsonl"
        if log.is_file():
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            # A supervised run writes a line a validation, GRPO a line a step.
            lines = [line for line in lines if "val" in line] or lines
            state = json.loads((run / LAST / STATE_FILE).read_text())
            record = {"settings": state["settings"], "steps_done": state["step"], "log": lines}
            (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def _shrink(source: Path, target: Path) -> None:
    save_file({k: v.to(torch.float16) for k, v in load_file(source).items()}, target)
