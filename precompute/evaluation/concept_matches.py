"""Concept matching against labelled texts: average precision, noise floor, fitted thresholds.

Knows the form of the labelled texts and which half is for what. Does not know how texts are scored.
The decision a reader would question: average precision is given beside the share of texts that hold
the concept, which is what ranking at random would reach; on a balanced set .5 is nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nla_core.analysis.concepts import Concept, Matcher, unrelated_texts
from nla_core.analysis.semantic import Embed
from nla_core.errors import NLAError

LABELS = Path("tests/data/concepts.jsonl")


@dataclass(frozen=True, slots=True)
class LabelledText:
    """``source`` is "prompt" or "reading" (both from the demo's material) or "written"."""

    concept: str
    holds: bool
    text: str
    source: str
    half: str


def read_labelled_texts(path: Path) -> list[LabelledText]:
    """Raises NLAError naming the line that is no labelled text."""
    found: list[LabelledText] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.append(
                LabelledText(row["concept"], row["holds"], row["text"], row["source"], row["half"])
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NLAError(
            f"The labelled texts {path} cannot be read",
            why=f"{error!r}" + (f" in line {len(found) + 1}" if path.is_file() else ""),
            fix="Restore the file (git checkout), or name another with --concept-labels",
        ) from error
    return found


def average_precision(holds: np.ndarray, scores: np.ndarray) -> float | None:
    """Mean precision at each text that holds the concept, best score first; None without any."""
    if not holds.any():
        return None
    ranked = holds[np.argsort(-scores, kind="stable")].astype(float)
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked == 1].mean())


def best_threshold(holds: np.ndarray, scores: np.ndarray) -> float:
    """The middle of the widest gap between scores with the best F1, rounded to three places."""
    edges = np.unique(scores)
    middles = np.r_[edges[0] - 0.01, (edges[1:] + edges[:-1]) / 2]
    f1 = np.array([_f1(holds, scores >= at) for at in middles])
    good = np.flatnonzero(f1 == f1.max())
    gaps = np.r_[0.0, np.diff(edges)]
    return round(float(middles[good[np.argmax(gaps[good])]]), 3)


def _f1(holds: np.ndarray, named: np.ndarray) -> float:
    both = int((holds & named).sum())
    return 2 * both / max(1, int(holds.sum()) + int(named.sum()))


def fit_concepts(
    concepts: Sequence[Concept], items: Sequence[LabelledText], embed: Embed
) -> tuple[Concept, ...]:
    """The concepts with thresholds chosen on the ``fit`` half and every other unrelated text, which
    holds none; a concept without labels stays as it is."""
    fitted = []
    matcher, neutral = Matcher.of(concepts, embed), unrelated_texts()[::2]
    noise = matcher.scores(embed(neutral), neutral)
    scored = _scored(concepts, items, embed)
    for k, (concept, (rows, scores)) in enumerate(zip(concepts, scored, strict=True)):
        use = np.array([row.half == "fit" for row in rows], bool)
        holds = np.array([row.holds for row in rows], bool)
        if holds[use].any():
            best = best_threshold(
                np.r_[holds[use], np.zeros(len(neutral), bool)], np.r_[scores[use], noise[:, k]]
            )
            concept = replace(concept, threshold=best)
        fitted.append(concept)
    return tuple(fitted)


def concept_figures(
    concepts: Sequence[Concept], items: Sequence[LabelledText], embed: Embed
) -> dict[str, dict[str, Any]]:
    """Figures of the ``report`` half by concept id, beside the noise floor on the
    unrelated texts that no threshold was chosen on."""
    matcher = Matcher.of(concepts, embed)
    neutral = unrelated_texts()[1::2]
    noise = matcher.scores(embed(neutral), neutral) >= matcher.thresholds
    result: dict[str, dict[str, Any]] = {}
    for k, (rows, scores) in enumerate(_scored(concepts, items, embed)):
        concept = concepts[k]
        use = np.array([row.half == "report" for row in rows], bool)
        holds = np.array([row.holds for row in rows], bool)[use]
        named = scores[use] >= concept.threshold
        both = int((holds & named).sum())
        from_demo = np.array([row.source != "written" for row in rows], bool)[use]
        result[concept.id] = {
            "n": int(use.sum()),
            "n_holds": int(holds.sum()),
            "average_precision": average_precision(holds, scores[use]),
            "average_precision_demo_texts": average_precision(
                holds[from_demo], scores[use][from_demo]
            ),
            "average_precision_at_random": float(holds.mean()) if len(holds) else None,
            "precision": both / int(named.sum()) if named.any() else None,
            "recall": both / int(holds.sum()) if holds.any() else None,
            "threshold": concept.threshold,
            "noise_floor": float(noise[:, k].mean()),
        }
    return result


def _scored(
    concepts: Sequence[Concept], items: Sequence[LabelledText], embed: Embed
) -> list[tuple[list[LabelledText], np.ndarray]]:
    matcher = Matcher.of(concepts, embed)
    result = []
    for k, concept in enumerate(concepts):
        rows = [item for item in items if item.concept == concept.id]
        texts = [row.text for row in rows]
        scores = matcher.scores(embed(texts), texts)[:, k] if rows else np.zeros(0, np.float32)
        result.append((rows, scores))
    return result
