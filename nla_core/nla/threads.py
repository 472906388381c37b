"""One thread of a process computes with all cores, the others with one.

Knows torch's threads. Knows nothing of who computes what. The decision a reader would question:
where two threads of a process each have helpers of their own, there are more of them than cores,
and OpenMP then lets all of them sleep between two products instead of wait: a decode step, which is
hundreds of small products, takes half as long again. So the thread that decodes all day has the
cores; who has more than a little to compute asks for what is spare, and who computes a little, such
as the embedding of a query, has one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

_lock = threading.Lock()
_at_work = 0


@contextmanager
def the_cores() -> Iterator[None]:
    """Let this thread compute with all cores, for the time of a ``with`` before all others."""
    global _at_work
    with _lock:
        _at_work += 1
    try:
        _compute_with(_cores())
        yield
    finally:
        with _lock:
            _at_work -= 1


def spare_cores() -> None:
    """Let this thread compute with all cores if nobody is in `the_cores` now, else with one."""
    _compute_with(1 if _at_work else _cores())


@cache
def _cores() -> int:
    """What torch would use, asked before anybody is told to use less."""
    return torch.get_num_threads()


def _compute_with(threads: int) -> None:
    """This thread with so many, and those that begin to compute later with one.

    A thread that has computed before keeps what it had.
    """
    torch.get_num_threads()  # a thread's first call, of whatever, sets it to what all have
    torch.set_num_threads(threads)  # what follows is no longer for this thread
    rest = threading.Thread(target=torch.set_num_threads, args=(1,), name="one-thread")
    rest.start()
    rest.join()
