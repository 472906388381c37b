"""What the tokens are coloured by: fidelity, surprisal, length of the vector, likeness, claims.

Knows the scale of each measure and how to read it off a transcript. Does not know how a colour is
drawn or a phrase embedded. The decision a reader would question: every scale is fixed, also that of
likeness, so that the same colour means the same thing in two transcripts and in two links.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nla_core.links import CompareMeasure, Measure
from nla_core.ui import palette
from nla_core.ui.transcript_view import TranscriptView


@dataclass(frozen=True, slots=True)
class Scale:
    """A measure: its name, what it is short for, both ends of the colours, where bars begin."""

    name: str
    short: str
    low: float
    high: float
    zero: float
    ends: tuple[str, str]
    help: str


_COSINE: Final = (0.0, 0.8, 0.15, ("0", "≥ 0.80"))

SCALES: Final[dict[Measure | CompareMeasure, Scale]] = {
    "fve": Scale(
        "Fidelity (FVE)",
        "",  # every card names the FVE already
        palette.FVE_LOW,
        palette.FVE_HIGH,
        0.0,
        ("≤ −0.50", "1.00"),
        "How much of the vector the explanation carries.",
    ),
    "surprisal": Scale(
        "Surprisal",
        "surprisal",
        0.0,
        10.0,
        0.0,
        ("0", "≥ 10 nats"),
        "How unexpected this token was to the model.",
    ),
    "norm": Scale(
        "‖h‖ percentile",
        "‖h‖ percentile",
        0.0,
        100.0,
        0.0,
        ("0", "100"),
        "How long the vector is among ordinary ones.",
    ),
    "phrase": Scale(
        "Likeness to the phrase",
        "likeness",
        0.0,
        0.6,
        0.15,
        ("0", "≥ 0.60"),
        "Cosine of the explanation’s sentence embedding with that of the phrase.",
    ),
    "so_far": Scale(
        "Like the text so far",
        "so far",
        *_COSINE,
        "Cosine of the explanation with the nearest dozen words up to this token.",
    ),
    "to_come": Scale(
        "Like the text to come",
        "to come",
        *_COSINE,
        "Cosine of the explanation with the nearest dozen words after this token.",
    ),
    "unspoken": Scale(
        "Unspoken claims that recur",
        "unspoken",
        0.0,
        3.0,
        0.0,
        ("0", "≥ 3"),
        "How many claims of this reading stand nowhere in the text and return in its neighbours.",
    ),
}


def along(
    view: TranscriptView, measure: Measure, likeness: Mapping[int, float]
) -> dict[int, float]:
    """The measure by position. ``likeness`` is that of the first sample's explanation."""
    if measure == "fve":
        return dict(zip(*view.fidelity_line(), strict=True))
    if measure == "phrase":
        return dict(likeness)
    tokens = [token for token in view.tokens if token.section == "content"]
    if measure == "surprisal":
        return {t.position: t.surprisal for t in tokens if t.surprisal is not None}
    return {t.position: t.norm_pct for t in tokens if t.norm}


def colouring(
    view: TranscriptView,
    measure: Measure | CompareMeasure,
    values: Mapping[int, float],
    *,
    phrase: str = "",
    hits: Sequence[int] = (),
    hit_words: str = "with the phrase",
) -> dict[str, Any]:
    """What the strip paints, in JSON types; ``hits`` are positions to be marked, ``hit_words`` what
    the legend says of them."""
    scale = SCALES[measure]
    found = [values.get(chip.position) for chip in view.chips]
    return {
        "id": f"{measure}/{phrase}/{hash(tuple(hits))}",
        "name": scale.name,
        "short": scale.short,
        "low": scale.low,
        "high": scale.high,
        "zero": scale.zero,
        "ends": list(scale.ends),
        "values": [None if value is None else round(value, 4) for value in found],
        "hits": list(hits),
        "hitWords": hit_words,
    }
