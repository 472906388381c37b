"""Who drives a run into a store, across machines: an object that its holder renews.

Knows the lease objects under ``.work`` of a store and when one counts. Does not know what a run
does. The decision a reader would question: this is a lease and no lock. Only some stores can write
"if it is not there" in one step (S3 can), none takes a lock from a dead process, and ages
are told by two machines' clocks. So it keeps people from computing everything twice, and nothing
is lost where it fails: shards are harmless when done twice, and a version's name is its content.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from nla_core.data.transfer import Store
from nla_core.errors import NLAError
from precompute.workspace import WORK

RENEW_SECONDS: Final = 60.0
STALE_SECONDS: Final = 600.0
"""A lease that was not renewed for this long is one of the dead. Clocks may differ by less."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lease says. ``machine`` is empty where processes cannot be told apart for certain."""

    host: str
    pid: int
    machine: str
    rank: int
    world_size: int
    since: float
    renewed: float
    token: str

    @property
    def dead(self) -> bool:
        """Not renewed for too long, or a process of this machine that is gone."""
        if time.time() - self.renewed > STALE_SECONDS:
            return True
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def __str__(self) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.renewed))
        return (
            f"process {self.pid} on {self.host} (rank {self.rank} of {self.world_size}, "
            f"last heard of at {at})"
        )


@contextlib.contextmanager
def leasing(
    store: Store, rank: int = 0, world_size: int = 1, *, take_over: bool = False
) -> Iterator[Callable[[], None]]:
    """Hold ``store`` alone, or together with the other ranks of a world of this size.

    Yields a check that raises NLAError once another run has taken the lease. ``take_over`` takes
    it from whoever holds it now. Raises NLAError, naming who is there, where it cannot be had.
    """
    now = time.time()
    mine = Holder(
        socket.gethostname(), os.getpid(), _machine(), rank, world_size, now, now,
        secrets.token_hex(8),
    )  # fmt: skip
    name = f"{WORK}/driver-{rank}-of-{world_size}.json"
    _make_way(store, name, mine, take_over=take_over)
    if not store.create(name, _content(mine)) and _read(store, name) != mine:
        raise _refused(store, [_read(store, name)])
    # Two of different worlds have different names: both look again, and both may step back.
    if others := _others(store, name, mine):
        store.delete(name)
        raise _refused(store, others)
    keeper = _Keeper(store, name, mine)
    keeper.start()
    try:
        yield keeper.check
    finally:
        keeper.stop()


class _Keeper(threading.Thread):
    """Renews a lease until it is stopped or finds another's name in it.

    A store that cannot be reached is no reason to stop: the run ends by itself when it has a shard
    to push.
    """

    def __init__(self, store: Store, name: str, mine: Holder) -> None:
        super().__init__(name="lease", daemon=True)
        self._store, self._name, self._mine = store, name, mine
        self._ended = threading.Event()
        self._lost: Holder | None = None

    def run(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with contextlib.suppress(NLAError):
                self._renew()

    def check(self) -> None:
        if self._lost is not None:
            raise NLAError(
                f"Another run has taken over {self._store.url}",
                why=f"it is {self._lost}",
                fix="What was finished is kept. Let the other one go on, or end it and run the "
                "same command again",
            )

    def stop(self) -> None:
        self._ended.set()
        self.join()
        with contextlib.suppress(NLAError):  # it then goes stale by itself
            found = _read(self._store, self._name)
            if found is not None and found.token == self._mine.token:
                self._store.delete(self._name)

    def _renew(self) -> None:
        found = _read(self._store, self._name)
        if found is None:  # removed by one who took over under another name, or by hand
            found = next(iter(_others(self._store, self._name, self._mine)), None)
        if found is not None and found.token != self._mine.token:
            self._lost = found
            self._ended.set()
            return
        renewed = Holder(**{**asdict(self._mine), "renewed": time.time()})
        self._store.write(self._name, _content(renewed))


def _make_way(store: Store, name: str, mine: Holder, *, take_over: bool) -> None:
    """Remove leases that do not count. Raises NLAError where one does."""
    in_the_way = []
    for other in _leases(store):
        holder = _read(store, other)
        if holder is None or holder.dead:
            store.delete(other)
        elif _excludes(holder, other, name, mine):
            if take_over:
                store.delete(other)
            else:
                in_the_way.append(holder)
    if in_the_way:
        raise _refused(store, in_the_way)


def _others(store: Store, name: str, mine: Holder) -> list[Holder]:
    """Those alive that may not be here together with ``mine``."""
    held = [(other, _read(store, other)) for other in _leases(store)]
    return [
        holder
        for other, holder in held
        if holder is not None
        and holder.token != mine.token
        and not holder.dead
        and _excludes(holder, other, name, mine)
    ]


def _excludes(holder: Holder, its_name: str, name: str, mine: Holder) -> bool:
    """Whether two may not drive at once: of different worlds, or one rank twice."""
    return holder.world_size != mine.world_size or its_name == name


def _leases(store: Store) -> list[str]:
    return sorted(
        name
        for name in store.names(WORK)
        if name.startswith(f"{WORK}/driver-") and name.count("/") == 1
    )


def _read(store: Store, name: str) -> Holder | None:
    """Who holds a lease; None if nobody does, or nobody can tell."""
    content = store.read(name)
    try:
        return None if content is None else Holder(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _content(holder: Holder) -> bytes:
    return (json.dumps(asdict(holder), indent=2) + "\n").encode()


def _machine() -> str:
    """One name for all processes that see each other's ids, until the machine starts again."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _refused(store: Store, holders: list[Holder | None] | list[Holder]) -> NLAError:
    named = ", ".join(str(holder) for holder in holders if holder is not None)
    return NLAError(
        f"Another run writes to {store.url}",
        why=f"it is {named or 'only just beginning'}",
        fix="Wait for it or end it; to share the work, start all with --world-size W and a --rank "
        f"of their own each. One that has died is passed over after {STALE_SECONDS / 60:.0f} "
        "minutes; if you know that it has, add --take-over",
    )
