"""How long the AV takes for texts of given lengths: a row costs more where the batch is not full.

Knows how places are filled as rows end. Knows nothing of corpora. The decision a reader would
question: a step is taken to cost something by itself and something a row, and both are measured
with a full batch and with an eighth of one. A small run ends with a batch that empties; scaled up
by its number of readings alone, it made one of three predictions a third too long.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nla_core.nla.decoding import REFILL_SHARE
from precompute.benches.flops import clock

FEW, MORE = 2, 6  # tokens a row: what is between them is steps alone


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Seconds of processor time: of a row's prompt, of any step, and of a row in a step."""

    prompt_s: float
    step_s: float
    row_s: float

    @classmethod
    def of(cls, verbalizer: Any, d_model: int, batch_size: int) -> StepCosts:
        """Measured with random vectors; what is done once in a process has then been done."""
        some = max(1, batch_size // 8)
        vectors = torch.randn(batch_size, d_model, generator=torch.Generator().manual_seed(0))

        def seconds(rows: int, tokens: int) -> float:
            with clock(verbalizer.parts.device) as spent:
                for _ in verbalizer.verbalize(
                    vectors[:rows], seeds=[0] * rows, max_new_tokens=tokens, batch_size=rows
                ):
                    pass
            return spent.cpu_s

        def step(rows: int) -> tuple[float, float]:
            """A step of so many rows, and their prompts."""
            seconds(rows, FEW)
            few, more = seconds(rows, FEW), seconds(rows, MORE)
            a_step = max(0.0, more - few) / (MORE - FEW)
            return a_step, max(0.0, few - (FEW - 1) * a_step)

        full, prompts = step(batch_size)
        slim = step(some)[0] if some < batch_size else full
        row = max(0.0, full - slim) / max(1, batch_size - some)
        return cls(prompts / batch_size, max(0.0, slim - some * row), row)

    def seconds(self, lengths: Sequence[int], slots: int) -> float:
        """For texts of so many tokens, in that order, ``slots`` at a time."""
        rows = len(lengths) * self.prompt_s + sum(lengths) * self.row_s
        return rows + steps(lengths, slots) * self.step_s


def steps(lengths: Sequence[int], slots: int) -> int:
    """Decode steps until the last of them is whole, places being taken as `decode` does it."""
    waiting, ends, now = deque(lengths), list[int](), 0
    while waiting or ends:
        free = slots - len(ends)
        if free >= max(1, slots // REFILL_SHARE) or not ends:
            for _ in range(min(free, len(waiting))):
                heapq.heappush(ends, now + waiting.popleft())
        now = heapq.heappop(ends)
        while ends and ends[0] == now:
            heapq.heappop(ends)
    return now
