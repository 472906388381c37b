"""A program: a pair split over two pretended devices, where every operation checks its tensors.

Numbers are fake (torch's fake tensors), devices are a backend without code, and mixing the two in
one operation is an error. In a process of its own, for torch takes such a backend for an
accelerator of this machine from then on. Usage: python -m tests.models.pretend_devices PAIR FAMILY
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import dispatch_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration

from nla_core.models import decoding, injection
from nla_core.models.checkpoints import load_tokenizer
from nla_core.models.devices import device_of
from nla_core.models.families import parts_of, truncate
from nla_core.models.pair import find_pair
from nla_core.models.reconstructor import Reconstructor, identity_head, read_last
from nla_core.models.target import Target
from nla_core.models.verbalizer import LocalVerbalizer
from nla_core.steering.push import Pusher
from tests.tiny import D_MODEL, tiny_model

NAME = "pretend"
FIRST, SECOND = f"{NAME}:0", f"{NAME}:1"
N = 6


def over_two(model: Any, mode: FakeTensorMode) -> Any:
    """Embeddings and the first block on one device; other blocks, final norm and head on another.

    Tied heads get weights of their own: accelerate knows ties by addresses, and fakes have none.
    """
    parts = parts_of(model)
    after = [*parts.layers[1:], getattr(parts.decoder, parts.family.norm), parts.head]
    second = {part for module in after for part in module.modules()}
    blocks = {*parts.layers}
    inside = {part for block in blocks for part in block.modules()} - blocks
    places: dict[str, str] = {}
    for name, module in model.named_modules():
        place = SECOND if module in second else FIRST
        if module in blocks or (module not in inside and not [*module.children()]):
            places[name] = place
        for key, weight in module._parameters.items():
            if weight is not None:
                fake = mode.from_tensor(weight.detach()).to(place)
                module._parameters[key] = torch.nn.Parameter(fake, requires_grad=False)
        for key, buffer in module._buffers.items():
            module._buffers[key] = buffer if buffer is None else mode.from_tensor(buffer).to(place)
    return dispatch_model(model, places, skip_keys=model._skip_keys_device_placement)


def _tensor(real: Any, data: Any, *, dtype: Any = None, device: Any = None) -> torch.Tensor:
    """``torch.tensor`` without the values, which would be copied to a device that has no code."""
    made = real(data, dtype=dtype)
    return torch.empty(made.shape, dtype=made.dtype, device=device)


def check(folder: Path, family: str) -> None:
    """Everything that a pair is used for; tokens are never known, so all are taken to be 9."""
    pair = find_pair(folder)
    tokenizer = load_tokenizer(Path(pair.target))
    decoding._on_its_way = lambda tokens: lambda: [9] * len(tokens)  # type: ignore[assignment]
    decoding._draws = lambda _, n: [0.5] * n
    injection.check_vectors = lambda *_, **__: None
    torch.autocast = lambda *_, **__: nullcontext()  # type: ignore[assignment,misc]
    models = [tiny_model(family) for _ in range(3)]
    truncate(models[2], pair.layer + 1)
    head = identity_head(D_MODEL)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        torch.tensor = partial(_tensor, torch.tensor)  # type: ignore[assignment]
        models = [over_two(model, mode) for model in models]
        there = device_of(parts_of(models[2]).layers[-1])
        assert there == torch.device(SECOND)
        head.weight = torch.nn.Parameter(mode.from_tensor(head.weight.detach()).to(there))
        target = Target(models[0], tokenizer, pair.layer)
        assert target.device == torch.device(FIRST)
        av = LocalVerbalizer(models[1], tokenizer, pair.av)
        ar = Reconstructor(models[2], head, tokenizer, pair.ar)

        traces = target.trace([[5, 6, 7, 8], [1, 2]])
        assert traces[0].hidden.shape == (4, D_MODEL)
        options: dict[str, Any] = {"max_new_tokens": 3, "temperature": 0.7}
        answers = target.answer([[5, 6, 7], [5]], seeds=[0, 1], **options)
        assert [answer.ids for answer in answers] == [(9, 9, 9)] * 2
        said = av.verbalize(torch.ones(N, D_MODEL), seeds=range(N), batch_size=4, **options)
        assert len([*said]) == N
        ids, last = torch.tensor([[1, 2, 3], [1, 2, 0]]), torch.tensor([2, 1])
        assert read_last(models[2], head, ids, last).shape == (2, D_MODEL)
        assert ar.reconstruct(["the fox", "rain"]).shape == (2, D_MODEL)

        pusher = Pusher(target, [5, 6, 7, 8], [2, 3], every=True)
        pushed = pusher.prefill(torch.ones(2, D_MODEL))
        assert pusher.chance(pushed, [9, 10]).shape == (2,)
        pushed.cache.batch_select_indices(torch.tensor([0, 1, 1]))
        assert len(pushed.cache.added) == 3


if __name__ == "__main__":
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    check(Path(sys.argv[1]), sys.argv[2])
