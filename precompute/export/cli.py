"""``export``: a pair as the published ones are laid out, for other people's NLA software.

Knows which files both folders hold and the order in which they are made. Knows nothing of formats
and hubs: those are its neighbours. The decision a reader would question: float32 unless asked
otherwise; it is twice the size, and the only format in which texts stay the same to the letter.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nla_core.errors import EXIT_OK, NLAError
from nla_core.models.checkpoints import Resolved, load_tokenizer
from nla_core.models.families import parts_of
from nla_core.models.injection import Slot, build_slot, scale_for_injection
from nla_core.models.pair import (
    REFERENCE_FILE,
    Pair,
    find_pair,
    load_half,
    pair_home,
    resolve_target,
)
from nla_core.models.sidecar import FILE_NAME, Role, Sidecar, dump_sidecar
from precompute.export import hub
from precompute.export.card import CARD_FILE, EVAL_FILE, Facts, write_card
from precompute.export.contract import (
    check_ar,
    check_av,
    published_sidecars,
    published_tokenizers,
)
from precompute.export.folders import (
    bytes_needed,
    save_head,
    save_model,
    save_tokenizer,
    text_only,
)
from precompute.export.staging import check_free, check_space, staged
from precompute.output import write_result
from precompute.testset import FOLDER, TestSet

HELP = (
    "Write a pair as the published ones are laid out: NAME-av and NAME-ar, each a Hugging Face "
    "folder with merged full weights, tokenizer, nla_meta.yaml and model card. Every verb and the "
    "app load them again; --push uploads them."
)
EXAMPLE = (
    "python -m precompute export --nla data/nla/smollm2-135m-L20 --out exported --format reference"
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PREFILL_VECTORS = 16


@dataclass(frozen=True, slots=True)
class Exported:
    folders: Mapping[Role, Path]
    size: int  # bytes of all files
    prefill: float | None  # share of vectors after which the AV begins with av_prefill by itself


def export(pair: Pair, home: Path, out: Path, *, dtype: str, force: bool) -> Exported:
    """Write ``out/NAME-av`` and ``out/NAME-ar``, both or neither; raises NLAError."""
    names = (f"{pair.pair_id}-av", f"{pair.pair_id}-ar")
    if {(out / name).resolve() for name in names} & {pair.av_dir.resolve(), pair.ar_dir.resolve()}:
        raise NLAError(
            f"{out} holds the pair itself",
            why="Its halves have the names that the export would be given",
            fix="Choose another --out",
        )
    check_free(out, names, force=force)
    base, facts = resolve_target(pair), Facts.of(home)
    tokenizer = load_tokenizer(base.folder)
    sidecars = published_sidecars(pair, tokenizer)
    tokenizers = published_tokenizers(sidecars[0], lambda: load_tokenizer(base.folder))
    with staged(out, names) as staging:
        av, ar = (staging / name for name in names)
        prefill = _write_av(pair, base, home, av, DTYPES[dtype], tokenizers[0])
        check_av(av, sidecars[0], pair.av, tokenizer)
        _write_ar(pair, base, ar, DTYPES[dtype], tokenizers[1])
        check_ar(ar, sidecars[1], pair.ar, tokenizer)
        for folder, sidecar in zip((av, ar), sidecars, strict=True):
            text = dump_sidecar(replace(sidecar, path=""))
            (folder / FILE_NAME).write_text(text, encoding="utf-8")
            card = write_card(pair, sidecar.role, pair.pair_id, facts, dtype=dtype, prefill=prefill)
            (folder / CARD_FILE).write_text(card, encoding="utf-8")
            shutil.copyfile(home / REFERENCE_FILE, folder / REFERENCE_FILE)
        if (home / EVAL_FILE).is_file():
            shutil.copyfile(home / EVAL_FILE, av / EVAL_FILE)
        if (home / FOLDER).is_dir():
            shutil.copytree(home / FOLDER, av / FOLDER)
    folders: dict[Role, Path] = {"av": out / names[0], "ar": out / names[1]}
    files = [f for folder in folders.values() for f in folder.rglob("*") if f.is_file()]
    return Exported(folders, sum(f.stat().st_size for f in files), prefill)


def _write_av(
    pair: Pair, base: Resolved, home: Path, folder: Path, dtype: torch.dtype, tokenizer: Any
) -> float | None:
    model = load_half(pair.av_dir, base.folder, dtype=dtype, device=torch.device("cpu"))
    check_space(folder.parent, 2 * bytes_needed(model))  # the AR is smaller than the AV
    slot = build_slot(pair.av, load_tokenizer(base.folder))
    share = None
    if slot.prefill_ids:
        share = writes_prefill(model, pair.av, slot, _vectors(pair, home))
    if parts_of(model).family.text_config:
        model = text_only(model, head=True)
    save_model(model, tokenizer, folder)
    save_tokenizer(tokenizer, folder)
    return share


def _write_ar(pair: Pair, base: Resolved, folder: Path, dtype: torch.dtype, tokenizer: Any) -> None:
    model = load_half(
        pair.ar_dir, base.folder, dtype=dtype, device=torch.device("cpu"), n_layers=pair.layer + 1
    )
    save_model(text_only(model, head=False), tokenizer, folder)
    save_tokenizer(tokenizer, folder)
    save_head(pair.ar_dir, folder, pair.d_model)


@torch.inference_mode()
def writes_prefill(model: Any, sidecar: Sidecar, slot: Slot, vectors: Tensor) -> float:
    """Share of ``[n, d_model]`` vectors after which the AV, greedily, begins with ``av_prefill``.

    Other readers do not begin the answer for it; where this is 1 they get the same texts.
    """
    parts = parts_of(model)
    before = parts.embed(torch.tensor([slot.prefix_ids])).expand(len(vectors), -1, -1)
    after = parts.embed(torch.tensor([[*slot.suffix_ids, *slot.prefill_ids]]))
    rows = scale_for_injection(vectors, sidecar.injection_scale)[:, None].to(parts.dtype)
    inputs = torch.cat([before, rows, after.expand(len(vectors), -1, -1)], dim=1)
    states = parts.decoder(inputs_embeds=inputs, use_cache=False).last_hidden_state
    n = len(slot.prefill_ids)
    picked = parts.logits(states[:, -n - 1 : -1].reshape(-1, states.shape[-1])).argmax(-1)
    same = picked.view(len(vectors), n) == torch.tensor(slot.prefill_ids)
    return float(same.all(1).float().mean())


def _vectors(pair: Pair, home: Path) -> Tensor:
    """Some vectors of the pair's test set; without one, the mean direction of its reference."""
    if (home / FOLDER).is_dir():
        return TestSet.load(home / FOLDER).hidden[:PREFILL_VECTORS]
    return pair.reference.mean[None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nla", type=Path, required=True, metavar="DIR", help="the pair's folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--format", choices=["reference"], default="reference", help="the layout")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="of the weights")
    parser.add_argument("--target", help="the target model, in place of what the sidecar names")
    parser.add_argument("--force", action="store_true", help="replace an earlier export whole")
    parser.add_argument("--push", metavar="USER/NAME", help="upload as USER/NAME-av and -ar")
    parser.add_argument("--private", action="store_true", help="new repositories are private")


def main(args: argparse.Namespace) -> int:
    """Write both folders, then upload them if asked to; a failed upload leaves them there."""
    pair, home = find_pair(args.nla, target=args.target), pair_home(args.nla)
    if args.push:
        hub.check_name(args.push)
        hub.check_target(pair)
    done = export(pair, home, args.out, dtype=args.dtype, force=args.force)
    for folder in done.folders.values():
        print(f"wrote {folder}")
    print(f"{done.size / 1e6:.0f} MB in {args.dtype}; load with --nla {done.folders['av']}")
    if done.prefill is not None and done.prefill < 1:
        print(
            f"Note: this AV begins with {pair.av.av_prefill!r} by itself for {done.prefill:.0%} of "
            "the vectors tried; readers that do not begin its answer get other texts."
        )
    urls = hub.push(done.folders, args.push, private=args.private) if args.push else {}
    for url in urls.values():
        print(f"uploaded {url}")
    write_result(
        args,
        {
            "folders": {role: str(folder) for role, folder in done.folders.items()},
            "bytes": done.size,
            "dtype": args.dtype,
            "revision": pair.revision,
            "writes_prefill": done.prefill,
            "urls": urls,
        },
    )
    return EXIT_OK
