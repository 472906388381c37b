"""When memory does not suffice: half as much at a time, said aloud, and on.

Knows how torch says that a device or the machine is out of memory, and how to try again. Knows
nothing of what is computed. The decision a reader would question: the smaller size is kept for the
rest of the run, since what did not fit once will not fit later, and trying costs a failed step each
time.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from nla_core.errors import NLAError

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA has a class for it; torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def free() -> None:
    """Give back what is not referenced any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def smaller(size: int, error: BaseException) -> int:
    """Half of ``size``, said aloud. Raises NLAError where it is one already."""
    if size == 1:
        raise NLAError(
            "The memory does not suffice for a single row",
            why=str(error).split(". ")[0] or type(error).__name__,
            fix="Use a smaller model, fewer tokens, or --device cpu",
        ) from error
    LOG.warning("out of memory: going on with %d rows at a time", size // 2)
    return size // 2


def fitting(work: Callable[[int], Result], size: int) -> tuple[Result, int]:
    """``work(size)``, with ``size`` halved until it fits; the result and the size that did.

    ``work`` must be repeatable: it starts from nothing at each call. Raises NLAError where a size
    of one does not fit either.
    """
    while True:
        try:
            return work(size), size
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            size = smaller(size, error)
        free()  # outside the handler: its traceback holds the tensors that are to be freed
