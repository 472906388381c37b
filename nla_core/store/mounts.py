"""Which datasets this installation can open, by the name that links and the JSON interface use.

Knows where datasets lie. Does not open them. The decision a reader would question: finished runs
are found by looking, at every call, because a run that was published a second ago is one to open.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from nla_core.errors import NLAError
from nla_core.paths import PROJECT, home
from nla_core.store.manifest import CURRENT

DATA_VARIABLE: Final = "NLA_DATA"
"""Folders of datasets, parted as in PATH; the first one is what a link without a dataset means."""

RUNS_VARIABLE: Final = "NLA_RUNS"
"""Folder of on-demand runs: one dataset each."""


def runs_home() -> Path:
    """Where on-demand runs are kept and published."""
    named = os.environ.get(RUNS_VARIABLE)
    return Path(named) if named else home() / "runs"


def mounted() -> dict[str, Path]:
    """Roots by name, the default one first, then other corpora, then runs with the newest first.

    Whether they can be opened is not looked at.
    """
    named = os.environ.get(DATA_VARIABLE) or ""
    roots = [Path(part) for part in named.split(os.pathsep) if part] or [PROJECT / "data/demo"]
    runs = sorted(runs_home().glob(f"*/{CURRENT}"), key=_published, reverse=True)
    found: dict[str, Path] = {}
    for root in (*roots, *(path.parent for path in runs)):
        found.setdefault(root.name, root)
    return found


def is_run(root: Path) -> bool:
    """Whether that dataset came of an on-demand run."""
    return root.parent == runs_home()


def _published(pointer: Path) -> float:
    try:
        return pointer.stat().st_mtime
    except OSError:  # deleted in between
        return 0.0


def root_of(name: str | None) -> Path:
    """The root of that dataset, of the default one for None. Raises NLAError for another name."""
    known = mounted()
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        raise NLAError(
            f"There is no dataset “{name[:60]}” here",
            why=f"this server has {', '.join(known)}",
            fix="Ask whoever made the link which server it was made on, or leave the dataset out",
        )
    return known[name]
