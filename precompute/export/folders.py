"""One half of a pair as a plain Hugging Face folder: merged weights, config, tokenizer.

Knows how a merged model becomes files that any loader reads. Knows nothing of sidecars and prompts.
The decision a reader would question: multimodal models are written as the text-only causal LM
inside them, because readers look for the final norm and the hidden size at the top of the model and
generate from embeddings, which transformers' multimodal classes refuse; no half ever sees an image.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from nla_core.errors import NLAError
from nla_core.models.families import parts_of
from nla_core.models.reconstructor import HEAD_FILE, load_head

SHARD_SIZE = "5GB"


def text_only(model: Any, *, head: bool) -> Any:
    """The decoder of ``model`` as a causal LM of its own, sharing weights.

    Without ``head`` the embeddings count as one, so that none is written and none is missed.
    """
    from transformers import AutoModelForCausalLM

    parts = parts_of(model)
    config = copy.deepcopy(parts.config)
    config.tie_word_embeddings = not head or bool(model.config.tie_word_embeddings)
    _drop_quantization(config)
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=parts.dtype)
    parts_of(plain).decoder.load_state_dict(parts.decoder.state_dict(), assign=True)
    if config.tie_word_embeddings:
        plain.tie_weights()
    else:
        parts_of(plain).head.load_state_dict(parts.head.state_dict(), assign=True)
    plain.generation_config = model.generation_config
    return plain


def save_model(model: Any, tokenizer: Any, folder: Path, *, shard_size: str = SHARD_SIZE) -> None:
    """Write config, weights and a greedy generation_config.

    Raises NLAError for weights that are quantised, or that the chosen number format cannot hold.
    """
    if getattr(model, "is_quantized", False):
        raise NLAError(
            f"The weights for {folder.name} are quantised",
            why="A pair is published in plain weights, and a LoRA merges only into those",
            fix="Name an unquantised copy of the model with --target",
        )
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise NLAError(
                f"{name} of {folder.name} holds values that are not finite",
                why=f"They are damaged already, or too large for {weight.dtype}",
                fix="Export with --dtype bfloat16 or float32, or check the training run",
            )
    _drop_quantization(model.config)
    model.generation_config = _greedy(model, tokenizer)
    model.save_pretrained(folder, max_shard_size=shard_size)
    _edit(folder / "config.json", _older_names)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer, under a class name that loaders before transformers 5 know as well."""
    tokenizer.save_pretrained(folder)
    _edit(folder / "tokenizer_config.json", _portable_tokenizer)


def save_head(ar_dir: Path, folder: Path, d_model: int) -> None:
    """Write ``value_head.safetensors`` in float32: it is small, and it is applied in float32."""
    weight = load_head(ar_dir / HEAD_FILE, d_model).weight.detach().contiguous()
    save_file({"weight": weight}, folder / HEAD_FILE, metadata={"format": "pt"})


def bytes_needed(model: Any) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _greedy(model: Any, tokenizer: Any) -> Any:
    """Stop and padding ids alone: sampling settings of the base would change "greedy" texts."""
    from transformers import GenerationConfig

    known = model.generation_config.eos_token_id
    stops = [*(known if isinstance(known, list) else [known]), tokenizer.eos_token_id]
    stops = list(dict.fromkeys(i for i in stops if i is not None))
    return GenerationConfig(
        bos_token_id=model.generation_config.bos_token_id,
        eos_token_id=stops[0] if len(stops) == 1 else stops or None,
        pad_token_id=tokenizer.pad_token_id,
    )


def _drop_quantization(config: Any) -> None:
    """A leftover of GGUF or quantised loading would make every later load expect that again."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config


def _older_names(config: dict[str, Any]) -> dict[str, Any]:
    """Add the key names from before transformers 5, beside the new ones.

    An older loader that does not find ``rope_theta`` takes a default without a word.
    """
    if isinstance(config.get("text_config"), dict):
        config["text_config"] = _older_names(config["text_config"])
    if "dtype" in config:
        config.setdefault("torch_dtype", config["dtype"])
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return config
    whole = rope.get("full_attention", rope)
    if "rope_theta" in whole:
        config.setdefault("rope_theta", whole["rope_theta"])
    if local := rope.get("sliding_attention"):
        config.setdefault("rope_local_base_freq", local.get("rope_theta"))
    if whole.get("rope_type", "default") != "default":
        scaling = {k: v for k, v in whole.items() if k != "rope_theta"}
        config.setdefault("rope_scaling", scaling)
    return config


def _portable_tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    for local in ("is_local", "local_files_only"):
        config.pop(local, None)
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    return config


def _edit(path: Path, change: Any) -> None:
    config = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
