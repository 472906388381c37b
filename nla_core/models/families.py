"""Facts about model families, in one table: where the parts of a decoder live.

Knows attribute paths and config nesting of the supported architectures. Knows nothing of NLAs. The
decision a reader would question: a table of paths instead of subclasses; code elsewhere asks
``parts_of(model)`` and never tests a model type.

Embedding scale: Gemma multiplies embeddings by sqrt(d). In the pinned transformers this happens
inside the embedding *module*, so calling ``parts.embed(ids)`` gives vectors in residual units for
every family, and an injected vector beside them needs no correction. ``scales_embeddings`` states
the fact for checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from nla_core.errors import NLAError
from nla_core.models.devices import device_of


@dataclass(frozen=True, slots=True)
class Family:
    """Attribute paths below a ``...ForCausalLM`` (or conditional-generation) module."""

    decoder: str
    layers: str = "layers"
    norm: str = "norm"
    embed: str = "embed_tokens"
    head: str = "lm_head"
    text_config: str | None = None
    scales_embeddings: bool = False
    lora_targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


FAMILIES: dict[str, Family] = {
    "llama": Family("model"),
    "mistral": Family("model"),
    "qwen2": Family("model"),
    "qwen3": Family("model"),
    "gemma2": Family("model", scales_embeddings=True),
    "gemma3_text": Family("model", scales_embeddings=True),
    "gemma3": Family("model.language_model", text_config="text_config", scales_embeddings=True),
    "gpt2": Family("transformer", "h", "ln_f", "wte", lora_targets=("c_attn", "c_proj", "c_fc")),
}


@dataclass(frozen=True, slots=True)
class Parts:
    """The live modules of one loaded model."""

    family: Family
    config: Any  # the text config: hidden_size, num_hidden_layers, max_position_embeddings
    decoder: nn.Module
    layers: nn.ModuleList
    embed: nn.Embedding
    head: nn.Module

    @property
    def d_model(self) -> int:
        return int(self.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where token ids and embeddings go; of a split model, where its first module is."""
        return device_of(self.embed)

    @property
    def dtype(self) -> torch.dtype:
        """Of embeddings, and of the states that come of them."""
        return self.embed.weight.dtype

    @property
    def product_dtype(self) -> torch.dtype:
        """Of the blocks' matrices; of packed ones it can be narrower than that of the states."""
        return next(weight.dtype for weight in self.layers.parameters() if weight.dim() == 2)

    def logits(self, states: Tensor) -> Tensor:
        """``[n, vocab]`` next-token logits of final states ``[n, d_model]``, soft cap included.

        Two dimensions and contiguous rows on purpose: a slice of a batch in three dimensions makes
        torch copy the whole head once a row, which on a CPU costs more than all blocks together.
        """
        return self.capped(self.head(states.contiguous()))

    def capped(self, logits: Tensor) -> Tensor:
        """What the head gave, kept within the family's soft cap, if it has one."""
        cap = getattr(self.config, "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    @property
    def context(self) -> int:
        return int(self.config.max_position_embeddings)


def family_of(config: Any) -> Family:
    """The table row for a Hugging Face config; refuses an architecture that is not in it."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise NLAError(
            f"Model family '{config.model_type}' is not supported",
            why=f"The table of families knows {', '.join(sorted(FAMILIES))}",
            fix="Add a row with the model's attribute paths to nla_core/models/families.py",
        )
    return family


def parts_of(model: Any) -> Parts:
    """Find the parts of a (possibly PEFT-wrapped) causal language model."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    family = family_of(base.config)
    decoder = attrgetter(family.decoder)(base)
    return Parts(
        family=family,
        config=getattr(base.config, family.text_config) if family.text_config else base.config,
        decoder=decoder,
        layers=getattr(decoder, family.layers),
        embed=getattr(decoder, family.embed),
        head=getattr(base, family.head),
    )


def keep_blocks(model: Any, n_layers: int) -> None:
    """Cut a model in place after ``n_layers`` blocks; its final norm and head stay."""
    parts = parts_of(model)
    if not 0 < n_layers <= len(parts.layers):
        raise NLAError(
            f"Cannot keep {n_layers} blocks of a model with {len(parts.layers)}",
            why="The AR holds blocks 0..K of the target, K below its depth",
            fix="Set extraction_layer_index to a layer that the base model has",
        )
    setattr(parts.decoder, parts.family.layers, parts.layers[:n_layers])
    parts.config.num_hidden_layers = n_layers
    for name in ("layer_types",):  # per-layer lists of hybrid-attention configs
        if getattr(parts.config, name, None):
            setattr(parts.config, name, getattr(parts.config, name)[:n_layers])


def truncate(model: Any, n_layers: int) -> None:
    """Cut a model in place after ``n_layers`` blocks; final norm and head become identities.

    What remains returns, as last hidden state, the residual stream after block ``n_layers - 1``:
    the architecture of the AR (paper, "Activation reconstructor").
    """
    keep_blocks(model, n_layers)
    parts = parts_of(model)
    setattr(parts.decoder, parts.family.norm, nn.Identity())
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    setattr(base, parts.family.head, nn.Identity())
