"""The stages of a reading, each on a fixed amount of work, and what that work asks of a machine.

Knows what goes through which model: the target over contexts, the AV's prompts, its steps, the AR
over texts. Knows neither clocks nor rates. The decision a reader would question: decoding is taken
by itself, by subtracting nothing. It runs from prompts that are already in the cache, so that its
steps are compared with the floor of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nla_core.nla.decoding import decode, once
from nla_core.nla.injection import scale_for_injection
from nla_core.nla.pair import LoadedPair
from nla_core.nla.reconstructor import encode_texts
from nla_core.nla.verbalizer import LocalVerbalizer
from precompute.benches.flops import Weights
from precompute.testset import TestSet

CONTEXTS = 32


@dataclass(slots=True)
class Work:
    """What ``units`` of something ask for, pass by pass."""

    units: int
    passes: list[tuple[float, float]] = field(default_factory=list)  # (GFLOP, GB)

    def floor(self, gflop_per_s: float, gbyte_per_s: float) -> float:
        """Seconds at these rates, if products and reading overlap perfectly."""
        return sum(max(f / gflop_per_s, b / gbyte_per_s) for f, b in self.passes)

    def bound_by(self, gflop_per_s: float, gbyte_per_s: float) -> str:
        """``arithmetic`` or ``memory``, whichever takes longer all in all."""
        arithmetic = sum(self.passes_gflop) / gflop_per_s
        return "arithmetic" if arithmetic >= sum(self.passes_gbyte) / gbyte_per_s else "memory"

    @property
    def passes_gflop(self) -> list[float]:
        return [f for f, _ in self.passes]

    @property
    def passes_gbyte(self) -> list[float]:
        return [b for _, b in self.passes]


@dataclass(frozen=True, slots=True)
class Stage:
    """``run()`` does the work and says what it was."""

    name: str
    run: Callable[[], Work]


@dataclass(frozen=True, slots=True)
class Material:
    """A pair and what it is given: raw vectors ``[n, d_model]``, texts, contexts as token ids."""

    loaded: LoadedPair
    vectors: Tensor
    texts: Sequence[str]
    contexts: Sequence[Sequence[int]]
    max_new_tokens: int

    @classmethod
    def of(cls, loaded: LoadedPair, tests: TestSet, n: int, max_new_tokens: int) -> Material:
        """The first ``n`` test vectors, their labels, and the longest contexts of some prompts."""
        rows = tests.rows
        longest = rows.loc[rows.groupby("prompt_id", sort=False)["position"].idxmax()]
        return cls(
            loaded,
            tests.hidden[:n],
            rows["label"].iloc[:n].tolist(),
            [list(ids) for ids in longest["token_ids"].head(CONTEXTS)],
            max_new_tokens,
        )


@dataclass(frozen=True, slots=True)
class Costs:
    """What a model asks for: a position, a next token, a pass, a cached position."""

    position: float  # GFLOP
    logits: float  # GFLOP
    blocks: float  # GB
    head: float  # GB
    cached: float  # GB

    @classmethod
    def of(cls, model: object, itemsize: int | None = None) -> Costs:
        """Of a loaded model; ``itemsize``: as if each of its numbers took so many bytes."""
        from nla_core.nla.families import parts_of

        parts, weights = parts_of(model), Weights.of(model)
        weights_size = itemsize or parts.product_dtype.itemsize
        states_size = itemsize or parts.dtype.itemsize
        config = parts.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or parts.d_model // config.num_attention_heads
        return cls(
            2 * weights.blocks / 1e9,
            2 * weights.head / 1e9,
            weights_size * weights.blocks / 1e9,
            weights_size * weights.head / 1e9,
            states_size * 2 * heads * width * len(parts.layers) / 1e9,
        )

    def of_pass(self, positions: int, logits: int, cached: int = 0) -> tuple[float, float]:
        """(GFLOP, GB) of one pass over so many positions, with so many cached ones looked at."""
        return (
            self.position * positions + self.logits * logits,
            self.blocks + (self.head if logits else 0) + self.cached * cached,
        )


def extract(material: Material) -> Stage:
    """The target over contexts: vectors, surprisals and next tokens everywhere. A unit: a token."""
    target, costs = material.loaded.target, Costs.of(material.loaded.target.model)

    def run() -> Work:
        target.trace(material.contexts)
        n = sum(map(len, material.contexts))
        return Work(n, [costs.of_pass(n, n)])

    return Stage("extract", run)


def prefill(material: Material) -> Stage:
    """The AV's prompt behind the shared prefix. A unit: a vector."""
    return prefill_of(material.loaded.verbalizer, material.vectors, material.max_new_tokens)


