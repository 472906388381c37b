"""``data.json``: what training data was made from, and whether it may be used here.

Knows the record's fields and how two of them are held against each other. Does not know how
examples are made. The decision a reader would question: a target is known by the hash of its
weights, not by its name; a folder and a hub id may well be the same model, and one name two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nla_core.data.files import explained, write_json
from nla_core.errors import NLAError
from nla_core.models.checkpoints import Resolved, sha256_of

RECORD = "data.json"
DATA_VERSION = 2
"""Raised when files of ``train data`` change so that older ones cannot be read."""


def target_sha256(base: Resolved) -> str:
    """Which weights a target has: the hash of its GGUF, else one over its config and weights."""
    if base.sha256:
        return base.sha256
    source = base.folder / "SOURCE_SHA256"  # a converted GGUF that was named by its folder
    if source.is_file():
        return source.read_text(encoding="utf-8").strip()
    digest = hashlib.sha256()
    for path in [base.folder / "config.json", *sorted(base.folder.glob("*.safetensors"))]:
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def begin(out: Path, config: Mapping[str, Any]) -> None:
    """Write an unfinished record, or go on with the one that is there.

    Raises NLAError if ``out`` holds data of another configuration.
    """
    config = {"schema_version": DATA_VERSION, **config}
    found = _read(out)
    if found is not None:
        _compare(out, found, config, fix="Use these settings, or another --out")
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / RECORD, {**config, "finished": False})


def finish(out: Path, config: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Replace the record by the finished one."""
    record = {"schema_version": DATA_VERSION, **config, "finished": True, **results}
    with explained(out):
        write_json(out / RECORD, record)


def require_data(folder: Path, base: Resolved, layer: int) -> dict[str, Any]:
    """The record of data that was made for this target and layer.

    Raises NLAError, with the field, what was found and what was expected, for any other.
    """
    found = _read(folder)
    if found is None:
        raise NLAError(
            f"No training data in {folder}",
            why=f"There is no {RECORD}",
            fix="Run `python -m precompute train data` first",
        )
    fix = "Make data for this model and layer, or name those it was made for (--target, --layer)"
    version = {"schema_version": DATA_VERSION}
    _compare(folder, found, version, fix="Run `python -m precompute train data` with a new --out")
    expected = {"target": {"sha256": target_sha256(base)}, "layer": layer}
    names = f" (data: {found.get('target', {}).get('spec')}; asked for: {base.spec})"
    _compare(folder, found, expected, fix=fix, note=names)
    _compare(
        folder,
        found,
        {"finished": True},
        fix="Run the same `python -m precompute train data` again; it goes on where it stopped",
    )
    return found


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("it does not hold an object")
        return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise NLAError(
            f"{path} cannot be read",
            why=str(error),
            fix="Delete the folder and run `python -m precompute train data` again",
        ) from None


def _compare(
    folder: Path, found: Mapping[str, Any], expected: Mapping[str, Any], *, fix: str, note: str = ""
) -> None:
    there = dict(_flat(found))
    for name, value in _flat(expected):
        if there.get(name) != value:
            raise NLAError(
                f"{folder} holds other training data",
                why=f"{RECORD}, field '{name}': found {json.dumps(there.get(name))}, expected "
                f"{json.dumps(value)}" + (note if name.startswith("target") else ""),
                fix=fix,
            )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _flat(entry, f"{prefix}{name}.")
        else:
            yield prefix + name, entry
