"""From a language model's answers to labels: asked once, asked again, replaced.

Knows that an unusable answer gets one more try and then the structured label. Knows nothing of how
a model is reached. The decision a reader would question: a replaced label instead of a missing one,
because dropping the vectors that a teacher stumbles over would bias what is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from precompute.train.teachers.base import Label, LabelRequest
from precompute.train.teachers.structured import StructuredTeacher
from precompute.train.teachers.wording import cleaned

TRIES = 2

Ask = Callable[[Sequence[LabelRequest], int], Sequence[str]]
"""Answers to requests, in order; the second argument counts the tries from 0."""


def labels_from(
    requests: Sequence[LabelRequest], ask: Ask, *, name: str, stand_in: StructuredTeacher
) -> list[Label]:
    """One label a request: the cleaned answer, or the stand-in's where two answers were empty."""
    labels: dict[int, Label] = {}
    for attempt in range(TRIES):
        open_rows = [row for row in range(len(requests)) if row not in labels]
        if not open_rows:
            break
        answers = ask([requests[row] for row in open_rows], attempt)
        for row, answer in zip(open_rows, answers, strict=True):
            if (text := cleaned(answer)) is not None:
                labels[row] = Label(text, name)
    left = [row for row in range(len(requests)) if row not in labels]
    replaced = stand_in.label([requests[row] for row in left])
    return [labels.get(row) or replaced[left.index(row)] for row in range(len(requests))]
