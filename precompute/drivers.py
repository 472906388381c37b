"""Who drives a run into an output folder, and whether a second driver may join.

Knows locks under ``OUT/.work`` and what is told of who holds them. Does not know what a run does.
The decision a reader would question: any number of drivers would be harmless, since shards are;
but two that do not know of each other compute everything twice, so a second one is refused unless
both were started as ranks of one world. The kernel lets go of a lock when its process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from nla_core.errors import NLAError
from nla_core.store.files import explained
from precompute.workspace import WORK


@contextlib.contextmanager
def driving(out: Path, rank: int = 0, world_size: int = 1) -> Iterator[None]:
    """Hold ``out`` alone, or together with the other ranks of a world of this size.

    Raises NLAError, naming who is there, where another driver is.
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
        others = [told for told in _told(home) if told.get("world_size") != world_size]
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


def _told(home: Path) -> list[dict[str, Any]]:
    """What those say of themselves that hold a lock now; what the dead have left is passed over."""
    found = []
    for path in sorted(home.glob("driver-*.lock")):
        with contextlib.suppress(OSError, ValueError), path.open("r+", encoding="utf-8") as handle:
            if not _locked(handle, fcntl.LOCK_EX):
                found.append(json.loads(handle.read()))
    return found


def _refused(out: Path, home: Path) -> NLAError:
    held = [
        f"process {told['pid']} on {told['host']} (rank {told['rank']} of {told['world_size']}, "
        f"since {told['since']})"
        for told in _told(home)
    ]
    return NLAError(
        f"Another run writes to {out}",
        why=f"it is {', '.join(held) or 'only just beginning'}",
        fix="Wait for it or end it; to share the work, start all with --world-size W and a --rank "
        "of their own each",
    )
