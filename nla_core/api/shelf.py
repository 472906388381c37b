"""What a handler is given: the datasets of this server by name, and one checked question.

Knows that a name stands for a folder whose current version may change at any time. Does not know
how folders are found or what is asked of a dataset. The decision a reader would question: every
request looks up the current version anew; that is one small file, and a new version then needs no
restart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nla_core import opened
from nla_core.api.guard import NOBODY, Sent
from nla_core.api.wire import Refusal
from nla_core.errors import NLAError
from nla_core.exports import Provenance
from nla_core.store.dataset import Dataset
from nla_core.store.manifest import Manifest, current_version, read_manifest


@dataclass(frozen=True, slots=True)
class Shelf:
    """``roots()`` gives the folders by name, the default one first. Safe to share by threads."""

    roots: Callable[[], Mapping[str, Path]]

    def names(self) -> list[str]:
        return list(self.roots())

    def manifest(self, name: str) -> Manifest:
        """That of the current version, which is not opened for it. Raises NLAError."""
        root = self._root(name)
        return read_manifest(root / current_version(root))

    def dataset(self, name: str | None) -> Dataset:
        """The current version of that dataset, or of the default one.

        Raises Refusal where there is none of that name, NLAError where it cannot be opened.
        """
        root = self._root(name)
        return opened.dataset(root, current_version(root))

    def _root(self, name: str | None) -> Path:
        roots = self.roots()
        name = next(iter(roots)) if name is None else name
        if name not in roots:
            raise unknown("dataset", name, list(roots))
        return roots[name]


@dataclass(frozen=True)
class Asked:
    """One request: names from its path, and a value for every parameter of its route.

    ``sent`` says who asked and what the body holds, where the route may change something.
    """

    shelf: Shelf
    path: Mapping[str, str]
    query: Mapping[str, Any]
    sent: Sent = NOBODY

    @cached_property
    def dataset(self) -> Dataset:
        """The one that ``dataset=`` names, opened when it is first needed."""
        return self.shelf.dataset(self.query["dataset"])

    @property
    def source(self) -> Provenance:
        return Provenance.of(self.dataset)

    def values(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self.query[name] for name in names}


def unknown(what: str, asked: str, near: list[str]) -> Refusal:
    """The 404 for an id, with what it may have meant."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in asked[:40])
    return Refusal(
        404,
        NLAError(
            f"There is no {what} “{shown}”",
            why=f"no {what} here has that id",
            fix=f"Take an id from /api/v1/{what}s"
            + (f"; near are {', '.join(near)}" if near else ""),
        ),
    )
