"""What imports made is left out of the collections that Streamlit runs after every act."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from nla_core.ui import collector


@pytest.fixture(autouse=True)
def thawed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    frozen = gc.get_freeze_count()
    monkeypatch.setattr(collector, "_modules_when_frozen", 0)
    yield
    if not frozen:
        gc.unfreeze()


def test_a_wave_of_imports_is_frozen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    collector.settle()
    frozen = gc.get_freeze_count()
    assert frozen > 1_000
    kept = [[i] for i in range(5_000)]
    collector.settle()
    assert gc.get_freeze_count() <= frozen, "nothing was imported, so nothing more is kept"
    for i in range(collector.A_WAVE):
        monkeypatch.setitem(sys.modules, f"imported_{i}", ModuleType(f"imported_{i}"))
    collector.settle()
    assert gc.get_freeze_count() >= frozen + len(kept)


def test_garbage_made_later_is_still_collected() -> None:
    class Node:
        other: Node

    collector.settle()
    a, b = Node(), Node()
    a.other, b.other = b, a
    del a, b
    assert gc.collect() >= 2
