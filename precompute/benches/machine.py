"""What a measurement was made on, and how it grows, in the words that every record uses.

Knows processors, threads, load, and slopes. Measures nothing. The decision a reader would
question: the load average stands in every record, before and after: a time by the clock means
nothing without it.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def conditions(
    device: torch.device, dtype: torch.dtype, note: str, load_before: float
) -> dict[str, Any]:
    """Processor, cores, threads, device, number format, versions, load average, what else ran."""
    return {
        "processor": processor(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "note": note,
    }


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float | None:
    """The slope of log values over log sizes by least squares; None for fewer than two."""
    if len(sizes) < 2:
        return None
    x, y = [math.log(n) for n in sizes], [math.log(s) for s in values]
    middle = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - middle[0]) * (b - middle[1]) for a, b in zip(x, y, strict=True))
    return over / sum((a - middle[0]) ** 2 for a in x)


def processor(device: torch.device) -> str:
    """The name of the GPU or of the processor, as the system gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
