"""A language model on this machine as the teacher.

Special tokens that are spelled out in a quoted text are broken up, or a text about chat markup
would end the teacher's own turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nla_core.errors import NLAError
from nla_core.models.chat import prompt_ids
from nla_core.models.checkpoints import load_causal_lm, load_tokenizer, resolve
from nla_core.models.cpu import use_grouped_attention
from nla_core.models.decoding import Prompted, decode, once
from nla_core.models.devices import pick_device, pick_dtype
from precompute.train.questions import VERSION, cleaned, question
from precompute.train.teachers import Label, LabelRequest, StructuredTeacher, labels_from

RETRY_SEED = 1 << 32  # request seeds are below it, so a second try draws other numbers
RETRY_TEMPERATURE = 0.7


class LocalTeacher:
    """See Teacher. ``model`` is any causal LM; one without a chat template sees plain text."""

    name = "local"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        stand_in: StructuredTeacher,
        *,
        spec: str,
        temperature: float = 0.7,
        max_new_tokens: int = 120,
        batch_size: int = 16,
    ) -> None:
        self._model, self._tokenizer, self._stand_in = model, tokenizer, stand_in
        added = tokenizer.added_tokens_decoder.values()
        self._special = [str(token) for token in added if token.special]
        use_grouped_attention(model)
        eos = model.generation_config.eos_token_id
        known = [*(eos if isinstance(eos, list) else [eos]), tokenizer.eos_token_id]
        self._stop_ids = frozenset(i for i in known if i is not None)
        self._spec, self._temperature = spec, temperature
        self._max_new_tokens, self._batch_size = max_new_tokens, batch_size

    @classmethod
    def load(
        cls,
        spec: str,
        stand_in: StructuredTeacher,
        *,
        device: str = "auto",
        dtype: str = "auto",
        **settings: Any,
    ) -> LocalTeacher:
        """From a model's name (see checkpoints.resolve). Raises NLAError if there is none."""
        base = resolve(spec)
        where = pick_device(device)
        model = load_causal_lm(base.folder, dtype=pick_dtype(where, dtype), device=where)
        return cls(model, load_tokenizer(base.folder), stand_in, spec=spec, **settings)

    def config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "model": self._spec,
            "temperature": self._temperature,
            "max_new_tokens": self._max_new_tokens,
            "wording": VERSION,
        }

    def label(self, requests: Sequence[LabelRequest]) -> list[Label]:
        def ask(asked: Sequence[LabelRequest], attempt: int) -> list[str | None]:
            answers = self.answers([question(r) for r in asked], [r.seed for r in asked], attempt)
            return [cleaned(answer) for answer in answers]

        return labels_from(requests, ask, name=self.name, stand_in=self._stand_in)

    def forecast(self, prefix_characters: Sequence[int]) -> str | None:
        return None

    def estimate(self, characters: Sequence[int]) -> str | None:
        return None

    def report(self) -> str | None:
        return None

    def answers(self, messages: Sequence[str], seeds: Sequence[int], attempt: int = 0) -> list[str]:
        """See Writer; an answer depends on its message and seed, not on its neighbours."""
        prompts = [self._prompt(message) for message in messages]
        # Prompts of one length waste nothing on padding; the order in is the order out.
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        answers: dict[int, str] = {}
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            written = self._written(
                [prompts[row] for row in rows],
                seeds=[seeds[row] + attempt * RETRY_SEED for row in rows],
                temperature=max(self._temperature, RETRY_TEMPERATURE if attempt else 0.0),
            )
            for row, ids in zip(rows, written, strict=True):
                answers[row] = self._tokenizer.decode(ids, skip_special_tokens=True)
        return [answers[row] for row in range(len(prompts))]

    @torch.inference_mode()
    def _written(
        self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], temperature: float
    ) -> list[tuple[int, ...]]:
        """Continue a left-padded batch. Plain forward calls, so that no family table is needed."""
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self._tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        device = self._model.device
        ids, mask = ids.to(device), mask.to(device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        first = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
        )
        written: dict[int, tuple[int, ...]] = {}
        prompted = Prompted(
            range(len(prompts)),
            first.past_key_values,
            first.logits[:, -1],
            mask,
            positions[:, -1] + 1,
        )
        for done in decode(
            self._model,
            once(prompted),
            len(prompts),
            stop_ids=self._stop_ids,
            max_new_tokens=self._max_new_tokens,
            temperature=temperature,
            seeds=seeds,
        ):
            written[done.row] = done.ids
        return [written[row] for row in range(len(prompts))]

    def _prompt(self, text: str) -> list[int]:
        for token in self._special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        ids, _ = prompt_ids(self._tokenizer, [{"role": "user", "content": text}])
        config = self._model.config.get_text_config()
        context = getattr(config, "max_position_embeddings", None)
        if context is not None and len(ids) + self._max_new_tokens > context:
            raise NLAError(
                f"The teacher {self._spec} cannot read its questions",
                why=f"One has {len(ids)} tokens, the answer takes up to {self._max_new_tokens}, "
                f"and its context holds {context}",
                fix="Use a model with a longer context, or lower --max-tokens",
            )
        return ids
