"""A reader of published pairs that knows the contract and nothing of this project.

It stands for other people's software: YAML, safetensors, AutoTokenizer, AutoModelForCausalLM,
``str.format`` and ``generate``, one vector and one text at a time. It imports nothing from nla_core
or precompute, so that it cannot share a mistake with them.
"""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

FINAL_NORMS = ("norm", "final_layernorm", "ln_f")


class AV:
    """The verbalizer of one folder."""

    def __init__(self, folder: Path) -> None:
        meta = yaml.safe_load((folder / "nla_meta.yaml").read_text(encoding="utf-8"))
        assert (meta["kind"], meta["role"]) == ("nla_model", "av")
        tokens = meta["tokens"]
        self.scale = float(meta["extraction"]["injection_scale"])
        self.d_model = meta["d_model"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        char, marker = tokens["injection_char"], tokens["injection_token_id"]
        assert self.tokenizer.encode(char, add_special_tokens=False) == [marker]
        assert marker != self.tokenizer.unk_token_id
        content = meta["prompt_templates"]["av"].format(injection_char=char)
        self.ids = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=False,
        )
        (self.place,) = [i for i, token in enumerate(self.ids) if token == marker]
        assert self.ids[self.place - 1] == tokens["injection_left_neighbor_id"]
        assert self.ids[self.place + 1] == tokens["injection_right_neighbor_id"]

    @torch.no_grad()
    def generate(self, vector: Tensor, max_new_tokens: int) -> str:
        """The whole greedy text, tags and all."""
        inputs = self.model.get_input_embeddings()(torch.tensor([self.ids])).clone()
        inputs[0, self.place] = vector / vector.norm() * self.scale
        written = self.model.generate(
            inputs_embeds=inputs,
            attention_mask=torch.ones(1, len(self.ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=max_new_tokens,
        )
        return self.tokenizer.decode(written[0], skip_special_tokens=True)


class AR:
    """The reconstructor of one folder."""

    def __init__(self, folder: Path) -> None:
        meta = yaml.safe_load((folder / "nla_meta.yaml").read_text(encoding="utf-8"))
        assert meta["role"] == "ar"
        self.mse_scale = float(meta["extraction"]["mse_scale"])
        self.template = meta["prompt_templates"]["ar"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        bos = self.tokenizer.bos_token_id
        assert bos is None or self.tokenizer("x")["input_ids"][0] == bos
        backbone = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        assert backbone.config.num_hidden_layers == meta["extraction_layer_index"] + 1
        backbone.lm_head = nn.Identity()
        self.body = backbone.base_model
        norm = next(name for name in FINAL_NORMS if hasattr(self.body, name))
        setattr(self.body, norm, nn.Identity())
        width = backbone.config.hidden_size
        self.head = nn.Linear(width, width, bias=False)
        self.head.load_state_dict(load_file(folder / "value_head.safetensors"))

    @torch.no_grad()
    def reconstruct(self, explanation: str) -> Tensor:
        """``[d_model]``, raw."""
        prompt = self.template.format(explanation=explanation)
        ids = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=True)["input_ids"]
        return self.head(self.body(ids, use_cache=False).last_hidden_state[0, -1])

    def mse(self, explanation: str, original: Tensor) -> float:
        """Mean squared difference of both vectors at L2 = mse_scale."""
        predicted = self.reconstruct(explanation)
        scaled = [v / v.norm() * self.mse_scale for v in (predicted, original)]
        return float(((scaled[0] - scaled[1]) ** 2).mean())
