"""The frozen target model: its answers, and what it holds and expects at every token.

Knows how block K's output is read (``hidden_states[K+1]`` in Hugging Face's count, taken by a hook)
and how next-token predictions are. Knows nothing of explanations. The decision a reader would
question: right padding without an attention mask, which is exact in a causal model for all
positions that come before the padding, and takes attention's fast path.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nla_core.errors import NLAError
from nla_core.nla.attention import use_grouped_attention
from nla_core.nla.batch import Prompted
from nla_core.nla.decoding import decode, once
from nla_core.nla.families import parts_of
from nla_core.nla.lengths import by_length, tokens_at_once
from nla_core.nla.predictions import Predictions, predict


@dataclass(frozen=True, slots=True)
class Trace:
    """What the target computed on one sequence of ``T`` tokens."""

    hidden: Tensor  # [T, d_model] float32, output of block K
    surprisal: Tensor  # [T] float32 nats, of token t given those before; NaN at 0
    top_ids: Tensor  # [T, k] next-token predictions after token t
    top_probs: Tensor  # [T, k] float32


@dataclass(frozen=True, slots=True)
class Answer:
    ids: tuple[int, ...]
    finish: str  # "stop" | "length"


class Target:
    """A frozen causal LM read at layer K (zero-based block index)."""

    def __init__(self, model: Any, tokenizer: Any, layer: int) -> None:
        self.model, self.tokenizer, self.layer = model, tokenizer, layer
        use_grouped_attention(model)
        self.parts = parts_of(model)
        if not 0 <= layer < len(self.parts.layers):
            raise NLAError(
                f"Layer {layer} does not exist in the target",
                why=f"The model has blocks 0 to {len(self.parts.layers) - 1}",
                fix="Use the target that the sidecar names",
            )
        self.device = self.parts.device
        eos = model.generation_config.eos_token_id
        known = eos if isinstance(eos, list) else [eos, tokenizer.eos_token_id]
        self.stop_ids = frozenset(i for i in known if i is not None)

    def check_length(self, n_tokens: int) -> None:
        """Refuse a sequence that does not fit the context window."""
        if n_tokens > self.parts.context:
            raise NLAError(
                f"The text has {n_tokens} tokens",
                why=f"The target's context holds {self.parts.context}",
                fix="Shorten the text, or split it into several prompts",
            )

    @torch.inference_mode()
    def trace(
        self,
        sequences: Sequence[Sequence[int]],
        *,
        top_k: int = 5,
        batch_tokens: int | None = None,
        predict_at: Sequence[Sequence[int]] | None = None,
    ) -> list[Trace]:
        """Run the target over token sequences; batches of similar length, results in order.

        ``predict_at`` names the positions of each sequence whose predictions are wanted: the head
        costs a fifth of the pass. Elsewhere they are then zero, and the surprisal of what follows
        is NaN.
        Raises NLAError for an empty or an overlong sequence.
        """
        for ids in sequences:
            self.check_length(len(ids))
            if not ids:
                raise NLAError(
                    "Cannot trace an empty text", why="It has no tokens", fix="Give it some text"
                )
        traces: dict[int, Trace] = {}
        budget = batch_tokens or tokens_at_once(self.device)
        for batch in by_length([len(ids) for ids in sequences], budget):
            width = len(sequences[batch[0]])
            traces.update(self._trace_batch(sequences, batch, width, top_k, predict_at))
        return [traces[i] for i in range(len(sequences))]

    def _trace_batch(
        self,
        sequences: Sequence[Sequence[int]],
        batch: list[int],
        width: int,
        top_k: int,
        predict_at: Sequence[Sequence[int]] | None,
    ) -> dict[int, Trace]:
        ids = torch.full((len(batch), width), self.tokenizer.pad_token_id)
        for row, i in enumerate(batch):
            ids[row, : len(sequences[i])] = torch.tensor(sequences[i])
        caught: list[Tensor] = []
        mine = threading.get_ident()  # others may be using the same model

        def catch(_module: Any, _args: Any, output: Any) -> None:
            if threading.get_ident() == mine:
                caught.append(output[0] if isinstance(output, tuple) else output)

        handle = self.parts.layers[self.layer].register_forward_hook(catch)
        try:
            last = self.parts.decoder(input_ids=ids.to(self.device), use_cache=False)
        finally:
            handle.remove()
        asked = [
            torch.tensor(range(len(sequences[i])) if predict_at is None else predict_at[i]).long()
            for i in batch
        ]
        rows = torch.cat([torch.full((len(a),), row) for row, a in enumerate(asked)])
        places = torch.cat(asked)
        following = ids[rows, (places + 1).clamp(max=width - 1)]  # after the last one, anything
        final = last.last_hidden_state
        after = final[rows.to(final.device), places.to(final.device)]
        found = predict(self.parts, after, following, top_k).split([len(a) for a in asked])
        return {
            i: _trace(caught[0][row, : len(sequences[i])], asked[row], found[row])
            for row, i in enumerate(batch)
        }

    @torch.inference_mode()
    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Answer]:
        """Continue each prompt (token ids ending where the assistant writes). Left-padded batch."""
        for prompt in prompts:
            self.check_length(len(prompt) + max_new_tokens)
        if not prompts or max_new_tokens <= 0:
            return [Answer((), "length") for _ in prompts]
        width = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), width), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        first = self.parts.decoder(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True
        )
        prompted = Prompted(
            range(len(prompts)),
            first.past_key_values,
            self.parts.logits(first.last_hidden_state[:, -1]),
            mask,
            positions[:, -1] + 1,
        )
        answers: dict[int, Answer] = {}
        for done in decode(
            self.model,
            once(prompted),
            len(prompts),
            stop_ids=self.stop_ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seeds=seeds,
            cancelled=cancelled,
        ):
            answers[done.row] = Answer(done.ids, "stop" if done.stopped else "length")
        return [answers[row] for row in range(len(prompts))]


def _trace(hidden: Tensor, places: Tensor, found: Predictions) -> Trace:
    """Of one sequence: ``hidden`` ``[T, d_model]``, and what was found after ``places``."""
    length, k = len(hidden), found.ids.shape[1]
    surprisal = torch.full((length + 1,), float("nan"))  # one more: nothing is known to follow
    surprisal[places + 1] = found.surprisal
    top_ids, top_probs = torch.zeros(length, k, dtype=torch.long), torch.zeros(length, k)
    top_ids[places], top_probs[places] = found.ids, found.probs
    return Trace(hidden.float().cpu(), surprisal[:length], top_ids, top_probs)
