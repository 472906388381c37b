"""Training examples: a vector of the target, and the label that says what it should be read as.

Knows how windows become vectors with labels, and the files they are kept in. Knows nothing of
training. The decision a reader would question: vectors are kept raw in float16 and normalised only
where they are used; attention sinks are left out, because their vectors hold bookkeeping.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nla_core.errors import NLAError
from nla_core.nla.layout import with_answer
from nla_core.nla.target import Target
from nla_core.schema import HIGH_NORM_FACTOR, Section
from precompute.train.corpus import Window
from precompute.train.labels import Idf, structured_label

FIRST_POSITION = 4
"""Raw windows are read from here on; what comes before has no context to label."""
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
    context: str


@dataclass(frozen=True, slots=True)
class Examples:
    """``rows[i]`` describes ``hidden[i]``; hidden is ``[n, d_model]`` float16, raw."""

    rows: pd.DataFrame
    hidden: Tensor

    def save(self, stem: Path) -> None:
        stem.parent.mkdir(parents=True, exist_ok=True)
        self.rows.to_parquet(stem.with_suffix(".parquet"))
        save_file({"hidden": self.hidden.contiguous()}, stem.with_suffix(".safetensors"))

    @classmethod
    def load(cls, stem: Path) -> Examples:
        try:
            rows = pd.read_parquet(stem.with_suffix(".parquet"))
            return cls(rows, load_file(stem.with_suffix(".safetensors"))["hidden"])
        except FileNotFoundError as error:
            raise NLAError(
                f"No training examples at {stem}",
                why=str(error),
                fix="Run `python -m precompute train data` first",
            ) from None


def build_examples(
    target: Target,
    windows: Sequence[Window],
    idf: Idf,
    *,
    per_window: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    chunk: int = 64,
) -> Examples:
    """Trace the windows and label ``per_window`` content positions of each."""
    rng = random.Random(seed)
    rows: list[Example] = []
    kept: list[Tensor] = []
    for start in range(0, len(windows), chunk):
        part = _answered(target, windows[start : start + chunk], seed + start)
        chosen = [_positions(window, per_window, rng) for window in part]
        traces = target.trace([w.ids for w in part], predict_at=chosen)
        norms = torch.cat([t.hidden.norm(dim=-1) for t in traces])
        ceiling = HIGH_NORM_FACTOR * float(norms.median())
        for window, positions, trace in zip(part, chosen, traces, strict=True):
            for position in positions:
                if float(trace.hidden[position].norm()) > ceiling:
                    continue
                seen = window.pieces[: position + 1]
                top = [target.tokenizer.decode([i]) for i in trace.top_ids[position].tolist()]
                rows.append(
                    Example(
                        window.doc_id,
                        window.source,
                        position,
                        window.is_chat,
                        window.ids[position],
                        structured_label(
                            seen, top, trace.top_probs[position].tolist(), idf, rng=rng
                        ),
                        "".join(p.text for p in seen[-80:]),
                    )
                )
                kept.append(trace.hidden[position].half())
        progress(min(start + chunk, len(windows)), len(windows))
    return Examples(pd.DataFrame([asdict(r) for r in rows]), torch.stack(kept))


def _answered(target: Target, windows: Sequence[Window], seed: int) -> list[Window]:
    """The windows, with the target's own seeded answer where one is wanted."""
    asked = [i for i, window in enumerate(windows) if window.wants_answer]
    answers = target.answer(
        [windows[i].ids for i in asked],
        seeds=[seed + i for i in asked],
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
    """Up to ``count`` content positions with some context before them."""
    usable = [
        i
        for i, piece in enumerate(window.pieces)
        if piece.section is Section.CONTENT and piece.text and i >= FIRST_POSITION
    ]
    return sorted(rng.sample(usable, min(count, len(usable))))
