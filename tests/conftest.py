"""The default tier: a test that claims no other is a unit test.

Knows the markers of pyproject.toml. Does not know what a tier needs; the conftest.py of its folder
does, and marks its tests.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate import Gate

# One thread a process, here and in the servers that tests start: two that spin on a machine with
# other work are many times slower, and sums of two threads round differently from those of one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read when Ray is first imported: it tells nobody of its use, listens on loopback only, and its
# clusters know the token of this session instead of the one in the user's home.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # else workers starve beside other work
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)

TIERS = {"unit", "app", "browser", "ray", "gpu"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # pytest asks the conftest files of the folders first, then this one, then applies `-m`.
    for item in items:
        if not TIERS & {mark.name for mark in item.iter_markers()}:
            item.add_marker("unit")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """An open gate; a test of a run that is going on closes it, see `tests.gate`."""
    made = Gate(tmp_path / "gate")
    yield made
    made.open()
