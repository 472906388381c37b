"""Two drivers on one store: the second is refused, and the first learns when it was overruled."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time

import pytest

from nla_core.data.transfer import Store
from nla_core.errors import NLAError
from precompute import lease
from precompute.lease import STALE_SECONDS, Holder, leasing

ALONE = ".work/driver-0-of-1.json"


def held_by(store: Store, name: str = ALONE, **changes: object) -> Holder:
    """A lease of somebody on another machine, renewed just now."""
    now = time.time()
    holder = Holder("elsewhere", 4711, "another boot", 0, 1, now, now, "theirs")
    holder = dataclasses.replace(holder, **changes)  # type: ignore[arg-type]
    store.write(name, json.dumps(dataclasses.asdict(holder)).encode())
    return holder


def refused(store: Store, *told: str, rank: int = 0, world_size: int = 1) -> None:
    with (
        pytest.raises(NLAError, match="Another run writes") as error,
        leasing(store, rank, world_size),
    ):
        pass
    for text in told:
        assert text in error.value.why
    assert "--take-over" in error.value.fix


def test_a_second_driver_is_refused_and_told_of_the_first(store: Store) -> None:
    with leasing(store) as check:
        refused(store, f"process {os.getpid()} on {os.uname().nodename}", "rank 0 of 1")
        refused(store, "rank 0 of 1", rank=1, world_size=2)
        check()
    assert store.names(".work") == {}
    with leasing(store):
        pass


def test_ranks_of_one_world_share_a_store(store: Store) -> None:
    with leasing(store, 0, 2), leasing(store, 1, 2) as check:
        refused(store, "rank 1 of 2", rank=1, world_size=2)
        refused(store, "rank 0 of 2", rank=0, world_size=3)
        refused(store, "rank 0 of 2", "rank 1 of 2")
        check()


def test_a_lease_that_nobody_renews_is_passed_over(store: Store) -> None:
    held_by(store, renewed=time.time() - STALE_SECONDS + 60)
    refused(store, "process 4711 on elsewhere")
    held_by(store, renewed=time.time() - STALE_SECONDS - 1)
    with leasing(store):
        refused(store, f"process {os.getpid()}")


def test_a_process_of_this_machine_that_died_is_passed_over_at_once(store: Store) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    held_by(store, pid=gone.pid)
    refused(store, f"process {gone.pid} on elsewhere")  # another machine's processes are not seen
    held_by(store, pid=gone.pid, machine=lease._machine())
    with leasing(store):
        pass


def test_a_lease_that_cannot_be_read_holds_nobody_up(store: Store) -> None:
    store.write(ALONE, b"{")
    with leasing(store):
        refused(store, f"process {os.getpid()}")


@pytest.mark.parametrize("world_size", [1, 2])
def test_taking_over_ends_the_first(store: Store, world_size: int) -> None:
    with leasing(store) as check, leasing(store, 0, world_size, take_over=True) as theirs:
        check.__self__._renew()  # type: ignore[attr-defined]  # a minute later
        with pytest.raises(NLAError, match="has taken over") as error:
            check()
        assert f"rank 0 of {world_size}" in error.value.why
        theirs.__self__._renew()  # type: ignore[attr-defined]
        theirs()
    assert store.names(".work") == {}


def test_a_lease_is_renewed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    with leasing(store) as check:
        first = store.read(ALONE)
        deadline = time.monotonic() + 30
        while store.read(ALONE) in (first, None) and time.monotonic() < deadline:
            time.sleep(0.02)
        check()
        assert store.read(ALONE) != first
