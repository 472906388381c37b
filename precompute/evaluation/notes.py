"""What a pair's notes say: retrieval of the written note, beside what the vector itself allows.

One marked token of each annotated text is explained. The sentence embedding of the explanation's
note is ranked against the written notes of all texts; rank 1 is its own. A linear map from the
vector to the embedding of the note, fitted on other texts, is the mark to reach: it shows what is
in the vector, whoever reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nla_core.embed import Embedder
from nla_core.errors import NLAError
from nla_core.metrics import scale_to_sqrt_d
from nla_core.models.target import Target
from precompute.train.examples import Examples
from precompute.train.labels import label_parts
from precompute.train.notes import AnnotatedDocument, is_general, window_of

MAX_TOKENS = 512
RIDGE = 30.0
"""Of the map. Between 10 and 100 the ranks of held-out notes do not change."""
LEAST = 20
"""Texts. Ranks among fewer say nothing."""


@dataclass(frozen=True, slots=True)
class Marked:
    """One token a text: ``hidden`` ``[n, d]`` raw vectors, the written notes, what stood before."""

    hidden: Tensor
    notes: tuple[str, ...]
    contexts: tuple[str, ...]

    @classmethod
    def of(cls, target: Target, documents: Sequence[AnnotatedDocument]) -> Marked:
        """The last mark of each text that lies inside MAX_TOKENS.

        Raises NLAError where fewer than LEAST texts have one.
        """
        windows = [window_of(one, target.tokenizer, MAX_TOKENS) for one in documents]
        marks: list[tuple[int, int, str]] = []
        for i, window in enumerate(windows):
            written = {p: n for p, n in (window.notes or {}).items() if not is_general(n)}
            if written:
                last = list(written.values())[-1]
                marks.append((i, min(p for p, n in written.items() if n == last), last))
        if len(marks) < LEAST:
            raise NLAError(
                f"Only {len(marks)} texts have a note that can be ranked",
                why=f"A rank among fewer than {LEAST} says nothing",
                fix=f"Give more annotated texts, with marks in their first {MAX_TOKENS} tokens",
            )
        ids = [windows[i].ids[: p + 1] for i, p, _ in marks]
        traces = target.trace(ids, predict_at=[[] for _ in ids])
        return cls(
            torch.stack([trace.hidden[-1] for trace in traces]),
            tuple(note for _, _, note in marks),
            tuple("".join(x.text for x in windows[i].pieces[: p + 1]) for i, p, _ in marks),
        )


@dataclass(frozen=True, slots=True)
class NoteMap:
    """A ridge regression from a vector to the sentence embedding of its note.

    ``weight`` ``[d, e]``, ``vector_mean`` ``[d]`` of vectors scaled to √d, ``note_mean`` ``[e]``;
    ``notes`` and ``embeddings`` ``[m, e]`` are the written notes it was fitted on.
    """

    weight: Tensor
    vector_mean: Tensor
    note_mean: Tensor
    notes: tuple[str, ...]
    embeddings: Tensor
    nearest: Tensor  # [n] the note of each training vector
    hidden: Tensor  # [n, d] training vectors, scaled

    @classmethod
    def fit(cls, examples: Examples, embedder: Embedder) -> NoteMap:
        """Fit on annotated examples. Raises NLAError where none of them has a note."""
        notes = [label_parts(text).note for text in examples.rows["label"]]
        usable = [i for i, note in enumerate(notes) if note and not is_general(note)]
        if not usable:
            raise NLAError(
                "No example has a note",
                why="Their labels are of another form",
                fix="Give data that `train data` made from an annotated corpus",
            )
        distinct = {notes[i]: 0 for i in usable}
        distinct = {note: at for at, note in enumerate(distinct)}
        embeddings = torch.from_numpy(embedder.embed(list(distinct)))
        own = torch.tensor([distinct[notes[i]] for i in usable])
        hidden = scale_to_sqrt_d(examples.hidden[usable].float())
        vector_mean, note_mean = hidden.mean(0), embeddings[own].mean(0)
        centred = hidden - vector_mean
        gram = centred.T @ centred + RIDGE * torch.eye(hidden.shape[1])
        weight = torch.linalg.solve(gram, centred.T @ (embeddings[own] - note_mean))
        return cls(weight, vector_mean, note_mean, tuple(distinct), embeddings, own, hidden)

    def predict(self, hidden: Tensor) -> Tensor:
        """``[n, e]``: the embedding that the note of each raw vector should have."""
        return (scale_to_sqrt_d(hidden.float()) - self.vector_mean) @ self.weight + self.note_mean

    def agreement(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """``[n]`` cosines, the mean note removed, of predicted and given embeddings."""
        return torch.cosine_similarity(
            self.predict(hidden) - self.note_mean, embeddings - self.note_mean, dim=-1
        )

    def best_written(self, hidden: Tensor) -> tuple[list[str], Tensor]:
        """For each vector the written note that agrees best with it, and by how much."""
        wanted = torch.nn.functional.normalize(self.predict(hidden) - self.note_mean, dim=-1)
        offered = torch.nn.functional.normalize(self.embeddings - self.note_mean, dim=-1)
        best = (wanted @ offered.T).max(-1)
        return [self.notes[i] for i in best.indices.tolist()], best.values

    def of_nearest_vector(self, hidden: Tensor) -> Tensor:
        """``[n, e]``: the embedding of the note of the nearest training vector, by cosine."""
        wanted = torch.nn.functional.normalize(
            scale_to_sqrt_d(hidden.float()) - self.vector_mean, dim=-1
        )
        bank = torch.nn.functional.normalize(self.hidden - self.vector_mean, dim=-1)
        return self.embeddings[self.nearest[(wanted @ bank.T).argmax(-1)]]


def note_figures(
    marked: Marked,
    texts: Sequence[str],
    embedder: Embedder,
    fitted: NoteMap | None = None,
    others: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Ranks of the written note, for the explanations' notes and for what they are held against.

    ``texts`` are the explanations of ``marked``, in order; ``others`` further readings of the same
    vectors by name (another pair's). Lanes that need ``fitted`` are absent without it.
    """
    written = torch.from_numpy(embedder.embed(list(marked.notes)))
    parts = [label_parts(text) for text in texts]
    lanes = {
        "note": _embedded(embedder, [p.note or t for p, t in zip(parts, texts, strict=True)]),
        "text_field": _embedded(embedder, [p.text for p in parts]),
        "context_tail": _embedded(embedder, [c[-60:] for c in marked.contexts]),
    }
    for name, readings in (others or {}).items():
        lanes[name] = _embedded(embedder, readings)
    mean = written.mean(0)
    if fitted is not None:
        lanes["linear"] = fitted.predict(marked.hidden)
        lanes["nearest_vector"] = fitted.of_nearest_vector(marked.hidden)
        best, _ = fitted.best_written(marked.hidden)
        lanes["best_written"] = _embedded(embedder, best)
        mean = fitted.note_mean
    ranks = {name: _ranks(lane, written, mean) for name, lane in lanes.items()}
    n = len(written)
    result: dict[str, Any] = {
        "n": n,
        "chance": {"rank_1": 1 / n, "rank_5": 5 / n, "median": (n + 1) // 2},
        "lanes": ranks,
    }
    return {
        "notes": result,
        "note_rank_1": ranks["note"]["rank_1"],
        "note_rank_5": ranks["note"]["rank_5"],
        **({"note_rank_1_linear": ranks["linear"]["rank_1"]} if fitted is not None else {}),
    }


def _embedded(embedder: Embedder, texts: Sequence[str]) -> Tensor:
    return torch.from_numpy(np.asarray(embedder.embed([text or " " for text in texts])))


def _ranks(lane: Tensor, written: Tensor, mean: Tensor) -> dict[str, float]:
    """Shares of texts whose own note is first, and among the first five; the median rank.

    By cosine as it is, and (``centred``) with the mean of the training notes removed from both.
    """
    plain = _rank_of_own(lane, written)
    centred = _rank_of_own(lane - mean, written - mean)
    return {
        "rank_1": float((plain == 1).float().mean()),
        "rank_5": float((plain <= 5).float().mean()),
        "median": float(plain.median()),
        "rank_1_centred": float((centred == 1).float().mean()),
        "rank_5_centred": float((centred <= 5).float().mean()),
        "median_centred": float(centred.median()),
    }


def _rank_of_own(lane: Tensor, written: Tensor) -> Tensor:
    """Ranks from 1; texts that tie count against it."""
    alike = (
        torch.nn.functional.normalize(lane, dim=-1)
        @ torch.nn.functional.normalize(written, dim=-1).T
    )
    own = alike.diag()[:, None]
    return 1 + (alike > own).sum(1)


def load_map(folder: Path, embedder: Embedder) -> NoteMap:
    """The map fitted on the ``notes`` split of annotated training data."""
    return NoteMap.fit(Examples.load(folder / "notes"), embedder)
