"""Where the weights of a model lie: on one device, or its blocks one after another over several.

Knows the names of places (``split``, ``split:0/1``), how much of each device may be filled, and how
accelerate is asked to spread a model. Knows nothing of NLAs. The decision a reader would question:
the three models of a pair are each spread over all devices, instead of one a device; each then has
room for caches beside it, and a target that fits no device alone needs it anyway.

A block runs where its weights lie, and accelerate's hooks carry states there. What enters a model
belongs where its embeddings are, what leaves it lies where its last module is: code that indexes
one by the other asks for the device of the tensor in its hands, or of ``device_of`` a module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nla_core.errors import NLAError
from nla_core.nla.devices import SPLIT, pick_device

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
