"""The teacher without a language model: labels made from the text and the target's predictions.

Knows how to hand a request to labels.py. Knows nothing of the wording. The decision a reader would
question: it draws field lengths and omissions from the request's own seed, so that a label does not
depend on which requests came before it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from precompute.train.labels import Idf, structured_label
from precompute.train.teachers.base import STRUCTURED, Label, LabelRequest


@dataclass(frozen=True, slots=True)
class StructuredTeacher:
    """See Teacher; ``idf`` is fitted on the whole corpus."""

    idf: Idf

    @property
    def name(self) -> str:
        return STRUCTURED

    def config(self) -> dict[str, Any]:
        return {"name": self.name}

    def label(self, requests: Sequence[LabelRequest]) -> list[Label]:
        return [Label(self._text(request), self.name) for request in requests]

    def forecast(self, prefix_characters: Sequence[int]) -> str | None:
        return None

    def report(self) -> str | None:
        return None

    def _text(self, request: LabelRequest) -> str:
        return structured_label(
            request.pieces,
            request.top_tokens,
            request.top_probs,
            self.idf,
            rng=random.Random(request.seed),
        )
