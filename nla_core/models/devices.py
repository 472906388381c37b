"""Where a model runs: its device, its number format, blocks over several devices, out of memory.

A batch that does not fit is tried again at half its size, so that a run ends later instead of not
at all. Splitting over devices is accelerate's; this module only chooses when.
"""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from nla_core.errors import NLAError

SPLIT = "split"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """``auto``: the first CUDA device, else the CPU. Refuses a device that is not there.

    Of one device only; `nla_core.models.devices` knows how a pair is split over several.
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


ROOM_SHARE = 0.2
"""Of each device's memory: kept free of weights, for the caches and states of a batch."""

_NAME = re.compile(rf"{SPLIT}(:\d+(/\d+)*)?")


@dataclass(frozen=True, slots=True)
class Placement:
    """``first`` is the device, or where the first block of a split model lies.

    ``budget`` is how many bytes of weights each device takes, as accelerate's ``max_memory``: GPU
    numbers, ``"cpu"`` and ``"disk"``; None puts a model on ``first`` as a whole. What lies on
    ``"disk"`` is in the folder ``offload`` and read again for every pass.
    """

    first: torch.device
    budget: Mapping[int | str, int] | None = None
    offload: Path | None = None

    @property
    def is_split(self) -> bool:
        return self.budget is not None

    def load_options(self) -> dict[str, Any]:
        """What ``from_pretrained`` is told, so that no device ever holds more than its share."""
        if self.budget is None:
            return {}
        return {
            "device_map": "balanced",
            "max_memory": dict(self.budget),
            "offload_folder": None if self.offload is None else str(self.offload),
        }

    def put(self, model: Any, dtype: torch.dtype) -> Any:
        """``model`` in its place and number format; one that was loaded there stays as it is."""
        if self.budget is None:
            return model.to(device=self.first, dtype=dtype)
        if getattr(model, "hf_device_map", None):
            return model
        from accelerate import dispatch_model, infer_auto_device_map
        from accelerate.utils import get_balanced_memory

        model = model.to(dtype=dtype)
        whole = model._no_split_modules
        room = {name: size for name, size in self.budget.items() if name != "disk"}
        memory = get_balanced_memory(model, room, dtype=dtype, no_split_module_classes=whole)
        memory |= {name: size for name, size in self.budget.items() if name == "disk"}
        places = infer_auto_device_map(model, memory, dtype=dtype, no_split_module_classes=whole)
        return dispatch_model(
            model,
            places,
            offload_dir=None if self.offload is None else str(self.offload),
            skip_keys=model._skip_keys_device_placement,
        )


def pick_place(name: str = "auto") -> Placement:
    """``split``: over all CUDA devices; ``split:0/1``: over these; else one device, by its name.

    What the devices have no room for stays in the machine's memory and is sent to a device for
    every pass, which is slow. Raises NLAError for a device that is not there.
    """
    if not name.startswith(SPLIT):
        return Placement(pick_device(name))
    if not _NAME.fullmatch(name):
        raise NLAError(
            f"'{name}' names no devices to split over",
            why="The forms are split, for all CUDA devices, and split:0/1, for some of them",
            fix="Write it in one of these forms",
        )
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    _, _, named = name.partition(":")
    numbers = [*dict.fromkeys(map(int, named.split("/")))] if named else [*range(there)]
    if missing := [number for number in numbers if number >= there] or not numbers:
        raise NLAError(
            f"Device '{name}' is not available",
            why=f"This installation of torch sees {there} CUDA devices"
            + (f", and none of number {missing[0]}" if isinstance(missing, list) else ""),
            fix="Name devices that there are, or use --device cpu",
        )
    budget: dict[int | str, int] = {}
    for number in numbers:
        free, total = torch.cuda.mem_get_info(number)
        budget[number] = max(0, free - round(ROOM_SHARE * total))
    return Placement(torch.device("cuda", numbers[0]), budget | {"cpu": _memory()})


def _memory() -> int:
    """Bytes of the machine's memory that are free, as accelerate counts them."""
    from accelerate.utils import get_max_memory

    return int(get_max_memory()["cpu"])


def device_of(module: nn.Module) -> torch.device:
    """Where ``module`` computes, and what it is given should lie.

    Not where its weights are: those of an offloaded module are nowhere between two passes.
    """
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        for one in getattr(hook, "hooks", (hook,)):
            if (device := getattr(one, "execution_device", None)) is not None:
                is_number = isinstance(device, int)
                return torch.device("cuda", device) if is_number else torch.device(device)
    return next(module.parameters()).device


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
