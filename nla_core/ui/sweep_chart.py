"""A number against α for the three arms, with bands: the chart of a steering experiment.

Knows which line is which arm. Does not know what was measured. The decision a reader would
question: the baseline is a level line, since it has no α; the arms differ in colour, in dashes and
in marks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from nla_core.ui.charts import Figure, plain_words

# Readable on light and dark, as in charts.py.
LOOKS: Final = (
    ("#169a8c", "22,154,140", "solid", "circle"),
    ("#747bf2", "116,123,242", "dash", "diamond-open"),
)
_LEVEL: Final = "#8fa0b3"

Point = tuple[float, float, float, float]
"""α, value, and the ends of its band."""


def sweep(
    lines: Mapping[str, Sequence[Point]],
    *,
    alphas: Sequence[float],
    level: tuple[str, float] | None,
    top: float | None = None,
) -> Figure:
    """``lines`` by arm (two at most), each a list of points; ``level`` is the baseline's name and
    value. ``alphas`` are all that are coming; ``top`` ends the axis, without it the largest value
    does."""
    data: list[Figure] = []
    low, high = min(0.0, *alphas), max(0.0, *alphas)
    highest = max(level[1] if level else 0.0, *(p[3] for row in lines.values() for p in row), 0.0)
    end = top or highest * 1.12 or 1.0
    for (label, points), (colour, rgb, dash, mark) in zip(lines.items(), LOOKS, strict=False):
        ordered = sorted(points)
        x = [p[0] for p in ordered]
        if any(p[2] != p[3] for p in ordered):
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": [*x, *reversed(x)],
                    "y": [*(p[3] for p in ordered), *(p[2] for p in reversed(ordered))],
                    "fill": "toself",
                    "fillcolor": f"rgba({rgb},0.16)",
                    "line": {"width": 0},
                    "hoverinfo": "skip",
                    "showlegend": False,
                }
            )
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": label,
                "x": x,
                "y": [p[1] for p in ordered],
                "line": {"color": colour, "width": 2, "dash": dash},
                "marker": {"color": colour, "size": 8, "symbol": mark},
                "hovertemplate": f"α %{{x:g}}: {plain_words(label)} %{{y:.1%}}<extra></extra>",
            }
        )
    if level is not None:
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": level[0],
                "x": [low, high],
                "y": [level[1], level[1]],
                "line": {"color": _LEVEL, "width": 1.6, "dash": "dot"},
                "hovertemplate": f"{plain_words(level[0])} %{{y:.1%}}<extra></extra>",
            }
        )
    return {
        "data": data,
        "layout": {
            "height": 250,
            "margin": {"l": 46, "r": 8, "t": 8, "b": 40},
            "xaxis": {
                "title": {"text": "α", "standoff": 4},
                "range": [low - 0.03 * (high - low), high + 0.03 * (high - low)],
                "zeroline": False,
                "fixedrange": True,
                "showgrid": False,
            },
            "yaxis": {
                "range": [-0.03 * end, end],
                "tickformat": _digits(end),
                "nticks": 5,
                "fixedrange": True,
                "zeroline": False,
            },
            "showlegend": True,
            "legend": {"orientation": "h", "y": 1.22, "x": 0},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "dragmode": False,
        },
    }


def _digits(end: float) -> str:
    """Enough decimals to tell the ticks of an axis apart."""
    return next((f".{n}%" for n, least in enumerate((0.05, 0.004, 0.0004)) if end > least), ".3%")
