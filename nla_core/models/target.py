"""The frozen target model: its answers, and what it holds and expects at every token.

Block K's output is ``hidden_states[K+1]`` in Hugging Face's count, taken by a hook. Batches are
padded on the right without an attention mask: in a causal model that is exact for all positions
before the padding, and it takes attention's fast path. Predictions are worked out in blocks of the
vocabulary, so that no ``[tokens, vocabulary]`` matrix is ever whole in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from nla_core.errors import NLAError
from nla_core.models.cpu import VOCABULARY, PackedLinear, use_grouped_attention
from nla_core.models.decoding import Prompted, decode, once
from nla_core.models.families import Parts, parts_of

CPU_TOKENS, DEVICE_TOKENS = 512, 16_384


def tokens_at_once(device: torch.device) -> int:
    """Tokens of one batch, padding included, that ``device`` works through well."""
    return CPU_TOKENS if device.type == "cpu" else DEVICE_TOKENS


def by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of at most ``budget`` tokens when padded, the longest first.

    A sequence longer than the budget is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    while order:
        batch = [order.pop()]
        width = lengths[batch[0]]
        while order and (len(batch) + 1) * width <= budget:
            batch.append(order.pop())
        yield batch


Top = tuple[Tensor, Tensor]
"""Logits ``[n, k]``, the likeliest first, and their token ids."""
ROWS = 512  # positions at a time; of a vocabulary of 262,144 tokens half a gigabyte


@dataclass(frozen=True, slots=True)
class Predictions:
    """For each of ``n`` positions, on the CPU."""

    ids: Tensor  # [n, k] likeliest next tokens, the likeliest first
    probs: Tensor  # [n, k] float32
    surprisal: Tensor  # [n] float32 nats, of the token that followed

    def split(self, sizes: Sequence[int]) -> list[Predictions]:
        """The same in pieces of so many positions."""
        pieces = (part.split(list(sizes)) for part in (self.ids, self.probs, self.surprisal))
        return [Predictions(*piece) for piece in zip(*pieces, strict=True)]


def predict(parts: Parts, states: Tensor, following: Tensor, k: int) -> Predictions:
    """Read the head after ``states`` ``[n, d_model]``; ``following`` ``[n]`` is what came next.

    ``k`` is cut to the size of the vocabulary.
    """
    found = [
        _after(parts, rows, came, k)
        for rows, came in zip(states.split(ROWS), following.split(ROWS), strict=True)
    ]
    return Predictions(*(torch.cat(rows).cpu() for rows in zip(*found, strict=True)))


def _after(
    parts: Parts, states: Tensor, following: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    totals = []
    best: Top | None = None
    came: Tensor | float = 0.0
    for start, logits in _blocks(parts, states):
        logits, place = logits.float(), following.to(logits.device) - start
        # Faster on a CPU than logsumexp, which goes through the logits once for each of its steps.
        totals.append(logits[:, 0] - logits.log_softmax(-1)[:, 0])
        best = _likeliest(best, logits, start, k)
        inside = (place >= 0) & (place < logits.shape[-1])
        mine = logits.gather(1, place.clamp(0, logits.shape[-1] - 1)[:, None])[:, 0]
        came = came + mine.where(inside, 0.0)
    assert best is not None, "a head has at least one block"
    total = torch.stack(totals, dim=-1).logsumexp(-1)
    return best[1], (best[0] - total[:, None]).exp(), total - came


def _likeliest(before: Top | None, logits: Tensor, start: int, k: int) -> Top:
    """The ``k`` likeliest of those found ``before`` and of a block that begins at ``start``."""
    if before is None or before[0].shape[1] < k:  # the first block, or blocks of few tokens
        mine = logits.topk(min(k, logits.shape[-1]), dim=-1)
        found = mine.values, mine.indices + start
        return found if before is None else _merged(before, found, k)
    values, ids = before
    rows = (logits.amax(-1) > values[:, -1]).nonzero()[:, 0]
    mine = logits[rows].topk(min(k, logits.shape[-1]), dim=-1)
    values[rows], ids[rows] = _merged(
        (values[rows], ids[rows]), (mine.values, mine.indices + start), k
    )
    return values, ids


def _merged(one: Top, other: Top, k: int) -> Top:
    values, ids = (torch.cat(both, dim=-1) for both in zip(one, other, strict=True))
    best = values.topk(min(k, values.shape[-1]), dim=-1)
    return best.values, ids.gather(1, best.indices)


def _blocks(parts: Parts, states: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first token, logits ``[n, block]``) after ``states`` for the vocabulary in its order."""
    head = parts.head
    if isinstance(head, PackedLinear):
        for start, part in head.pieces(states):
            yield start, parts.capped(part)
        return
    if type(head) is not nn.Linear or hasattr(head, "_hf_hook") or parts.device.type != "cpu":
        yield 0, parts.logits(states)
        return
    weight, bias = head.weight, cast(Tensor | None, head.bias)
    for start in range(0, len(weight), VOCABULARY):
        block = slice(start, start + VOCABULARY)
        part = linear(states, weight[block], None if bias is None else bias[block])
        yield start, parts.capped(part)


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
