"""Training examples: a vector of the target, and the label that says what it should be read as.

Knows how windows become vectors with labels. Where they are kept is parts.py's business. Knows
nothing of training. The decision a reader would question: attention sinks and the first tokens are
left out, because their vectors hold bookkeeping; what counts as a sink is decided within one chunk
of windows, so that a chunk's examples depend on nothing but the chunk.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from nla_core.errors import NLAError
from nla_core.models.chat import with_answer
from nla_core.models.target import Target
from nla_core.schema import HIGH_NORM_FACTOR, Section
from precompute.train.corpus import Window
from precompute.train.parts import read_parts, replace_parts
from precompute.train.teachers import Label, LabelRequest, Teacher

FIRST_POSITION = 4
"""Raw windows are read from here on; what comes before has no context to label."""
CONTEXT_TOKENS = 80
ANSWER_TOKENS = 64
ANSWER_TEMPERATURE = 0.7


@dataclass(frozen=True, slots=True)
class Example:
    doc_id: str
    source: str
    position: int
    is_chat: bool
    token_id: int
    label: str
    labelled_by: str
    context: str


@dataclass(frozen=True, slots=True)
class Examples:
    """``rows[i]`` describes ``hidden[i]``; hidden is ``[n, d_model]``, raw.

    It is float16, or float32 where a target's values are too large for that.
    """

    rows: pd.DataFrame
    hidden: Tensor

    def save(self, stem: Path) -> None:
        """Write the folder ``stem``, in place of what was there."""
        replace_parts(stem, self.rows, self.hidden)

    @classmethod
    def load(cls, stem: Path) -> Examples:
        """All parts of the folder ``stem``, in order. NLAError if it is missing or damaged."""
        return cls(*read_parts(stem))


def build_examples(
    target: Target, windows: Sequence[Window], teacher: Teacher, *, per_window: int, seed: str
) -> Examples:
    """Trace one chunk of windows and label ``per_window`` content positions of each.

    Depends on its arguments alone. Raises NLAError if the target computes what is not a number.
    """
    rng = random.Random(seed)
    windows = _answered(target, windows, rng)
    chosen = [_positions(window, per_window, rng) for window in windows]
    traces = target.trace([w.ids for w in windows], predict_at=chosen)
    norms = torch.cat([t.hidden.norm(dim=-1) for t in traces])
    ceiling = HIGH_NORM_FACTOR * float(norms.median())
    if not torch.isfinite(norms).all():
        raise NLAError(
            "The target computes vectors that are not numbers",
            why=f"{int((~norms.isfinite()).sum())} of {len(norms)} norms are NaN or infinite",
            fix="Use --dtype float32, or check the target's weights",
        )
    requests: list[LabelRequest] = []
    places: list[tuple[Window, int]] = []
    kept: list[Tensor] = []
    for window, positions, trace in zip(windows, chosen, traces, strict=True):
        for position in positions:
            if float(trace.hidden[position].norm()) > ceiling:
                continue
            top = [target.tokenizer.decode([i]) for i in trace.top_ids[position].tolist()]
            probs = trace.top_probs[position].tolist()
            seen = window.pieces[: position + 1]
            note = None if window.notes is None else window.notes[position]
            requests.append(LabelRequest(seen, tuple(top), tuple(probs), rng.getrandbits(32), note))
            places.append((window, position))
            kept.append(trace.hidden[position])
    labels = teacher.label(requests)
    rows = [asdict(_example(*place, label)) for place, label in zip(places, labels, strict=True)]
    columns = list(Example.__dataclass_fields__)
    hidden = torch.stack(kept) if kept else torch.zeros(0, target.parts.d_model)
    return Examples(pd.DataFrame(rows, columns=columns), as_half(hidden))


def as_half(hidden: Tensor) -> Tensor:
    """``hidden`` in float16, or as it is where that would make infinities of its values."""
    half = hidden.half()
    return half if torch.isfinite(half).all() else hidden


def _example(window: Window, position: int, label: Label) -> Example:
    seen = window.pieces[max(0, position + 1 - CONTEXT_TOKENS) : position + 1]
    return Example(
        doc_id=window.doc_id,
        source=window.source,
        position=position,
        is_chat=window.is_chat,
        token_id=window.ids[position],
        label=label.text,
        labelled_by=label.written_by,
        context="".join(p.text for p in seen),
    )


def _answered(target: Target, windows: Sequence[Window], rng: random.Random) -> list[Window]:
    """The windows, with the target's own seeded answer where one is wanted."""
    asked = [i for i, window in enumerate(windows) if window.wants_answer]
    answers = target.answer(
        [windows[i].ids for i in asked],
        seeds=[rng.getrandbits(32) for _ in asked],
        max_new_tokens=ANSWER_TOKENS,
        temperature=ANSWER_TEMPERATURE,
    )
    result = list(windows)
    for i, answer in zip(asked, answers, strict=True):
        rendered = list(windows[i].ids), list(windows[i].pieces)
        ids, pieces = with_answer(target.tokenizer, rendered, answer.ids)
        result[i] = replace(windows[i], ids=tuple(ids), pieces=tuple(pieces))
    return result


def _positions(window: Window, count: int, rng: random.Random) -> list[int]:
    """Up to ``count`` of the positions that may be labelled, in order."""
    usable = labelable(window)
    return sorted(rng.sample(usable, min(count, len(usable))))


def labelable(window: Window) -> list[int]:
    """Content positions of a window with some context, and where it is annotated, a note."""
    return [
        i
        for i, piece in enumerate(window.pieces)
        if piece.section is Section.CONTENT
        and piece.text
        and i >= FIRST_POSITION
        and (window.notes is None or i in window.notes)
    ]
