"""The working folder of a run: which shards are finished, and who may work in it.

The layout is ``OUT/.work/<config hash>/shard-00001/{receipt.json, <content hash>/*.parquet}``. The
rows lie in a folder named after their content, so two workers on one shard never overwrite each
other; the receipt, replaced atomically, says which folder counts. Any number of drivers would
therefore be harmless, but two that do not know of each other compute everything twice, so a second
one is refused unless both were started as ranks of one world.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nla_core.data.files import (
    building,
    explained,
    rename_into_place,
    sha256_json,
    write_atomic,
    write_json,
)
from nla_core.data.manifest import FileEntry
from nla_core.errors import NLAError
from nla_core.schema import SCHEMA_VERSION, TABLES, Section
from precompute.plan import Plan

WORK = ".work"
CONFIG = "config.json"
RECEIPT = "receipt.json"


@dataclass(frozen=True, slots=True)
class Receipt:
    """One finished shard: rows of each table, failed prompts, and the hash of each file."""

    config_hash: str
    shard: str
    folder: str
    counts: Mapping[str, int]
    n_errors: int
    files: Mapping[str, FileEntry]


def parse_receipt(text: str) -> Receipt:
    """A receipt from its JSON. Raises ValueError, TypeError, KeyError or AttributeError."""
    data = json.loads(text)
    files = {name: FileEntry(**entry) for name, entry in data.pop("files").items()}
    return Receipt(**data, files=files)


@dataclass(frozen=True, slots=True)
class Workspace:
    """The finished and unfinished shards of one configuration."""

    path: Path
    config: Mapping[str, Any]

    @classmethod
    def create(cls, out: Path, plan: Plan) -> Workspace:
        """The workspace of ``plan`` under ``out``, made if it is not there yet."""
        path = out / WORK / plan.config_hash
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
            write_atomic(out / WORK / ".gitignore", "*\n")
            write_json(path / CONFIG, plan.config())
        return cls(path, plan.config())

    @classmethod
    def find(cls, out: Path, config_hash: str | None) -> Workspace:
        """An existing workspace; without a hash, the only one. NLAError if that is not clear."""
        known = sorted(path.parent.name for path in (out / WORK).glob(f"*/{CONFIG}"))
        if config_hash is None and len(known) == 1:
            config_hash = known[0]
        if config_hash not in known:
            what = f"{out} has no run {config_hash}" if config_hash else "It is not clear which run"
            raise NLAError(
                what,
                why=f"the runs under {out / WORK} are: {', '.join(known) or 'none'}",
                fix="Name one of them with --config, or start one with `python -m precompute run`",
            )
        path = out / WORK / config_hash
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        if sha256_json(config)[:12] != config_hash or config["schema_version"] > SCHEMA_VERSION:
            raise NLAError(
                f"{path / CONFIG} was changed or is newer than this program",
                why="its content does not hash to the name of its folder",
                fix=f"Delete {path} and run again",
            )
        return cls(path, config)

    @property
    def config_hash(self) -> str:
        return self.path.name

    @property
    def shards(self) -> list[str]:
        return [f"shard-{index:05d}" for index in range(1, len(self.config["shards"]) + 1)]

    def receipt(self, shard: str) -> Receipt | None:
        """The receipt of a finished shard; None if it is not, or its files are not what it says."""
        try:
            receipt = parse_receipt((self.path / shard / RECEIPT).read_text(encoding="utf-8"))
            whole = receipt.config_hash == self.config_hash and all(
                FileEntry.of(self.path / shard / receipt.folder / name) == entry
                for name, entry in receipt.files.items()
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return receipt if whole and receipt.files.keys() == {_file(t) for t in TABLES} else None

    def receipts(self) -> dict[str, Receipt | None]:
        """What ``receipt`` says of every shard."""
        return {shard: self.receipt(shard) for shard in self.shards}

    def commit(self, shard: str, tables: Mapping[str, pa.Table], n_errors: int) -> Receipt:
        """Write a shard's rows, then its receipt. Harmless if another worker does the same."""
        home = self.path / shard
        with explained(home), building(home) as temporary:
            for name, schema in TABLES.items():
                pq.write_table(
                    tables[name].cast(schema), temporary / _file(name), compression="zstd"
                )
            files = {_file(name): FileEntry.of(temporary / _file(name)) for name in TABLES}
            receipt = Receipt(
                config_hash=self.config_hash,
                shard=shard,
                folder=sha256_json({name: entry.sha256 for name, entry in files.items()})[:12],
                counts={name: tables[name].num_rows for name in TABLES},
                n_errors=n_errors,
                files=files,
            )
            self._place(temporary, home / receipt.folder, files)
            write_json(home / RECEIPT, asdict(receipt))
        return receipt

    def parts(self) -> dict[str, list[Path]]:
        """The Parquet files of each table. Raises NLAError if a shard is not finished."""
        receipts = self.receipts()
        missing = [shard for shard, receipt in receipts.items() if receipt is None]
        if missing:
            raise NLAError(
                f"{len(missing)} of {len(receipts)} shards are not finished",
                why=f"there is no valid receipt for {', '.join(missing[:5])}"
                + (" and others" if len(missing) > 5 else ""),
                fix="Run the same `python -m precompute run` command again; it does the rest",
            )
        return {
            name: [
                self.path / shard / receipt.folder / _file(name)
                for shard, receipt in receipts.items()
                if receipt is not None
            ]
            for name in TABLES
        }

    def n_unreadable(self) -> int:
        """Tokens of the text whose vector no AV can be given. Raises NLAError as `parts` does."""
        lost = (pc.field("norm") == 0) & (pc.field("section") == Section.CONTENT.value)
        return sum(pq.read_table(path, filters=lost).num_rows for path in self.parts()["tokens"])

    def _place(self, temporary: Path, final: Path, files: Mapping[str, FileEntry]) -> None:
        """Move rows to the folder of their content; mend it if it was damaged since."""
        if rename_into_place(temporary, final):
            return
        try:
            whole = all(FileEntry.of(final / name) == entry for name, entry in files.items())
        except OSError:
            whole = False
        if not whole:
            shutil.rmtree(final)
            rename_into_place(temporary, final)


