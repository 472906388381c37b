"""Sequences of different lengths, cut into batches that hold little padding.

Knows lengths and how many tokens a device likes to see at once. Knows nothing of models. The
decision a reader would question: few tokens at a time on a CPU. What a block computes of a thousand
tokens no longer fits the caches, and products of five hundred are already as fast as they get; a
GPU is only busy with many more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

CPU_TOKENS, DEVICE_TOKENS = 512, 16_384


def tokens_at_once(device: torch.device) -> int:
    """Tokens of one batch, padding included, that ``device`` works through well."""
    return CPU_TOKENS if device.type == "cpu" else DEVICE_TOKENS


def by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of at most ``budget`` tokens when padded, the longest first.

    A sequence longer than the budget is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    while order:
        batch = [order.pop()]
        width = lengths[batch[0]]
        while order and (len(batch) + 1) * width <= budget:
            batch.append(order.pop())
        yield batch
