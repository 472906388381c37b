"""One thread of a process computes with all cores, the others with one.

Knows torch's threads. Knows nothing of who computes what. The decision a reader would question:
where two threads of a process each have helpers of their own, there are more of them than cores,
and OpenMP then lets all of them sleep between two products instead of wait: a decode step, which is
hundreds of small products, takes half as long again. So a thread that decodes has the cores as long
as it is at work; who has more than a little to compute meanwhile asks for what is spare, and who
computes a little, such as the embedding of a query, has one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_at_work: set[int] = set()  # the threads, by their ident
_cores: int | None = None  # what torch used before anybody was told to use less


@contextmanager
def the_cores() -> Iterator[None]:
    """Let this thread compute with all cores, for the time of a ``with`` before all others.

    From the first time on, threads that begin to compute later have one.
    """
    global _cores
    import torch

    me = threading.get_ident()
    if _cores is None:
        _cores = torch.get_num_threads()
    _at_work.add(me)
    try:
        _compute_with(_cores)
        yield
    finally:
        give_back(me)


def give_back(thread: int | None) -> None:
    """That thread no longer counts as at work: it is done, or hangs and was replaced."""
    if thread is not None:
        _at_work.discard(thread)


def spare_cores() -> None:
    """Let this thread compute with all cores if nobody is in `the_cores` now, else with one."""
    if _cores is not None:  # else nobody was told to use less
        _compute_with(1 if _at_work else _cores)


def _compute_with(threads: int) -> None:
    """This thread with so many, later ones with one; who has computed before keeps what it had."""
    import torch

    torch.get_num_threads()  # a thread's first call, of whatever, sets it to what all have
    torch.set_num_threads(threads)  # what follows is no longer for this thread
    rest = threading.Thread(target=torch.set_num_threads, args=(1,), name="one-thread")
    rest.start()
    rest.join()
