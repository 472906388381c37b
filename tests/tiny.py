"""Tiny random models, a tokenizer and a whole NLA pair, built from configs in a second or two.

Nothing here is trained: texts are gibberish, but every part is real, so parity, contracts, formats
and whole runs can be tested without a download.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from nla_core.models.checkpoints import Resolved
from nla_core.models.pair import REFERENCE_FILE, Reference
from nla_core.models.reconstructor import HEAD_FILE, identity_head
from nla_core.models.sidecar import FILE_NAME, dump_sidecar
from precompute.train.contract import new_contract

LAYER = 2
D_MODEL = 32
MARKER = "<empty_output>"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", MARKER]
TEXT = (
    "the quick brown fox jumps over the lazy dog while rain falls on the old stone bridge and "
    "people say that language models hold more than they tell <explanation> </explanation> "
    "<concept> </concept> <text> </text> <summary> At Next About user assistant system 0 1 2 3"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_SIZES: dict[str, Any] = {
    "hidden_size": D_MODEL,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _SIZES,
    "qwen2": _SIZES,
    "qwen3": _SIZES,
    "gemma2": _SIZES,
    "gemma3_text": _SIZES,
    "gemma3": {  # multimodal: the language model's config is nested
        "vision_config": {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "mm_tokens_per_image": 4,
    },
    "gpt2": {
        "n_embd": D_MODEL,
        "n_head": 4,
        "n_positions": 256,
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on a few sentences; every byte is known."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([TEXT] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tiny_model(family: str = "llama", *, seed: int = 0, layers: int = 4) -> Any:
    """A random causal LM of ``layers`` blocks, d_model 32, float32, eval mode."""
    torch.manual_seed(seed)
    depth = {"n_layer" if family == "gpt2" else "num_hidden_layers": layers}
    text = depth | {"vocab_size": len(tiny_tokenizer())}
    if family == "gemma3":
        text = {"text_config": _SIZES | text}
    config = AutoConfig.for_model(family, **(FAMILIES[family] | text))
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():  # larger weights, so that different inputs lead to different texts
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model.requires_grad_(False)


def tiny_base(folder: Path, family: str = "llama") -> Path:
    """A saved target with its tokenizer."""
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_pair(root: Path, family: str = "llama") -> Path:
    """A whole pair with full weights below ``root/pair``; its target lies in ``root/base``."""
    base = tiny_base(root / "base", family)
    tokenizer = tiny_tokenizer()
    resolved = Resolved(str(base), base, None)
    av, ar = new_contract(
        tokenizer, resolved, d_model=D_MODEL, layer=LAYER, injection_scale=20.0, marker=MARKER
    )
    pair = root / "pair"
    tiny_model(family, seed=1).save_pretrained(pair / "av")
    tiny_model(family, seed=2, layers=LAYER + 1).save_pretrained(pair / "ar")
    save_file({"weight": identity_head(D_MODEL).weight.detach()}, pair / "ar" / HEAD_FILE)
    for sidecar in (av, ar):
        text = dump_sidecar(replace(sidecar, path=""))
        (pair / sidecar.role / FILE_NAME).write_text(text, encoding="utf-8")
    torch.manual_seed(3)
    Reference.of(torch.randn(200, D_MODEL) + 0.3).save(pair / REFERENCE_FILE)
    return pair
