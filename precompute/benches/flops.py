"""How much arithmetic a model did, how long it took, and how fast this machine can multiply.

Knows how operations are counted: by the weights of the matrices that every token passes through.
Knows nothing of training. The decision a reader would question: positions are counted where they
enter the decoder, padding included, and every one is charged the same: what is compared with the
peak is what was asked of the machine, and a share stays a share of arithmetic that really ran.

Left out: attention scores, norms, look-ups of embeddings and the AR's own head (one product of a
width by a width a text), some per cent together at the lengths of explanations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nla_core.nla.families import parts_of
from precompute.train.policy import TRAINED

FORMULA = (
    "2 (P + A) operations a position forward; 4 P + 6 A a position that is learned from, forward "
    "and backward, since frozen weights need no gradient of their own (where all weights learn, it "
    "is 6 P); for a position whose next token is asked for also 2 H forward, 4 H when learning. P "
    "are the weights of the blocks' matrices, A those of the active LoRA, H those of the head; "
    "attention scores, norms and embeddings are left out"
)
PEAK_SIZES = (512, 1024, 2048)
PEAK_SECONDS = 0.3
PEAK_REPEATS = 4


@dataclass(frozen=True, slots=True)
class Weights:
    """Numbers of weights by how they are charged: ``blocks`` P, ``lora`` A, ``head`` H."""

    blocks: int
    lora: int
    head: int

    @classmethod
    def of(cls, model: Any) -> Weights:
        """Of a causal LM, cut or whole; of several adapters the one that is trained counts."""
        parts = parts_of(model)
        matrices = [(n, p.numel()) for n, p in parts.layers.named_parameters() if p.dim() == 2]
        lora = [n for name, n in matrices if f".lora_A.{TRAINED}." in name]
        lora += [n for name, n in matrices if f".lora_B.{TRAINED}." in name]
        head = getattr(parts.head, "weight", None)
        return cls(
            sum(n for name, n in matrices if ".lora_" not in name),
            sum(lora),
            0 if head is None else head.numel(),
        )


@dataclass(slots=True)
class Counted:
    """Positions that went through a model, without (``read``) and with gradient (``learned``)."""

    weights: Weights
    read: int = 0
    learned: int = 0
    read_logits: int = 0
    learned_logits: int = 0

    @property
    def operations(self) -> int:
        """By FORMULA."""
        p, a, h = self.weights.blocks, self.weights.lora, self.weights.head
        return (
            2 * (p + a) * self.read
            + (4 * p + 6 * a) * self.learned
            + 2 * h * self.read_logits
            + 4 * h * self.learned_logits
        )


@contextmanager
def counting(model: Any) -> Iterator[Counted]:
    """Count what passes through ``model``'s decoder and head inside."""
    parts, counted = parts_of(model), Counted(Weights.of(model))

    def decoder(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs.get("inputs_embeds")
        ids = args[0] if args else kwargs.get("input_ids")
        seen = ids if given is None else given[..., 0]
        n = 0 if seen is None else seen.numel()
        if torch.is_grad_enabled():
            counted.learned += n
        else:
            counted.read += n

    def head(_module: nn.Module, args: tuple[Any, ...]) -> None:
        n = args[0][..., 0].numel()
        if torch.is_grad_enabled():
            counted.learned_logits += n
        else:
            counted.read_logits += n

    handles = [
        parts.decoder.register_forward_pre_hook(decoder, with_kwargs=True),
        parts.head.register_forward_pre_hook(head),
    ]
    try:
        yield counted
    finally:
        for handle in handles:
            handle.remove()


@dataclass(slots=True)
class Spent:
    """Seconds by the clock, and of processor time of all threads of this process."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def clock(device: torch.device) -> Iterator[Spent]:
    """Time what is inside; on a GPU until it has really happened."""
    spent = Spent()
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield spent
    finally:
        _wait(device)
        spent.wall_s = time.perf_counter() - wall
        spent.cpu_s = time.process_time() - cpu


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Best rate of a square matrix product, with the threads of this moment.

    ``gflop_per_s`` by the clock, the best single product of any size; ``gflop_per_cpu_s`` by
    processor time of all threads, the best size, since what other threads spent is told late.
    """
    best = {"gflop_per_s": 0.0, "gflop_per_cpu_s": 0.0}
    for size in PEAK_SIZES:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        torch.mm(left, right)
        gflop = 2 * size**3 / 1e9
        began, repeats = time.perf_counter(), 0
        with clock(device) as spent:
            while repeats < PEAK_REPEATS or time.perf_counter() - began < PEAK_SECONDS:
                with clock(device) as one:
                    torch.mm(left, right)
                repeats += 1
                best["gflop_per_s"] = max(best["gflop_per_s"], gflop / one.wall_s)
        best["gflop_per_cpu_s"] = max(best["gflop_per_cpu_s"], gflop * repeats / spent.cpu_s)
    return best
