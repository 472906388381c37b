"""A workspace whose shards also lie in a store: pushed when they are sealed, pulled when missing.

Knows the order in which a shard's objects are written and read, and what is checked on arrival.
Does not know fsspec, nor how a shard is computed. The decision a reader would question: work is
done in a local folder all the same. A store renames no folders and locks no files, and DuckDB
reads no URLs; so the folder stays the one place where things become whole, and the store is a
copy of it that another machine can begin from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from nla_core.data.files import building, explained, write_json
from nla_core.data.manifest import FileEntry
from nla_core.data.transfer import Store
from nla_core.errors import NLAError
from nla_core.schema import TABLES
from precompute.plan import Plan
from precompute.workspace import CONFIG, RECEIPT, WORK, Receipt, Workspace, parse_receipt

Say = Callable[[str], None]
_FOLDER: Final = re.compile(r"[0-9a-f]{12}")
_CONFIG_HASH: Final = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Mirror(Workspace):
    """A `Workspace` in a local folder and its copy at ``store``; both have the same layout.

    Workers hold one each, so each pushes what it has finished, from wherever it runs.
    """

    store: Store

    @classmethod
    def of(cls, workspace: Workspace, store: Store) -> Mirror:
        mirror = cls(workspace.path, workspace.config, store)
        if store.read(mirror._name(CONFIG)) is None:
            store.put(workspace.path / CONFIG, mirror._name(CONFIG))
        return mirror

    def receipts(self) -> dict[str, Receipt | None]:
        """Of all shards, after both sides have been given what only the other one had.

        Raises NLAError where an object is not what its receipt says.
        """
        there = self.store.names(f"{WORK}/{self.config_hash}")
        found: dict[str, Receipt | None] = {}
        for shard in self.shards:
            receipt = Workspace.receipt(self, shard)
            listed = self._name(shard, RECEIPT) in there
            if receipt is not None and not listed:
                self._push(shard, receipt)
            elif receipt is None and listed:
                receipt = self._pull(shard)
            found[shard] = receipt
        return found

    def receipt(self, shard: str) -> Receipt | None:
        """The local receipt, else that of the store with its rows."""
        return Workspace.receipt(self, shard) or self._pull(shard)

    def commit(self, shard: str, tables: Mapping[str, pa.Table], n_errors: int) -> Receipt:
        """As `Workspace.commit`, then a copy in the store. Its local half is kept if that fails."""
        receipt = Workspace.commit(self, shard, tables, n_errors)
        self._push(shard, receipt)
        return receipt

    def _push(self, shard: str, receipt: Receipt) -> None:
        """Rows, then the receipt that says which of them count."""
        folder = self.path / shard / receipt.folder
        for name in sorted(receipt.files):
            self.store.put(folder / name, self._name(shard, receipt.folder, name))
        self.store.put(self.path / shard / RECEIPT, self._name(shard, RECEIPT))

    def _pull(self, shard: str) -> Receipt | None:
        """A shard's rows and receipt, checked; None if the store has no receipt of it."""
        content = self.store.read(self._name(shard, RECEIPT))
        if content is None:
            return None
        try:
            receipt = parse_receipt(content.decode("utf-8"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._damaged(shard, f"its receipt cannot be read ({error!r})") from error
        if (
            (receipt.config_hash, receipt.shard) != (self.config_hash, shard)
            or not _FOLDER.fullmatch(receipt.folder)
            or receipt.files.keys() != {f"{table}.parquet" for table in TABLES}
        ):
            raise self._damaged(shard, "its receipt is that of something else")
        home = self.path / shard
        with explained(home), building(home) as temporary:
            for name, entry in receipt.files.items():
                there = self.store.get(self._name(shard, receipt.folder, name), temporary / name)
                if not there or FileEntry.of(temporary / name) != entry:
                    what = "is missing" if not there else "is not what its receipt says"
                    raise self._damaged(shard, f"{receipt.folder}/{name} {what}")
            self._place(temporary, home / receipt.folder, receipt.files)
            write_json(home / RECEIPT, json.loads(content))
        return receipt

    def _name(self, *parts: str) -> str:
        return "/".join((WORK, self.config_hash, *parts))

    def _damaged(self, shard: str, why: str) -> NLAError:
        where = f"{self.store.url.rstrip('/')}/{self._name(shard)}"
        return NLAError(
            f"{where} is damaged",
            why=why,
            fix="Delete that folder of the store and run again: the shard is computed anew. If you "
            "did not change it, find out who or what did first",
        )


def open_workspace(out: Path, plan: Plan, store: Store | None) -> Workspace:
    """The workspace of ``plan`` under ``out``, with a copy in ``store`` if there is one."""
    workspace = Workspace.create(out, plan)
    return workspace if store is None else Mirror.of(workspace, store)


def find_workspace(out: Path, config_hash: str | None, store: Store | None) -> Workspace:
    """As `Workspace.find`; what runs the store has is asked of the store."""
    if store is None:
        return Workspace.find(out, config_hash)
    names = store.names(WORK)
    if not names and not any((out / WORK).glob(f"*/{CONFIG}")):
        raise NLAError(
            f"There is no run in {store.url}",
            why=f"it holds nothing under {WORK}/, where `run` writes finished shards",
            fix="Check the URL, or start a run there: `python -m precompute run --out URL`",
        )
    for name in names:
        parts = name.split("/")
        if len(parts) == 3 and parts[2] == CONFIG and _CONFIG_HASH.fullmatch(parts[1]):
            local = out / WORK / parts[1] / CONFIG
            content = None if local.exists() else store.read(name)
            if content is not None:
                try:
                    config = json.loads(content)
                except ValueError as error:
                    raise NLAError(
                        f"{name} in {store.url} is damaged",
                        why=f"it is no JSON ({error})",
                        fix="Delete it and start the run again; it writes a new one",
                    ) from error
                with explained(local):
                    local.parent.mkdir(parents=True, exist_ok=True)
                    write_json(local, config)
    return Mirror.of(Workspace.find(out, config_hash), store)
