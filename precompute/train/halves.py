"""The two halves that training on samples starts from: where they lie, and how they are loaded.

Knows the three forms of a half (a pair's folder, a run, its last checkpoint) and that both must
explain the same layer of the same model. Knows nothing of rewards. The decision a reader would
question: the target itself is never loaded; its vectors were recorded by ``train data``, and on a
small machine its memory is needed for the halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nla_core.data.files import sha256_file, sha256_json
from nla_core.errors import NLAError
from nla_core.models.checkpoints import Resolved, load_tokenizer, resolve
from nla_core.models.pair import load_reconstructor as load_ar
from nla_core.models.pair import load_verbalizer as load_av
from nla_core.models.pair import pair_halves
from nla_core.models.reconstructor import HEAD_FILE, Reconstructor
from nla_core.models.sidecar import FILE_NAME, Sidecar, load_sidecar
from nla_core.models.verbalizer import LocalVerbalizer
from precompute.train.state import LAST


@dataclass(frozen=True, slots=True)
class Halves:
    """An AV and an AR that fit each other, not yet loaded."""

    av_dir: Path
    ar_dir: Path
    av: Sidecar
    ar: Sidecar
    base: Resolved
    tokenizer: Any

    def fingerprint(self) -> str:
        """Twelve hex digits over the weights and sidecars: a resumed run must have the same."""
        return sha256_json(
            [
                [folder.name, path.name, sha256_file(path)]
                for folder in (self.av_dir, self.ar_dir)
                for path in sorted(folder.iterdir())
                if path.name in (FILE_NAME, HEAD_FILE) or path.name.endswith("model.safetensors")
            ]
        )[:12]


def find_halves(
    *, pair: Path | None = None, av: Path | None = None, ar: Path | None = None
) -> Halves:
    """From ``pair``, or from ``av`` and ``ar``: each a half's folder or the run that made it.

    Raises NLAError where a half is missing or the two do not belong together.
    """
    if pair is not None and av is None and ar is None:
        av_dir, ar_dir = pair_halves(pair)
    elif pair is None and av is not None and ar is not None:
        av_dir, ar_dir = half_of_run(av, "av"), half_of_run(ar, "ar")
    else:
        raise NLAError(
            "It is not clear which AV and AR to start from",
            why="Either --pair, or both --av and --ar are needed",
            fix="Give --pair DIR, or --av RUN and --ar RUN",
        )
    sidecars = load_sidecar(av_dir), load_sidecar(ar_dir)
    for sidecar, role in zip(sidecars, ("av", "ar"), strict=True):
        if sidecar.role != role:
            raise sidecar.refuse("role", sidecar.role, role, f"Give the {role.upper()} here")
    for field in ("d_model", "layer", "base_model", "base_sha256"):
        of_av, of_ar = (getattr(sidecar, field) for sidecar in sidecars)
        if of_av != of_ar:
            raise sidecars[1].refuse(
                field, of_ar, f"{of_av} (as in {sidecars[0].path})", "Use halves of one model"
            )
    if not sidecars[0].base_model:
        raise sidecars[0].refuse("base_model", None, "the target", "Name it in both sidecars")
    base = resolve(sidecars[0].base_model)
    return Halves(av_dir, ar_dir, *sidecars, base, load_tokenizer(base.folder))


def load_verbalizer(halves: Halves, *, device: torch.device, dtype: torch.dtype) -> LocalVerbalizer:
    """The AV, frozen, its adapter merged."""
    return load_av(
        halves.av_dir,
        halves.av,
        halves.base.folder,
        halves.tokenizer,
        dtype=dtype,
        device=device,
    )


def load_reconstructor(
    halves: Halves, *, device: torch.device, dtype: torch.dtype
) -> Reconstructor:
    """The AR, frozen, its adapter merged."""
    return load_ar(
        halves.ar_dir,
        halves.ar,
        halves.base.folder,
        halves.tokenizer,
        dtype=dtype,
        device=device,
    )


def half_of_run(folder: Path, role: str, checkpoint: str = LAST) -> Path:
    """Where a half lies: in a run's checkpoint, below it, in a pair, or in ``folder`` itself.

    A supervised run keeps one half in ``last``, GRPO both, in ``last/av`` and ``last/ar``.
    """
    for place in (folder / checkpoint / role, folder / checkpoint, folder / role):
        if (place / FILE_NAME).is_file():
            return place
    return folder
