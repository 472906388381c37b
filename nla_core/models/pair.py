"""An NLA pair on disk: its AV and AR folders, its reference statistics, its identity.

Knows the folder forms (``DIR/av`` and ``DIR/ar``; ``NAME-av`` beside ``NAME-ar``, by either name or
by ``NAME``; hub ids of that form) and what is in ``reference.safetensors``. Knows how to load all
three models. The decision a reader would question: the reference set's statistics travel with the
pair, because FVE and centred cosine mean nothing without their denominator and mean.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nla_core.errors import NLAError
from nla_core.metrics import rawvar, scale_to_sqrt_d
from nla_core.models.checkpoints import (
    Progress,
    Resolved,
    load_causal_lm,
    load_tokenizer,
    merge_adapter,
    resolve,
)
from nla_core.models.cpu import pack_products, sharpen
from nla_core.models.devices import Placement, device_of, pick_dtype, pick_place
from nla_core.models.families import keep_blocks, parts_of, truncate
from nla_core.models.reconstructor import HEAD_FILE, Reconstructor, load_head
from nla_core.models.sidecar import Sidecar, load_sidecar
from nla_core.models.target import Target
from nla_core.models.verbalizer import LocalVerbalizer

REFERENCE_FILE = "reference.safetensors"
QUANTILES = 101


@dataclass(frozen=True, slots=True)
class Reference:
    """Statistics of a pair's reference set of ``n`` vectors: what readings are held against."""

    rawvar: float  # denominator of FVE
    mean: Tensor  # [d_model] mean of vectors scaled to sqrt(d)
    norm_quantiles: Tensor  # [101] of the raw L2 norm, percent 0 to 100
    n: int

    @classmethod
    def of(cls, hidden: Tensor) -> Reference:
        """From ``[n, d_model]`` raw vectors."""
        hidden = hidden.float()
        return cls(
            rawvar(hidden),
            scale_to_sqrt_d(hidden).mean(0),
            hidden.norm(dim=-1).quantile(torch.linspace(0, 1, QUANTILES)),
            len(hidden),
        )

    def norm_percentile(self, norms: Tensor) -> Tensor:
        """Percent of the reference set whose norm lies below, ``[n]`` in 0..100."""
        return torch.searchsorted(self.norm_quantiles, norms.contiguous()).clamp(max=100).float()

    @property
    def median_norm(self) -> float:
        return float(self.norm_quantiles[QUANTILES // 2])

    def save(self, path: Path) -> None:
        save_file(
            {"mean": self.mean.contiguous(), "norm_quantiles": self.norm_quantiles.contiguous()},
            path,
            metadata={"rawvar": repr(self.rawvar), "n": str(self.n)},
        )

    @classmethod
    def load(cls, path: Path) -> Reference:
        from safetensors import safe_open

        try:
            tensors = load_file(path)
            with safe_open(path, "pt") as handle:
                metadata = handle.metadata()
            return cls(
                float(metadata["rawvar"]),
                tensors["mean"],
                tensors["norm_quantiles"],
                int(metadata["n"]),
            )
        except (FileNotFoundError, KeyError, TypeError) as error:
            raise NLAError(
                f"No reference statistics in {path}",
                why=f"{type(error).__name__}: {error}; FVE has no denominator without them",
                fix="Record them: python -m precompute testset --nla DIR --corpus FILE",
            ) from None


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair that was found and whose sidecars agree; nothing is loaded yet."""

    pair_id: str
    revision: str  # hash of sidecars, adapters, heads and reference
    av_dir: Path
    ar_dir: Path
    av: Sidecar
    ar: Sidecar
    reference: Reference

    @property
    def layer(self) -> int:
        return self.av.layer

    @property
    def d_model(self) -> int:
        return self.av.d_model

    @property
    def rawvar(self) -> float:
        return self.reference.rawvar

    @property
    def target(self) -> str:
        return self.av.base_model or ""

    def describe(self) -> dict[str, Any]:
        """What a published dataset records of its pair."""
        return {
            "pair_id": self.pair_id,
            "revision": self.revision,
            "target": self.target,
            "layer": self.layer,
            "d_model": self.d_model,
            "injection_scale": self.av.injection_scale,
            "rawvar": self.rawvar,
            "reference_n": self.reference.n,
            "median_norm": self.reference.median_norm,
        }


def find_pair(folder: Path | str, *, target: str | None = None) -> Pair:
    """Find both halves and check that they belong together; NLAError says what is missing."""
    root = Path(folder)
    av_dir, ar_dir = pair_halves(root)
    av, ar = load_sidecar(av_dir), load_sidecar(ar_dir)
    for field in ("d_model", "layer"):
        if getattr(av, field) != getattr(ar, field):
            raise ar.refuse(
                field,
                getattr(ar, field),
                f"{getattr(av, field)} (as in {av.path})",
                "Use an AV and an AR that were trained together",
            )
    if target:
        av = replace(av, base_model=target)
    reference = _home(root, av_dir) / REFERENCE_FILE
    return Pair(
        pair_id=_stem(root.name),
        revision=_revision(av_dir, ar_dir, reference),
        av_dir=av_dir,
        ar_dir=ar_dir,
        av=av,
        ar=ar,
        reference=Reference.load(reference),
    )


@dataclass(frozen=True, slots=True)
class LoadedPair:
    pair: Pair
    target: Target
    verbalizer: LocalVerbalizer
    reconstructor: Reconstructor
    tokenizer: Any


def load_pair(
    pair: Pair,
    *,
    device: str | Placement = "auto",
    dtype: str = "auto",
    progress: Progress = lambda _: None,
) -> LoadedPair:
    """Load target, AV and AR; every field of the sidecars is held against the live tokenizer.

    ``device`` is named as in `pick_place`: ``split`` spreads each model over all CUDA devices.
    """

    def place() -> Placement:
        """Asked for anew by each model: those before it have taken of what was free."""
        return device if isinstance(device, Placement) else pick_place(device)

    kind = pick_dtype(place().first, dtype)
    base = resolve_target(pair, progress)
    progress("Loading the target")
    tokenizer = load_tokenizer(base.folder)
    model = load_causal_lm(base.folder, dtype=kind, device=place())
    target = Target(pack_products(model, many_rows=True), tokenizer, pair.layer)
    if target.parts.d_model != pair.d_model:
        raise pair.av.refuse(
            "d_model", pair.d_model, target.parts.d_model, "Use the target that the pair explains"
        )
    progress("Loading the verbalizer")
    verbalizer = load_verbalizer(
        pair.av_dir, pair.av, base.folder, tokenizer, dtype=kind, device=place()
    )
    progress("Loading the reconstructor")
    reconstructor = load_reconstructor(
        pair.ar_dir, pair.ar, base.folder, tokenizer, dtype=kind, device=place()
    )
    return LoadedPair(pair, target, verbalizer, reconstructor, tokenizer)


def load_verbalizer(
    folder: Path,
    sidecar: Sidecar,
    base: Path,
    tokenizer: Any,
    *,
    dtype: torch.dtype,
    device: torch.device | Placement,
) -> LocalVerbalizer:
    """An AV by itself; ``base`` is the target's folder, needed where the AV is an adapter."""
    model = load_half(folder, base, dtype=dtype, device=device)
    return LocalVerbalizer(pack_products(sharpen(model)), tokenizer, sidecar)


def load_reconstructor(
    folder: Path,
    sidecar: Sidecar,
    base: Path,
    tokenizer: Any,
    *,
    dtype: torch.dtype,
    device: torch.device | Placement,
) -> Reconstructor:
    """An AR by itself; ``base`` is the target's folder, needed where the AR is an adapter."""
    n_layers = sidecar.layer + 1
    model = load_half(folder, base, dtype=dtype, device=device, n_layers=n_layers)
    truncate(model, n_layers)
    there = device_of(parts_of(model).layers[-1])  # what the head reads comes from there
    pack_products(model, many_rows=True)
    head = load_head(folder / HEAD_FILE, sidecar.d_model).to(there).requires_grad_(False)
    return Reconstructor(model, head, tokenizer, sidecar)


def resolve_target(pair: Pair, progress: Progress = lambda _: None) -> Resolved:
    """The target's folder; NLAError where the sidecar names none, or other weights than these."""
    if not pair.target:
        raise no_target(pair.av)
    base = resolve(pair.target, progress)
    if pair.av.base_sha256 and base.sha256 and pair.av.base_sha256 != base.sha256:
        raise pair.av.refuse(
            "base_sha256",
            pair.av.base_sha256,
            base.sha256,
            "Use the target the pair was trained on",
        )
    return base


def no_target(sidecar: Sidecar) -> NLAError:
    return NLAError(
        f"{sidecar.path} does not say which model the pair explains",
        why="It has no base_model; published sidecars leave it out",
        fix="Name the model with --target, or add a line `base_model: ORG/MODEL` to the file",
    )


def load_half(
    folder: Path,
    base: Path,
    *,
    dtype: torch.dtype,
    device: torch.device | Placement,
    n_layers: int | None = None,
) -> Any:
    """One half's model, frozen: full weights, or a LoRA on the base (cut to ``n_layers`` first).

    Final norm and head are as they were saved; the AR is read without them (``truncate``).
    """
    is_adapter = (folder / "adapter_config.json").is_file()
    place = device if isinstance(device, Placement) else Placement(device)
    model = load_causal_lm(
        base if is_adapter else folder,
        dtype=torch.float32 if is_adapter else dtype,
        device=torch.device("cpu") if is_adapter else place,
    )
    if n_layers is not None:
        keep_blocks(model, n_layers)
    if is_adapter:
        model = merge_adapter(model, folder)
    return place.put(model, dtype).eval().requires_grad_(False)


def pair_halves(root: Path) -> tuple[Path, Path]:
    """The AV's and the AR's folder of a pair; NLAError where there is no pair."""
    if (root / "av").is_dir() and (root / "ar").is_dir():
        return root / "av", root / "ar"
    name = str(root)
    twins = Path(_stem(name) + "-av"), Path(_stem(name) + "-ar")
    if twins[0].is_dir() and twins[1].is_dir():
        return twins
    if name.endswith("-av") and name.count("/") == 1 and not root.exists():
        return resolve(name).folder, resolve(str(twins[1])).folder
    inside = [p for p in sorted(root.glob("*-av")) if Path(_stem(str(p)) + "-ar").is_dir()]
    raise NLAError(
        f"No NLA pair at '{root}'",
        why="It holds no av/ and ar/ folders, and is no NAME-av folder or hub id with a -ar twin",
        fix=f"Name the pair inside it: {inside[0]}"
        if inside
        else "Train one with `python -m precompute train`, or use data/nla/smollm2-135m-L20",
    )


def pair_home(root: Path) -> Path:
    """The folder of what belongs to both halves: reference statistics, test set, card.

    It is ``DIR`` where that holds ``av/`` and ``ar/``, and the AV's folder of twins.
    """
    return _home(root, pair_halves(root)[0])


def _home(root: Path, av_dir: Path) -> Path:
    return root if av_dir == root / "av" else av_dir


def _stem(name: str) -> str:
    return name.removesuffix("-av").removesuffix("-ar")


def _revision(av_dir: Path, ar_dir: Path, reference: Path) -> str:
    """Twelve hex digits over everything that decides a reading, in a fixed order."""
    digest = hashlib.sha256()
    for label, folder in (("av", av_dir), ("ar", ar_dir)):
        for path in sorted(folder.iterdir()):
            if path.suffix in {".safetensors", ".yaml"} or path.name == "adapter_config.json":
                digest.update(f"{label}/{path.name}\n".encode())
                with path.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
    if reference.is_file():
        digest.update(json.dumps(hashlib.sha256(reference.read_bytes()).hexdigest()).encode())
    return digest.hexdigest()[:12]
