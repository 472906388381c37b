"""Examples on disk: a folder of numbered parts, each whole or absent.

Knows the layout ``SPLIT/part-00000.{parquet,safetensors,json}`` and that the JSON, written last,
is the receipt. Does not know what the rows mean. The decision a reader would question: the parts
stay; joining them at the end would need everything in memory twice and gain nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nla_core.data.files import building, explained, fsync_path, write_json
from nla_core.data.manifest import FileEntry
from nla_core.errors import NLAError

ROWS, VECTORS, RECEIPT = ".parquet", ".safetensors", ".json"


def write_part(
    folder: Path, index: int, rows: pd.DataFrame, hidden: Tensor, key: Mapping[str, Any]
) -> None:
    """Write one part; ``key`` is what it was made from. It counts once its receipt is there."""
    name = _name(index)
    with explained(folder), building(folder) as scratch:
        rows.to_parquet(scratch / (name + ROWS), index=False)
        save_file({"hidden": hidden.contiguous()}, scratch / (name + VECTORS))
        files = {}
        for ending in (ROWS, VECTORS):
            files[name + ending] = asdict(FileEntry.of(scratch / (name + ending)))
            fsync_path(scratch / (name + ending))
            (scratch / (name + ending)).replace(folder / (name + ending))
        fsync_path(folder)
        receipt = {"key": dict(key), "rows": len(rows), "dtype": str(hidden.dtype), "files": files}
        write_json(folder / (name + RECEIPT), receipt)


def part_is_done(folder: Path, index: int, key: Mapping[str, Any]) -> bool:
    """True if the part was made from ``key`` and its files are what its receipt says."""
    receipt = _receipt(folder / (_name(index) + RECEIPT))
    return receipt is not None and receipt["key"] == dict(key) and not _damaged(folder, receipt)


def drop_parts_from(folder: Path, count: int) -> None:
    """Remove parts that an earlier, longer run left behind."""
    for path in folder.glob("part-*"):
        if path.suffix in (ROWS, VECTORS, RECEIPT) and path.stem >= _name(count):
            path.unlink()


def replace_parts(folder: Path, rows: pd.DataFrame, hidden: Tensor) -> None:
    """Make the folder hold these examples and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    write_part(folder, 0, rows, hidden, {})


def read_parts(folder: Path) -> tuple[pd.DataFrame, Tensor]:
    """Rows and ``[n, d_model]`` vectors of all parts, in order.

    Raises NLAError if there is none, one in between is missing, or a file is not what was written.
    """
    stems = _whole_parts(folder)
    return _rows(stems), torch.cat(
        [load_file(stem.with_suffix(VECTORS))["hidden"] for stem in stems]
    )


def read_rows(folder: Path) -> pd.DataFrame:
    """The rows of all parts, without their vectors. Raises NLAError as ``read_parts`` does."""
    return _rows(_whole_parts(folder))


def _rows(stems: list[Path]) -> pd.DataFrame:
    frames = [pd.read_parquet(stem.with_suffix(ROWS)) for stem in stems]
    # A part without rows has no column types and would take them from the others.
    return pd.concat([f for f in frames if len(f)] or frames[:1], ignore_index=True)


def _whole_parts(folder: Path) -> list[Path]:
    receipts = sorted(folder.glob(f"part-*{RECEIPT}"))
    if not receipts:
        raise NLAError(
            f"No training examples at {folder}",
            why="It holds no finished part",
            fix="Run `python -m precompute train data` first",
        )
    for index, path in enumerate(receipts):
        receipt = _receipt(path)
        if receipt is None or path.stem != _name(index):
            damaged = [path.name if receipt is None else _name(index) + RECEIPT]
        else:
            damaged = _damaged(folder, receipt)
        if damaged:
            raise NLAError(
                f"The training examples in {folder} are damaged",
                why=f"{damaged[0]} is missing or not what was written",
                fix="Run the same `python -m precompute train data` again; it mends this part",
            )
    return receipts


def _receipt(path: Path) -> dict[str, Any] | None:
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
        return receipt if {"key", "rows", "files"} <= receipt.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _damaged(folder: Path, receipt: Mapping[str, Any]) -> list[str]:
    found = []
    for name, entry in receipt["files"].items():
        try:
            if asdict(FileEntry.of(folder / name)) != entry:
                found.append(name)
        except OSError:
            found.append(name)
    return found


def _name(index: int) -> str:
    return f"part-{index:05d}"
