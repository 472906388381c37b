"""Where the time of a run goes: the same explainer and encoder, with clocks around their parts.

Knows which calls belong to the target, the AV, the AR and the encoder. Knows nothing of corpora.
The decision a reader would question: what is left of the whole is called writing. It is everything
that is done to rows and files, and no clock has to stand around each of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from nla_core.embed import Embedder
from nla_core.explain import Explainer
from precompute.benches.flops import Spent, clock

PARTS = ("target", "av", "ar", "embedding", "writing")


@dataclass(slots=True)
class Meter:
    """Seconds by part, and how many tokens each of the models went through or wrote.

    ``answers`` are a part of the target's seconds.
    """

    device: torch.device
    spent: dict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    text_lengths: list[int] = field(default_factory=list)  # of the AV, in tokens, row by row
    whole: Spent = field(default_factory=Spent)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        with clock(self.device) as taken:
            yield
        self.spent[name].wall_s += taken.wall_s
        self.spent[name].cpu_s += taken.cpu_s

    @contextmanager
    def all(self) -> Iterator[None]:
        """Around a whole run; afterwards ``spent`` holds what is left as writing."""
        with clock(self.device) as self.whole:
            yield
        known = [self.spent[name] for name in PARTS[:-1]]
        self.spent["writing"] = Spent(
            self.whole.wall_s - sum(s.wall_s for s in known),
            self.whole.cpu_s - sum(s.cpu_s for s in known),
        )

    def explainer(self, honest: Explainer) -> Explainer:
        """One that does the same and is timed."""
        loaded = honest.loaded
        parts: dict[str, Any] = {
            "target": _Target(loaded.target, self),
            "verbalizer": _Verbalizer(loaded.verbalizer, self),
            "reconstructor": _Reconstructor(loaded.reconstructor, self),
        }
        return Explainer(replace(loaded, **parts))

    def embedder(self, honest: Embedder) -> Embedder:
        """One that does the same and is timed."""
        return _Embedder(honest, self)


class _Timed:
    """Everything that is not timed is asked of the honest part."""

    def __init__(self, honest: Any, meter: Meter) -> None:
        self._honest, self._meter = honest, meter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)


class _Target(_Timed):
    def answer(self, *args: Any, **options: Any) -> Any:
        with self._meter.part("target"), self._meter.part("answers"):
            answers = self._honest.answer(*args, **options)
        self._meter.tokens["answers"] += sum(len(answer.ids) for answer in answers)
        return answers

    def trace(self, sequences: Sequence[Sequence[int]], **options: Any) -> Any:
        self._meter.tokens["target"] += sum(map(len, sequences))
        with self._meter.part("target"):
            return self._honest.trace(sequences, **options)


class _Verbalizer(_Timed):
    def verbalize(self, *args: Any, **options: Any) -> Iterator[Any]:
        texts = iter(self._honest.verbalize(*args, **options))
        lengths: dict[int, int] = {}
        while True:
            with self._meter.part("av"):
                text = next(texts, None)
            if text is None:
                break
            self._meter.tokens["av"] += text.n_tokens
            lengths[text.row] = text.n_tokens
            yield text
        self._meter.text_lengths += [lengths[row] for row in sorted(lengths)]


class _Reconstructor(_Timed):
    def reconstruct(self, *args: Any, **options: Any) -> Any:
        with self._meter.part("ar"):
            return self._honest.reconstruct(*args, **options)


class _Embedder:
    def __init__(self, honest: Embedder, meter: Meter) -> None:
        self._honest, self._meter = honest, meter
        self.name, self.dimension = honest.name, honest.dimension

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder`."""
        with self._meter.part("embedding"):
            return self._honest.embed(texts)


def run_metered(
    plan: Any, out: Any, explainer: Explainer, embedder: Embedder
) -> tuple[Meter, dict[str, Any]]:
    """``precompute run`` of ``plan`` with loaded models; the meter, and what the run returns."""
    from precompute.run import execute

    meter = Meter(explainer.loaded.verbalizer.parts.device)
    timed, encoder = meter.explainer(explainer), meter.embedder(embedder)
    with meter.all():
        result = execute(plan, out, lambda: timed, embedder=encoder)
    return meter, result
