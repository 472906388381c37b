"""The AV: residual-stream vectors in, explanations out, many at a time.

Knows the shared prompt prefix, the injection of vectors and how a text ends. Knows nothing of
scores. The decision a reader would question: keys and values of the prefix are computed once per
loaded AV and shared by all rows; a cache keyed by token ids would mix up vectors, so nothing
after the marker is ever shared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from nla_core.models.cpu import SharedPrefix, shares_prefix, use_grouped_attention
from nla_core.models.decoding import Prompted, decode
from nla_core.models.families import parts_of
from nla_core.models.injection import Slot, build_slot, scale_for_injection
from nla_core.models.sidecar import Sidecar
from nla_core.schema import Finish

OPEN_TAG, CLOSE_TAG = "<explanation>", "</explanation>"
TAIL_TOKENS = 12  # enough tokens to hold a close tag in any tokenizer


@dataclass(frozen=True, slots=True)
class Verbalization:
    """One explanation. ``row`` is its vector's index; ``cut`` texts are kept and flagged.

    ``token_ids`` are the tokens as they were drawn, without prompt, prefill and stop token: what
    training on samples needs, since text does not lead back to them.
    """

    row: int
    text: str
    finish: Finish
    n_tokens: int
    token_ids: tuple[int, ...] = ()


class Verbalizer(Protocol):
    """Anything that can put vectors into words (contract test: tests/models/test_verbalizer.py)."""

    def verbalize(
        self,
        vectors: Tensor,
        *,
        seeds: Sequence[int],
        temperature: float = 0.0,
        max_new_tokens: int = 80,
        batch_size: int = 64,
        cancelled: Callable[[], bool] = lambda: False,
        wanted: Callable[[int], bool] = lambda _: True,
    ) -> Iterator[Verbalization]:
        """Explain ``[n, d_model]`` raw vectors; yields rows as they finish.

        Rows that are no longer ``wanted`` are given up between decode steps and never yielded.

        Raises NLAError for zero, NaN or infinite vectors, Cancelled between decode steps.
        """
        ...


class LocalVerbalizer:
    """An AV in this process, with its own batched decoding."""

    def __init__(self, model: Any, tokenizer: Any, sidecar: Sidecar) -> None:
        self.model, self.tokenizer, self.sidecar = model, tokenizer, sidecar
        use_grouped_attention(model)
        self.parts = parts_of(model)
        self.slot: Slot = build_slot(sidecar, tokenizer)
        self.stop_ids = frozenset(
            i for i in (tokenizer.eos_token_id, tokenizer.pad_token_id) if i is not None
        )
        self._prefix: DynamicCache | None = None
        self._making_prefix = threading.Lock()

    def verbalize(
        self,
        vectors: Tensor,
        *,
        seeds: Sequence[int],
        temperature: float = 0.0,
        max_new_tokens: int = 80,
        batch_size: int = 64,
        cancelled: Callable[[], bool] = lambda: False,
        wanted: Callable[[int], bool] = lambda _: True,
    ) -> Iterator[Verbalization]:
        """See Verbalizer. A row's text depends on its vector and seed, not on its batch.

        ``batch_size`` rows are at work at a time; when some finish, the next take their places.
        """
        scaled = scale_for_injection(vectors, self.sidecar.injection_scale)
        waiting = iter(range(len(scaled)))

        def feed(free: int) -> Prompted | None:
            rows = list(islice((row for row in waiting if wanted(row)), free))
            return self._prefill(rows, scaled[rows]) if rows else None

        for done in decode(
            self.model,
            feed,
            batch_size,
            stop_ids=self.stop_ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seeds=seeds,
            is_complete=self._is_complete,
            cancelled=cancelled,
            wanted=wanted,
        ):
            text = self.tokenizer.decode(
                [*self.slot.prefill_ids, *done.ids], skip_special_tokens=True
            )
            body, closed = strip_tags(text)
            finish = Finish.CLOSED if closed else Finish.CUT
            yield Verbalization(done.row, body, finish, len(done.ids), done.ids)

    @torch.inference_mode()
    def _prefill(self, rows: Sequence[int], scaled: Tensor) -> Prompted:
        """``rows`` after the whole prompt; ``scaled`` ``[n, d_model]`` are their vectors."""
        device, dtype = self.parts.device, self.parts.dtype
        cache = self._prefix_cache(len(rows))
        after = [*self.slot.suffix_ids, *self.slot.prefill_ids]
        suffix = self.parts.embed(torch.tensor(after, device=device)).expand(len(rows), -1, -1)
        inputs = torch.cat([scaled[:, None].to(device, dtype), suffix], dim=1)
        states = self.parts.decoder(
            inputs_embeds=inputs, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits, prefix = self.parts.logits(states[:, -1]), self._prefix_of_steps()
        if prefix is None:
            return Prompted(rows, cache, logits)
        positions = torch.full((len(rows),), cache.get_seq_length(), device=device)
        for layer in cache.layers:
            layer.keys, layer.values = (
                part[..., len(self.slot.prefix_ids) :, :] for part in (layer.keys, layer.values)
            )
        return Prompted(rows, cache, logits, positions=positions, prefix=prefix)

    def _prefix_of_steps(self) -> SharedPrefix | None:
        """The prompt before the marker, where steps can look at one copy of it."""
        assert self._prefix is not None
        layers = self._prefix.layers
        if not self.slot.prefix_ids or not shares_prefix(self.model):
            return None
        if not all(type(layer) is DynamicLayer for layer in layers):  # windows of their own
            return None
        return SharedPrefix([one.keys[0] for one in layers], [one.values[0] for one in layers])

    def _prefix_cache(self, n: int) -> DynamicCache:
        """The prompt before the marker for ``n`` rows; they share its memory until they go on."""
        with self._making_prefix:  # whole before another thread sees it
            if self._prefix is None:
                made = DynamicCache(config=self.parts.config)
                if self.slot.prefix_ids:
                    ids = torch.tensor([self.slot.prefix_ids], device=self.parts.device)
                    self.parts.decoder(input_ids=ids, past_key_values=made, use_cache=True)
                self._prefix = made
        shared = copy(self._prefix)
        shared.layers = [copy(layer) for layer in self._prefix.layers]
        if self.slot.prefix_ids:
            for layer in shared.layers:
                layer.keys = layer.keys.expand(n, -1, -1, -1)
                layer.values = layer.values.expand(n, -1, -1, -1)
        return shared

    def _is_complete(self, ids: list[int]) -> bool:
        return CLOSE_TAG in self.tokenizer.decode(ids[-TAIL_TOKENS:])


def strip_tags(text: str) -> tuple[str, bool]:
    """The explanation without its tags, and whether it was closed."""
    body = text.split(OPEN_TAG, 1)[-1]
    body, closed, _ = body.partition(CLOSE_TAG)
    return body.strip(), bool(closed)
