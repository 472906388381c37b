"""From an edit to a direction, and the target with it added to block K's output."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from nla_core import metrics
from nla_core.errors import NLAError
from nla_core.models.decoding import Prompted, decode, once
from nla_core.models.target import Target
from nla_core.steering.experiment import Edit
from nla_core.steering.outcome import Fidelity

if TYPE_CHECKING:
    from nla_core.explain import Explainer
    from nla_core.models.reconstructor import Reconstructor

LEAST_CHANGE = 1e-3
"""Of the length of a rebuilt vector; less is rounding."""


def fidelity(explainer: Explainer, texts: Sequence[str], hidden: Tensor) -> list[Fidelity]:
    """Of each text against ``hidden`` ``[d_model]``, block K's output at the token.

    Raises NLAError where ``hidden`` is zero, NaN or infinite.
    """
    reference = explainer.pair.reference
    scores = metrics.score(
        explainer.loaded.reconstructor.reconstruct(texts),
        hidden.expand(len(texts), -1),
        mean=reference.mean,
        denominator=reference.rawvar,
    )
    return [
        Fidelity(float(scores.fve[i]), float(scores.cosine[i]), float(scores.centred_cosine[i]))
        for i in range(len(texts))
    ]


def edit_direction(reconstructor: Reconstructor, edits: Sequence[Edit]) -> Tensor:
    """``[d_model]`` unit vector: the mean of AR(edited) − AR(original) over the edits.

    Raises NLAError where the rebuilt vectors do not differ, or are not finite.
    """
    texts = [*(edit.edited for edit in edits), *(edit.original for edit in edits)]
    rebuilt = reconstructor.reconstruct(texts)
    metrics.check_vectors(rebuilt, name="rebuilt vector")
    scaled = metrics.scale_to_sqrt_d(rebuilt)
    change = (scaled[: len(edits)] - scaled[len(edits) :]).mean(0)
    if float(change.norm()) < LEAST_CHANGE * scaled.shape[-1] ** 0.5:
        raise NLAError(
            "The edit changes nothing that the reconstructor sees",
            why="both texts give the same vector, so there is no direction between them",
            fix="Change words that carry meaning, such as the topic or the expected next words",
        )
    return torch.nn.functional.normalize(change, dim=-1)


def random_direction(d_model: int, seed: int) -> Tensor:
    """``[d_model]`` unit vector, isotropic; the same for the same seed."""
    drawn = torch.randn(d_model, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


BATCH_TOKENS = 4096


class PushedCache(DynamicCache):
    """Keys and values of ``n`` rows, and what is added to each of their new tokens ``[n, d]``."""

    added: Tensor

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.added = self.added[indices]

    def rows_kept(self, order: Sequence[int]) -> None:
        """The rows that are left of a batch, told by `nla_core.models.decoding.keep_rows`."""
        self.added = self.added[list(order)]


@dataclass(frozen=True, slots=True)
class Pushed:
    """``n`` rows after the prompt: their cache and next-token logits ``[n, vocab]``."""

    cache: PushedCache
    logits: Tensor


@dataclass(slots=True)
class Pusher:
    """One prompt of a target, to be continued with vectors added at ``positions`` of it.

    ``every`` adds them at new tokens as well.
    """

    target: Target
    ids: Sequence[int]
    positions: Sequence[int]
    every: bool
    _prefix: DynamicCache | None = field(default=None, init=False)

    @property
    def first(self) -> int:
        """Tokens before this one are the same for every row."""
        return min(self.positions)

    @property
    def batch_rows(self) -> int:
        """How many rows a prefill may have."""
        return max(1, BATCH_TOKENS // (len(self.ids) - self.first))

    @torch.inference_mode()
    def prefill(self, vectors: Tensor) -> Pushed:
        """``vectors`` ``[n, d_model]`` are added as they are, one a row; zeros change nothing."""
        parts = self.target.parts
        rest = torch.tensor([self.ids[self.first :]], device=parts.device).expand(len(vectors), -1)
        added = torch.zeros(len(vectors), rest.shape[1], parts.d_model)
        added[:, [p - self.first for p in self.positions]] = vectors[:, None].float()
        added = added.to(parts.device)
        cache = self._copy_of(self._before(), vectors)
        if self.first:
            DynamicCache.batch_repeat_interleave(cache, len(vectors))
        with adding(self.target, lambda: added):
            states = parts.decoder(
                input_ids=rest, past_key_values=cache, use_cache=True
            ).last_hidden_state
        return Pushed(cache, parts.logits(states[:, -1]))

    @torch.inference_mode()
    def chance(self, pushed: Pushed, word: Sequence[int]) -> Tensor:
        """``[n]`` probability that the tokens ``word`` come next: the product of theirs."""
        logprob = torch.log_softmax(pushed.logits.float(), -1)[:, word[0]]
        if len(word) > 1:
            n = len(pushed.logits)
            ids = torch.tensor([list(word)], device=self.target.device).expand(n, -1)
            cache = self._copy_of(pushed.cache, pushed.cache.added)
            with adding(self.target, lambda: cache.added[:, None] if self.every else None):
                states = self.target.parts.decoder(
                    input_ids=ids[:, :-1], past_key_values=cache, use_cache=True
                ).last_hidden_state
            flat = self.target.parts.logits(states.reshape(-1, states.shape[-1]))
            each = torch.log_softmax(flat.float(), -1).reshape(*states.shape[:2], -1)
            came = ids[:, 1:, None].to(each.device)
            logprob = logprob + each.gather(-1, came)[..., 0].sum(-1)
        return logprob.exp().cpu()

    def texts(
        self,
        vectors: Tensor,
        *,
        seeds: Sequence[int],
        new_tokens: int,
        temperature: float,
        cancelled: Callable[[], bool],
    ) -> list[str]:
        """One continuation a row. Rows with the same vector share its prefill.

        Raises Cancelled between decode steps.
        """
        distinct, owner = vectors.unique(dim=0, return_inverse=True)
        pushed = self.prefill(distinct)
        owner = owner.cpu()  # an index that serves the layers of a split model, too
        pushed.cache.batch_select_indices(owner)
        made: dict[int, str] = {}
        with adding(self.target, lambda: pushed.cache.added[:, None] if self.every else None):
            for done in decode(
                self.target.model,
                once(Prompted(range(len(owner)), pushed.cache, pushed.logits[owner])),
                len(owner),
                stop_ids=self.target.stop_ids,
                max_new_tokens=new_tokens,
                temperature=temperature,
                seeds=seeds,
                cancelled=cancelled,
            ):
                made[done.row] = self.target.tokenizer.decode(done.ids, skip_special_tokens=True)
        return [made[row] for row in range(len(vectors))]

    @torch.inference_mode()
    def _before(self) -> DynamicCache:
        if self._prefix is None:
            self._prefix = DynamicCache(config=self.target.parts.config)
            if self.first:
                ids = torch.tensor([self.ids[: self.first]], device=self.target.device)
                self.target.parts.decoder(
                    input_ids=ids, past_key_values=self._prefix, use_cache=True
                )
        return self._prefix

    def _copy_of(self, cache: DynamicCache, vectors: Tensor) -> PushedCache:
        copy = PushedCache(config=self.target.parts.config)
        copy.added = vectors.float().to(self.target.device)
        for index, layer in enumerate(cache.layers):
            if layer.is_initialized:
                copy.update(layer.keys, layer.values, index)
        return copy


@contextmanager
def adding(target: Target, what: Callable[[], Tensor | None]) -> Iterator[None]:
    """Add ``what()`` (``[n, t, d]``, or t = 1 for all tokens of a call) to block K's output."""
    mine = threading.get_ident()

    def add(_module: Any, _args: Any, output: Any) -> Any:
        extra = what() if threading.get_ident() == mine else None
        if extra is None:
            return output
        if isinstance(output, tuple):
            return (output[0] + extra.to(output[0]), *output[1:])
        return output + extra.to(output)

    handle = target.parts.layers[target.layer].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
