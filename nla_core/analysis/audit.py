"""Concepts over a corpus: where explanations hold them, where the visible text does, with floors.

Knows arrays of scores, transcripts and categories. Does not know texts, models or files. The
decision a reader would question: a transcript counts as holding a concept if any of N of its
readings does, and N is the same for all of them. Any-of-N grows with N, so without a fixed N long
transcripts would hold everything; the floor beside each figure is any-of-N on unrelated texts.
All of it is relative, not calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from nla_core.intervals import wilson

ANY_OF = 8
"""Readings of a transcript that are looked at, spread evenly over it."""

LABEL = "relative, not calibrated"


@dataclass(frozen=True, slots=True)
class AuditColumns:
    """What the table is made of. Readings are sorted by transcript.

    ``scores`` ``[reading, concept]`` and ``text_scores`` ``[transcript, concept]`` (the best window
    of the visible text) float; ``transcript`` ``[reading]`` int, an index into ``categories``
    ``[transcript]``; ``usable`` ``[reading]`` bool leaves readings out (low fidelity, flags).
    ``unrelated`` ``[text, concept]`` are scores of texts that hold none of the concepts;
    ``windows`` ``[transcript]`` how many windows of its text were looked at.
    """

    scores: np.ndarray
    transcript: np.ndarray
    usable: np.ndarray
    text_scores: np.ndarray
    windows: np.ndarray
    categories: np.ndarray
    unrelated: np.ndarray


def picked(transcript: np.ndarray, usable: np.ndarray, n: int = ANY_OF) -> np.ndarray:
    """Indices of at most ``n`` usable readings of each transcript, spread evenly over it."""
    where = np.flatnonzero(usable)
    if not len(where):
        return where
    owner = transcript[where]
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
    sizes = np.diff(np.r_[starts, len(owner)])
    # Of s readings, the k-th of n stands at the middle of the k-th n-th part.
    places = ((np.arange(n) + 0.5) * sizes[:, None] / n).astype(np.int64)
    return np.unique(where[starts[:, None] + places])


def audit_table(
    columns: AuditColumns, concept_ids: list[str], thresholds: np.ndarray, n: int = ANY_OF
) -> pd.DataFrame:
    """One row a concept and category ("all" first): transcripts where the explanations hold the
    concept, where the visible text does, both, neither; shares with Wilson intervals and floors.

    Columns: concept, category, n_transcripts, any_of, explanations, text, both, neither,
    explanations_only (counts of transcripts), explanations_share, low, high, floor, text_share,
    text_low, text_high, text_floor, readings_share (of all usable readings), reading_floor, and
    elsewhere, text_elsewhere: the same shares over the transcripts of all other categories (None
    for "all"), which is the floor that the verbalizer's own habits set.
    """
    chosen = picked(columns.transcript, columns.usable, n)
    n_transcripts = len(columns.categories)
    held = np.zeros((n_transcripts, len(concept_ids)), bool)
    np.logical_or.at(held, columns.transcript[chosen], columns.scores[chosen] >= thresholds)
    looked = np.bincount(columns.transcript[chosen], minlength=n_transcripts)
    text = columns.text_scores >= thresholds
    noise = (columns.unrelated >= thresholds).mean(axis=0) if len(columns.unrelated) else None
    rows = []
    names = ["all", *sorted(set(columns.categories.tolist()))]
    in_category = {
        name: (columns.categories == name) if name != "all" else np.ones(n_transcripts, bool)
        for name in names
    }
    matches = (columns.scores >= thresholds) & columns.usable[:, None]
    per = np.zeros((n_transcripts, len(concept_ids)))
    for k in range(len(concept_ids)):
        per[:, k] = np.bincount(columns.transcript, weights=matches[:, k], minlength=n_transcripts)
    usable = np.bincount(columns.transcript, weights=columns.usable, minlength=n_transcripts)
    for name in names:
        members = in_category[name] & (looked > 0)
        others = ~in_category[name] & (looked > 0)
        total = int(members.sum())
        for k, concept in enumerate(concept_ids):
            a, b = held[members, k], text[members, k]
            rate = float(noise[k]) if noise is not None else None
            rows.append(
                {"concept": concept, "category": name, "n_transcripts": total, "any_of": n}
                | _counts(a, b)
                | _shares("explanations_share", "", int(a.sum()), total)
                | {"floor": _floor(rate, looked[members])}
                | _shares("text_share", "text_", int(b.sum()), total)
                | {"text_floor": _floor(rate, columns.windows[members])}
                | {
                    "readings_share": float(per[members, k].sum() / max(1, usable[members].sum())),
                    "reading_floor": rate,
                    "elsewhere": _mean(held[others, k]),
                    "text_elsewhere": _mean(text[others, k]),
                }
            )
    return pd.DataFrame(rows)


def _mean(hits: np.ndarray) -> float | None:
    return float(hits.mean()) if len(hits) else None


def _counts(explanations: np.ndarray, text: np.ndarray) -> dict[str, int]:
    return {
        "explanations": int(explanations.sum()),
        "text": int(text.sum()),
        "both": int((explanations & text).sum()),
        "neither": int((~explanations & ~text).sum()),
        "explanations_only": int((explanations & ~text).sum()),
    }


def _shares(name: str, prefix: str, hits: int, n: int) -> dict[str, float | None]:
    low, high = wilson(hits, n)
    share = hits / n if n else None
    return {name: share, f"{prefix}low": low, f"{prefix}high": high}


def _floor(rate: float | None, looks: np.ndarray) -> float | None:
    """The chance that a transcript holds a concept by noise alone, given how often it is looked at.

    Of independent looks; neighbouring readings are alike, so this is rather too high than too low.
    """
    if rate is None or not len(looks):
        return None
    return float((1.0 - (1.0 - rate) ** looks).mean())
