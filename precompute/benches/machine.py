"""What a measurement was made on, in the words that every record uses.

Knows processors, threads and load. Measures nothing. The decision a reader would question: the load
average stands in every record, before and after: a time by the clock means nothing without it.
"""

from __future__ import annotations

import os
import platform
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


def processor(device: torch.device) -> str:
    """The name of the GPU or of the processor, as the system gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
