"""One thread of a process computes with all cores, the others with one.

Knows torch's threads. Knows nothing of who computes what. The decision a reader would question:
where two threads of a process each have helpers of their own, there are more of them than cores,
and OpenMP then lets all of them sleep between two products instead of wait: a decode step, which is
hundreds of small products, takes half as long again. So the thread that decodes all day has the
cores, and who computes a little beside it, such as the embedding of a query, has one.
"""

from __future__ import annotations

import threading

import torch


def take_the_cores() -> None:
    """Let this thread compute with as many threads as torch has now, later ones with one.

    A thread that has computed before keeps what it had.
    """
    torch.set_num_threads(torch.get_num_threads())  # what follows is no longer for this thread
    rest = threading.Thread(target=torch.set_num_threads, args=(1,), name="one-thread")
    rest.start()
    rest.join()
