"""Verbalizers of any size with random weights: for speed, where no trained one of that size is.

Knows shapes of published models. Knows nothing of quality: the texts are noise. The decision a
reader would question: rows of a random model hardly ever end by themselves, so all run to the limit
and nothing is gained from rows that leave; what is measured is a lower bound.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from nla_core.errors import NLAError
from nla_core.nla.checkpoints import load_tokenizer
from nla_core.nla.devices import pick_device, pick_dtype
from nla_core.nla.pair import Pair, resolve_target
from nla_core.nla.products import pack_products
from nla_core.nla.sharp_head import sharpen
from nla_core.nla.verbalizer import LocalVerbalizer

# (width, width inside the MLP, blocks, query heads, key heads)
SHAPES: dict[str, tuple[int, int, int, int, int]] = {
    "tiny": (64, 128, 2, 4, 2),
    "135m": (576, 1536, 30, 9, 3),
    "1b": (2048, 8192, 16, 32, 8),
    "7b": (4096, 11008, 32, 32, 32),
    "8b": (4096, 14336, 32, 32, 8),
}


def random_model(shape: str, vocabulary: int, device: torch.device, dtype: torch.dtype) -> Any:
    """A Llama of that shape, made on ``device`` at once, frozen. NLAError for an unknown shape."""
    if shape not in SHAPES:
        raise NLAError(
            f"There is no shape '{shape}'",
            why=f"known are {', '.join(SHAPES)}",
            fix="Choose one of these, or add a row to precompute/benches/shapes.py",
        )
    width, inside, blocks, heads, key_heads = SHAPES[shape]
    config = AutoConfig.for_model(
        "llama",
        hidden_size=width,
        intermediate_size=inside,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        vocab_size=vocabulary,
        max_position_embeddings=2048,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval().requires_grad_(False)


def random_av(
    shape: str, pair: Pair, *, device: str, dtype: str, plain: bool = False
) -> LocalVerbalizer:
    """An AV of that shape with the prompt and the tokenizer of ``pair``.

    Its head and products are laid out as `load_pair` does it, or left ``plain``.
    """
    where = pick_device(device)
    tokenizer = load_tokenizer(resolve_target(pair).folder)
    model = random_model(shape, len(tokenizer), where, pick_dtype(where, dtype))
    return LocalVerbalizer(model if plain else pack_products(sharpen(model)), tokenizer, pair.av)