def _file(table: str) -> str:
    return f"{table}.parquet"


@contextlib.contextmanager
def driving(out: Path, rank: int = 0, world_size: int = 1) -> Iterator[None]:
    """Hold ``out`` alone, or together with the other ranks of a world of this size.

    Raises NLAError naming the process that already works there.
    """
    home = out / WORK
    with explained(home):
        home.mkdir(parents=True, exist_ok=True)
    alone = world_size == 1
    with contextlib.ExitStack() as held:
        whole = held.enter_context(_opened(home / "driver.lock"))
        if not _locked(whole, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
            raise _refused(out, home)
        own = held.enter_context(_opened(home / f"driver-{rank}.lock"))
        others = [other for other in _holders(home) if other.get("world_size") != world_size]
        if not _locked(own, fcntl.LOCK_EX) or (not alone and others):
            raise _refused(out, home)
        own.truncate(0)
        own.seek(0)
        about = {
            "host": socket.gethostname(), "pid": os.getpid(), "rank": rank,
            "world_size": world_size, "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }  # fmt: skip
        json.dump(about, own)
        own.flush()
        try:
            yield
        finally:
            own.truncate(0)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    with explained(path), path.open("a+", encoding="utf-8") as handle:
        yield handle


def _locked(handle: IO[str], how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holders(home: Path) -> list[dict[str, Any]]:
    """What each holder of a lock wrote about itself; files left by dead processes are ignored."""
    found = []
    for path in sorted(home.glob("driver-*.lock")):
        with contextlib.suppress(OSError, ValueError), path.open("r+", encoding="utf-8") as handle:
            if not _locked(handle, fcntl.LOCK_EX):
                found.append(json.loads(handle.read()))
    return found


def _refused(out: Path, home: Path) -> NLAError:
    held = [
        f"process {one['pid']} on {one['host']} (rank {one['rank']} of {one['world_size']}, "
        f"since {one['since']})"
        for one in _holders(home)
    ]
    return NLAError(
        f"Another run writes to {out}",
        why=f"it is {', '.join(held) or 'only just beginning'}",
        fix="Wait for it or end it; to share the work, start all with --world-size W and a --rank "
        "of their own each",
    )