def prefill_of(verbalizer: LocalVerbalizer, vectors: Tensor, _max_new_tokens: int) -> Stage:
    """`prefill` of any verbalizer over ``[n, d_model]`` vectors."""
    scaled = scale_for_injection(vectors, verbalizer.sidecar.injection_scale)
    slot, costs = verbalizer.slot, Costs.of(verbalizer.model)
    own, n = 1 + len(slot.suffix_ids) + len(slot.prefill_ids), len(scaled)

    def run() -> Work:
        verbalizer._prefill(range(n), scaled)
        return Work(n, [costs.of_pass(n * own, n, len(slot.prefix_ids))])

    return Stage("prefill", run)


def decoding(material: Material) -> Stage:
    """The AV's steps from a filled cache, rows leaving as they end. A unit: a token."""
    return decoding_of(material.loaded.verbalizer, material.vectors, material.max_new_tokens)


def decoding_of(verbalizer: LocalVerbalizer, vectors: Tensor, max_new_tokens: int) -> Stage:
    """`decoding` of any verbalizer over ``[n, d_model]`` vectors."""
    scaled = scale_for_injection(vectors, verbalizer.sidecar.injection_scale)
    slot, costs, n = verbalizer.slot, Costs.of(verbalizer.model), len(scaled)
    prompt = len(slot.prefix_ids) + 1 + len(slot.suffix_ids) + len(slot.prefill_ids)
    filled = verbalizer._prefill(range(n), scaled)
    shared = 0 if filled.prefix is None else len(slot.prefix_ids)

    def run() -> Work:
        # The plain layers of the prompt are only read: the loop moves their rows into its own.
        cache = type(filled.cache)(config=verbalizer.parts.config)
        for index, layer in enumerate(filled.cache.layers):
            cache.update(layer.keys, layer.values, index)
        lengths = [
            len(done.ids)
            for done in decode(
                verbalizer.model,
                once(replace(filled, cache=cache)),
                n,
                stop_ids=verbalizer.stop_ids,
                max_new_tokens=max_new_tokens,
                temperature=0.0,
                seeds=[],
                is_complete=verbalizer._is_complete,
            )
        ]
        work = Work(sum(lengths))
        for step in range(1, max(lengths)):  # the token of the last step is not fed back
            rows = sum(length > step for length in lengths)
            looked_at = rows * (prompt - shared + step) + shared
            work.passes.append(costs.of_pass(rows, rows, looked_at))
        return work

    return Stage("decode", run)


def scoring(material: Material) -> Stage:
    """The AR over texts. A unit: a token, the template's included."""
    reconstructor = material.loaded.reconstructor
    _, last = encode_texts(reconstructor.tokenizer, reconstructor.template, material.texts)
    n, costs = int((last + 1).sum()), Costs.of(reconstructor.model)

    def run() -> Work:
        reconstructor.reconstruct(material.texts)
        return Work(n, [costs.of_pass(n, 0)])

    return Stage("ar", run)


def whole(material: Material) -> Stage:
    """AV and AR together, as a run does it. A unit: a reading."""
    loaded, n = material.loaded, len(material.vectors)
    parts = prefill(material), decoding(material)
    passes = [p for stage in parts for p in _silently(stage).passes]

    def run() -> Work:
        texts = list(
            loaded.verbalizer.verbalize(
                material.vectors, seeds=[0] * n, max_new_tokens=material.max_new_tokens
            )
        )
        written = [text.text for text in texts]
        loaded.reconstructor.reconstruct(written)
        _, last = encode_texts(loaded.tokenizer, loaded.reconstructor.template, written)
        ar = Costs.of(loaded.reconstructor.model).of_pass(int((last + 1).sum()), 0)
        return Work(n, [*passes, ar])

    return Stage("reading", run)


def _silently(stage: Stage) -> Work:
    with torch.inference_mode():
        return stage.run()


STAGES: dict[str, Callable[[Material], Stage]] = {
    "extract": extract,
    "prefill": prefill,
    "decode": decoding,
    "ar": scoring,
    "reading": whole,
}
