"""Figures of vectors: FVE by group with its interval, ranks, and the worth of a text in tokens.

Knows errors and vectors, one an item, and the document each item comes from. Knows nothing of texts
and models. The decision a reader would question: intervals resample whole documents, because items
of one document are alike, and an interval over items alone would be too narrow.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nla_core import metrics

POSITION_EDGES = (0, 20, 32, 64, 128, 256)
RANK_AMONG = 500
RESAMPLES = 2000
SEED = 0
HISTOGRAM_LOW, HISTOGRAM_HIGH, HISTOGRAM_STEP = -1.0, 1.0, 0.1


def fve_of(errors: Tensor, rawvar: float) -> float:
    """1 - mean(mse_nrm) / rawvar of ``[n]`` errors."""
    return 1.0 - float(errors.double().mean()) / rawvar


def position_bucket(position: int) -> str:
    """The bucket's name, such as ``32-63`` or ``256+``."""
    at = max(i for i, edge in enumerate(POSITION_EDGES) if position >= edge)
    if at == len(POSITION_EDGES) - 1:
        return f"{POSITION_EDGES[at]}+"
    return f"{POSITION_EDGES[at]}-{POSITION_EDGES[at + 1] - 1}"


def by_group(
    names: Sequence[str], errors: Mapping[str, Tensor], rawvar: float
) -> dict[str, dict[str, Any]]:
    """Name -> ``n`` and the FVE under each key of ``errors``; all share one denominator."""
    result: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(names):
        rows = torch.tensor([i for i, other in enumerate(names) if other == name])
        result[name] = {"n": len(rows)} | {
            key: fve_of(values[rows], rawvar) for key, values in errors.items()
        }
    return result


def by_position(
    positions: Sequence[int], errors: Mapping[str, Tensor], rawvar: float
) -> dict[str, dict[str, Any]]:
    """``by_group`` over position buckets, in order of position; empty buckets are left out."""
    groups = by_group([position_bucket(p) for p in positions], errors, rawvar)
    return {name: groups[name] for name in map(position_bucket, POSITION_EDGES) if name in groups}


def interval(errors: Tensor, documents: Sequence[str], rawvar: float) -> dict[str, float]:
    """95 % bootstrap interval of the FVE, ``low`` and ``high``; documents are resampled whole.

    The denominator is held fixed. One document alone gives an interval of no width.
    """
    codes = {name: i for i, name in enumerate(dict.fromkeys(documents))}
    index = np.array([codes[name] for name in documents])
    counts = np.bincount(index, minlength=len(codes)).astype(float)
    sums = np.bincount(index, weights=errors.double().numpy(), minlength=len(codes))
    rng = np.random.default_rng(SEED)
    drawn = rng.multinomial(len(codes), np.full(len(codes), 1 / len(codes)), size=RESAMPLES)
    values = 1.0 - (drawn @ sums) / (drawn @ counts) / rawvar
    low, high = np.quantile(values, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}


def histogram(values: Tensor) -> dict[str, list[float] | list[int]]:
    """Counts of ``[n]`` FVE in steps of 0.1 from -1 to 1; what lies below is in the first bin."""
    n_bins = round((HISTOGRAM_HIGH - HISTOGRAM_LOW) / HISTOGRAM_STEP)
    edges = [round(HISTOGRAM_LOW + HISTOGRAM_STEP * i, 10) for i in range(n_bins + 1)]
    inside = values.double().clamp(HISTOGRAM_LOW, HISTOGRAM_HIGH).numpy()
    counts, _ = np.histogram(inside, bins=edges)
    return {"edges": edges, "counts": [int(c) for c in counts]}


def rank_among(
    rebuilt: Tensor, true: Tensor, mean: Tensor, size: int = RANK_AMONG
) -> dict[str, float] | None:
    """Ranks of own vectors among ``size`` of the items, always the same ones; None if too few.

    ``at_1`` is the share in first place, ``median`` counts from 1.
    """
    if len(true) < size:
        return None
    picked = torch.tensor(sorted(random.Random(SEED).sample(range(len(true)), size)))
    ranks = metrics.rank_of_own(rebuilt[picked], true[picked], mean)
    return {"at_1": float((ranks == 0).float().mean()), "median": int(ranks.median()) + 1}


def rank_same_document(
    rebuilt: Tensor, true: Tensor, mean: Tensor, documents: Sequence[str]
) -> dict[str, float] | None:
    """First places among the vectors of the same document, beside what chance would give.

    Documents with one item have nothing to tell apart and are left out; None if all are.
    """
    first, chance, n = 0.0, 0.0, 0
    for name in dict.fromkeys(documents):
        rows = torch.tensor([i for i, other in enumerate(documents) if other == name])
        if len(rows) > 1:
            ranks = metrics.rank_of_own(rebuilt[rows], true[rows], mean)
            first += float((ranks == 0).sum())
            chance += 1.0
            n += len(rows)
    return {"at_1": first / n, "chance": chance / n, "n": n} if n else None


def worth_k_tokens(score: float, curve: Mapping[int, float], nothing: float) -> float:
    """How many last tokens the target must re-read to score what the text scores.

    ``curve`` maps k to the FVE of re-reading the last k tokens, ``nothing`` is the FVE of no token:
    of the mean direction. Between two k the curve is taken as straight. It is made monotone first
    (more tokens never count for less), since a lone first token is an attention sink. 0 where
    the text scores no better than nothing, the largest k where it scores at least as well.
    """
    at, best = 0.0, nothing
    if score <= nothing:
        return 0.0
    for k in sorted(curve):
        value = max(best, curve[k])
        if score <= value:
            return at + (k - at) * (score - best) / (value - best)
        at, best = float(k), value
    return at
