"""Values that are made once a process, and what happens when making one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from nla_core.opened import Kept

SECONDS = 30.0
THREADS = 4


class Making(dict[Any, Any]):
    """What is being made; ``all_wait`` is set when all other threads have found it there."""

    def __init__(self) -> None:
        super().__init__()
        self.n_found, self.all_wait = 0, threading.Event()

    def get(self, key: Any, default: Any = None) -> Any:
        found = super().get(key, default)
        self.n_found += found is not None  # called under a lock
        if self.n_found == THREADS - 1:
            self.all_wait.set()
        return found


def ask_together(kept: Kept[int], make: Callable[[], int]) -> list[object]:
    """What each of four threads gets that ask at once; ``make`` is called when all others wait."""
    kept._making = making = Making()
    got: list[object] = []

    def make_slowly() -> int:
        assert making.all_wait.wait(SECONDS)
        return make()

    def ask() -> None:
        try:
            got.append(kept.get("key", make_slowly))
        except BaseException as error:
            got.append(error)

    threads = [threading.Thread(target=ask) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    return got


def test_a_value_is_made_once_and_the_least_used_one_goes() -> None:
    kept, made = Kept[str](2), []

    def make(key: str) -> str:
        made.append(key)
        return key.upper()

    for key in "abacab":
        assert kept.get(key, lambda key=key: make(key)) == key.upper()  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]


def test_all_who_wait_get_the_one_value() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return len(made)

    assert ask_together(Kept(1), make) == [1] * THREADS


def test_a_failure_is_raised_to_all_who_wait_and_is_not_kept() -> None:
    kept, tried = Kept[int](1), []

    def fail() -> int:
        tried.append(1)
        raise ValueError("no")

    assert [str(error) for error in ask_together(kept, fail)] == ["no"] * THREADS
    assert len(tried) == 1
    assert kept.get("key", lambda: 7) == 7


def test_where_the_maker_is_stopped_another_makes_the_value() -> None:
    tried: list[int] = []

    def stop_once() -> int:
        tried.append(1)
        if len(tried) == 1:
            raise KeyboardInterrupt
        return 5

    got = ask_together(Kept(1), stop_once)
    assert sum(isinstance(one, KeyboardInterrupt) for one in got) == 1
    assert got.count(5) == THREADS - 1


def test_nested_values_of_other_keys_can_be_made() -> None:
    kept = Kept[int](2)
    assert kept.get("outer", lambda: kept.get("inner", lambda: 1) + 1) == 2
    with pytest.raises(ZeroDivisionError):
        kept.get("broken", lambda: 1 // 0)
