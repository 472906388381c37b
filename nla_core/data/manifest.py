"""The manifest of a published version: what it was made from, and the hash of each of its files.

Knows the layout of a version directory, the form of ``manifest.json``, and how a version's name
follows from its content. Does not know what the tables mean. The decision a reader would question:
no time stamps, and the git commit stays out of the name; publishing the same rows again, on another
day and from another checkout, has to give the same version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nla_core.errors import NLAError
from nla_core.schema import SCHEMA_VERSION, TABLES
from nla_core.data.files import sha256_file, sha256_json

CURRENT = "CURRENT"
MANIFEST = "manifest.json"
# The number rises whenever something else is derived; files of another number are never opened.
DATABASE = "explorer-2.duckdb"
VECTORS = "vectors/explanations.f16.npy"
VECTOR_SHARD = "vectors/explanations-{:05d}.f16.npy"  # instead, where they are more than one shard
PARQUET = {name: f"parquet/{name}.parquet" for name in TABLES}
VERSION_FORM = re.compile(r"v-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        return cls(sha256=sha256_file(path), bytes=path.stat().st_size)


@dataclass(frozen=True, slots=True)
class Manifest:
    """``pair`` says which NLA wrote the readings (pair_id, revision, layer, d_model, target,
    rawvar, injection_scale, ...), ``corpus`` which prompts went in, ``settings`` how they were
    run, ``counts`` the rows of each table, ``files`` every shipped file by relative path."""

    pair: Mapping[str, Any]
    corpus: Mapping[str, Any]
    settings: Mapping[str, Any]
    counts: Mapping[str, int]
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    git_commit: str | None = None

    @property
    def version(self) -> str:
        """``v-`` and 12 hex digits of the hash of everything but the git commit."""
        content = asdict(self)
        del content["git_commit"]
        return "v-" + sha256_json(content)[:12]

    def to_json(self) -> dict[str, Any]:
        return {"version": self.version, **asdict(self)}


def read_manifest(directory: Path) -> Manifest:
    """The manifest of one version directory.

    Raises NLAError where the file is missing, is no JSON, lacks a field, was written under a newer
    schema, or does not have the content that its directory is named after.
    """
    path = directory / MANIFEST
    rebuild = "Restore it from where it came (git checkout), or publish the dataset again"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data["schema_version"]
        if found > SCHEMA_VERSION:
            raise NLAError(
                f"The dataset {directory} is newer than this program",
                why=f"it has schema version {found}, and this program reads up to {SCHEMA_VERSION}",
                fix="Update NLA Explorer (git pull && make app)",
            )
        manifest = Manifest(
            pair=data["pair"],
            corpus=data["corpus"],
            settings=data["settings"],
            counts=data["counts"],
            files={name: FileEntry(**entry) for name, entry in data["files"].items()},
            schema_version=found,
            git_commit=data["git_commit"],
        )
    except OSError as error:
        raise NLAError(
            f"The dataset version {directory} has no readable manifest",
            why=f"{path.name} cannot be read ({error.strerror})",
            fix=rebuild,
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NLAError(
            f"The manifest {path} is damaged", why=f"reading it gave: {error!r}", fix=rebuild
        ) from error
    if manifest.version != directory.name:
        raise NLAError(
            f"The manifest {path} is not the one this version was published with",
            why=f"its content hashes to {manifest.version}, the directory is {directory.name}",
            fix=rebuild,
        )
    return manifest


def file_problems(directory: Path, manifest: Manifest, *, hashes: bool) -> list[str]:
    """One sentence for each listed file that is missing, has another size, or another hash."""
    problems = []
    for name, entry in sorted(manifest.files.items()):
        path = directory / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif (size := path.stat().st_size) != entry.bytes:
            problems.append(f"{name} has {size} bytes, the manifest says {entry.bytes}")
        elif hashes and (found := sha256_file(path)) != entry.sha256:
            problems.append(
                f"{name} has sha256 {found[:12]}…, the manifest says {entry.sha256[:12]}…"
            )
    expected = {*PARQUET.values()}
    if VECTOR_SHARD.format(0) not in manifest.files:
        expected.add(VECTORS)
    problems += [f"the manifest lists no {name}" for name in sorted(expected - {*manifest.files})]
    return problems


def current_version(root: Path) -> str:
    """The version that ``root/CURRENT`` names. Raises NLAError if there is none to read."""
    try:
        version = (root / CURRENT).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NLAError(
            f"There is no dataset at {root}",
            why=f"its file {CURRENT} cannot be read ({error})",
            fix="Point to a directory made by `python -m precompute run`, or run `make app`, "
            "which sets up the demo dataset",
        ) from error
    return checked_version(
        version,
        f"The file {root / CURRENT}",
        fix="Write the name of one of the v-* directories beside it into it",
    )


def checked_version(version: str, where: str, *, fix: str) -> str:
    """``version``, as it stands in ``where``. NLAError where it has not the form of one."""
    if not VERSION_FORM.fullmatch(version):
        raise NLAError(
            f"{where} is damaged",
            why=f"it should hold a version such as v-0123456789ab, and holds {version[:40]!r}",
            fix=fix,
        )
    return version
