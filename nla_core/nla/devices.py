"""Which device and number format to compute in.

Knows what the machine offers. Knows nothing of models. The decision a reader would question: on a
CPU, bfloat16 only where the processor multiplies it natively; elsewhere it is slower than float32.
"""

from __future__ import annotations

import torch

from nla_core.errors import NLAError

SPLIT = "split"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """``auto``: the first CUDA device, else the CPU. Refuses a device that is not there.

    Of one device only; `nla_core.nla.placement` knows how a pair is split over several.
    """
    if name.startswith(SPLIT):
        raise NLAError(
            f"'{name}' is not one device",
            why="Only the models of a whole pair, as they are used, are split over several",
            fix="Name one device, such as --device cuda:0",
        )
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = named(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NLAError(
            f"Device '{name}' is not available",
            why="This installation of torch sees no CUDA device",
            fix="Use --device cpu, or install a CUDA build of torch",
        )
    return device


def named(name: str) -> torch.device:
    """The device of that name, which need not be on this machine. Raises NLAError for no name."""
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise NLAError(
            f"'{name}' names no device",
            why="Known to torch are names such as cpu, cuda and cuda:1",
            fix="Use --device cpu or --device cuda",
        ) from error


def pick_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """``auto``: bfloat16 on CUDA and on CPUs with AVX512-BF16 or AMX, else float32."""
    if name != "auto":
        if name not in DTYPES:
            raise NLAError(
                f"Unknown dtype '{name}'",
                why=f"Known are auto, {', '.join(DTYPES)}",
                fix="Choose one of these",
            )
        return DTYPES[name]
    if device.type == "cuda" or (device.type == "cpu" and cpu_has_bf16()):
        return torch.bfloat16
    return torch.float32


def cpu_has_bf16() -> bool:
    """True where the processor has native bfloat16 products (AVX512-BF16)."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())
