"""The teacher without a language model: labels made from the text and the target's predictions.

Knows how to hand a request to labels.py. Knows nothing of the wording. The decision a reader would
question: its configuration names the grammar by a hash of labels.py, so that data half made in one
wording cannot be finished with another because somebody forgot to raise a number.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nla_core.nla.checkpoints import sha256_of
from precompute.train import labels
from precompute.train.labels import Idf, note_label, structured_label
from precompute.train.teachers.base import STRUCTURED, Label, LabelRequest


@dataclass(frozen=True, slots=True)
class StructuredTeacher:
    """See Teacher; ``idf`` is fitted on the whole corpus."""

    idf: Idf

    @property
    def name(self) -> str:
        return STRUCTURED

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "grammar": sha256_of(Path(labels.__file__))[:16]}

    def label(self, requests: Sequence[LabelRequest]) -> list[Label]:
        return [Label(self._text(request), self.name) for request in requests]

    def forecast(self, prefix_characters: Sequence[int]) -> str | None:
        return None

    def report(self) -> str | None:
        return None

    def _text(self, request: LabelRequest) -> str:
        if request.note is not None:
            return note_label(
                request.note,
                request.pieces,
                request.top_tokens,
                request.top_probs,
                rng=random.Random(request.seed),
            )
        return structured_label(
            request.pieces,
            request.top_tokens,
            request.top_probs,
            self.idf,
            rng=random.Random(request.seed),
        )
