"""When a GPU's memory does not suffice: half as much at a time, said aloud, and on.

Knows torch's out-of-memory error and how to try again. Knows nothing of what is computed. The
decision a reader would question: the smaller size is kept for the rest of the run, since what did
not fit once will not fit later, and trying costs a failed step each time.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from nla_core.errors import NLAError
from precompute.output import say

Result = TypeVar("Result")


def fitting(work: Callable[[int], Result], size: int) -> tuple[Result, int]:
    """``work(size)``, with ``size`` halved until it fits; the result and the size that did.

    ``work`` must be repeatable: it starts from nothing at each call. Raises NLAError where a size
    of one does not fit either.
    """
    while True:
        try:
            return work(size), size
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise NLAError(
                    "The GPU's memory does not suffice for a single row",
                    why=str(error).split(". ")[0],
                    fix="Use a smaller model, fewer tokens, or --device cpu",
                ) from error
        # Outside the handler: its traceback holds the tensors that are to be freed.
        size //= 2
        say(f"out of GPU memory: going on with {size} rows at a time")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
