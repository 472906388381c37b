"""Two small charts: what the model expected next, and a measure along the transcript.

Knows which marks and colours say what. Does not know Streamlit or where the numbers come from. The
decision a reader would question: plain Plotly dictionaries instead of graph objects; building
thousands of validated properties a click costs more than drawing them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

Figure = dict[str, Any]

ROW_PX: Final = 21
LINE_PX: Final = 104
GAP: Final = 3
"""A line is broken where positions leap more than so many of its usual steps."""
CONFIG: Final = {"displayModeBar": False, "scrollZoom": False, "doubleClick": False}

# Readable on light and dark: a change of theme runs nothing in Python, so text and grid are left to
# Streamlit's own Plotly theme, which follows it in the browser.
_BAR: Final = "#8fa0b3"
_CAME: Final = "#747bf2"
_LINE: Final = "#169a8c"

# On a narrow screen a legend has several rows: it grows upwards, away from the marks.
_ABOVE: Final = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}

# The first tick says what the numbers of the axis are.
_POSITIONS: Final = {
    "showgrid": False,
    "zeroline": False,
    "fixedrange": True,
    "tickprefix": "token ",
    "showtickprefix": "first",
}


def next_tokens(
    tokens: Sequence[str],
    probabilities: Sequence[float],
    *,
    came: str | None,
    came_probability: float | None,
) -> Figure:
    """Horizontal bars of the model's next-token probabilities, best first.

    ``came`` is the token that really followed, None at the end; it is marked, and gets a row of
    its own where it is not among the predictions and its probability is known.
    """
    rows = [(text, p, text == came) for text, p in zip(tokens, probabilities, strict=True)]
    if came is not None and came_probability is not None and not any(row[2] for row in rows):
        rows.append((came, came_probability, True))
    names = [plain(text) + (" ◂" if marked else "") for text, _, marked in rows]
    shares = [p for _, p, _ in rows]
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "x": shares,
                "y": list(range(len(rows))),
                "marker": {
                    "color": [_CAME if row[2] else _BAR for row in rows],
                    "cornerradius": 2,
                },
                "text": [percent(p).replace("<", "‹") for p in shares],
                "textposition": "outside",
                "cliponaxis": False,
                "textfont": {"size": 12},
                "hoverinfo": "skip",
                "width": 0.62,
            }
        ],
        "layout": {
            "height": ROW_PX * len(rows) + 8,
            "margin": {"l": 4, "r": 44, "t": 2, "b": 4},
            "xaxis": {"visible": False, "range": [0, max(shares, default=1.0)], "fixedrange": True},
            "yaxis": {
                "autorange": "reversed",
                "tickvals": list(range(len(rows))),
                "ticktext": names,
                "tickfont": {"size": 12.5, "family": "monospace"},
                "automargin": True,
                "fixedrange": True,
                "showgrid": False,
                "zeroline": False,
                "ticks": "",
            },
            **_bare(),
        },
    }


def line_along(
    values: Mapping[int, float],
    *,
    low: float,
    high: float,
    name: str,
    locked: int | None,
    span: tuple[int, int] | None,
    in_readings: Sequence[int] = (),
    in_text: Sequence[int] = (),
) -> Figure:
    """A measure over position, with the locked token, the marked range, and where a phrase stands.

    ``low`` and ``high`` are the ends of the measure's scale; the axis reaches further down where
    values do. Dragging over it marks a range.
    """
    values = dict(sorted(values.items()))
    bottom = min(low, *values.values()) if values else low
    room = high - bottom
    positions, found_values = _with_gaps(values)
    rows = [
        (in_readings, "triangle-up", "stands in the explanation"),
        (in_text, "circle-open", "stands in the text"),
    ]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": positions,
                "y": found_values,
                "line": {"color": _LINE, "width": 1.4},
                "hovertemplate": f"token %{{x}}: {plain(name)} %{{y:.2f}}<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": [p for p in values if p == locked],
                "y": [value for p, value in values.items() if p == locked],
                "marker": {"color": _CAME, "size": 9},
                "hoverinfo": "skip",
            },
            *(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": list(found),
                    "y": [bottom - room * (0.08 + 0.11 * row)] * len(found),
                    "marker": {"color": _CAME, "size": 7, "symbol": symbol},
                    "hovertemplate": f"token %{{x}}: {words}<extra></extra>",
                }
                for row, (found, symbol, words) in enumerate(rows)
                if found
            ),
        ],
        "layout": {
            "height": LINE_PX,
            "margin": {"l": 34, "r": 6, "t": 6, "b": 18},
            "xaxis": {
                **_POSITIONS,
                "tickfont": {"size": 11},
            },
            "yaxis": {
                "range": [bottom - room * (0.26 if in_readings or in_text else 0.04), high * 1.06],
                "zeroline": True,
                "zerolinecolor": _BAR,
                "zerolinewidth": 1,
                "nticks": 4,
                "fixedrange": True,
                "tickfont": {"size": 11},
            },
            "shapes": []
            if span is None
            else [
                {
                    "type": "rect",
                    "xref": "x",
                    "yref": "paper",
                    "x0": span[0] - 0.5,
                    "x1": span[1] + 0.5,
                    "y0": 0,
                    "y1": 1,
                    "line": {"width": 0},
                    "fillcolor": "rgba(116, 123, 242, 0.18)",
                }
            ],
            "hovermode": "x",
            **_bare(),
            "dragmode": "select",
            "selectdirection": "h",
        },
    }


def _with_gaps(values: Mapping[int, float]) -> tuple[list[int], list[float | None]]:
    """Positions and values, with a None where positions leap: a line over the markup between two
    turns would show values that nobody measured."""
    at = sorted(values)
    steps = sorted(after - before for before, after in pairwise(at))
    leap = GAP * steps[len(steps) // 2] if steps else 0
    gaps = [before + 1 for before, after in pairwise(at) if after - before > leap]
    positions = sorted([*at, *gaps])
    return positions, [round(values[p], 4) if p in values else None for p in positions]


def divergence(lines: Mapping[str, Mapping[int, float]], *, locked: int | None) -> Figure:
    """Likeness of each explanation to the text on either side, by name of the line; the locked
    token is an upright mark. Lines differ in colour and in dashes."""
    looks = [(_LINE, "solid"), (_CAME, "dash"), (_BAR, "dot"), ("#c2780c", "dashdot")]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": positions,
                "y": values,
                "line": {"color": colour, "width": 1.5, "dash": dash},
                "hovertemplate": f"token %{{x}}: {plain_words(name)} %{{y:.2f}}<extra></extra>",
            }
            for (name, (positions, values)), (colour, dash) in zip(
                ((name, _with_gaps(line)) for name, line in lines.items()), looks, strict=False
            )
        ],
        "layout": {
            "height": LINE_PX + 44,
            "margin": {"l": 34, "r": 6, "t": 6, "b": 18},
            "xaxis": _POSITIONS,
            "yaxis": {"range": [0, 1], "nticks": 4, "fixedrange": True, "zeroline": False},
            "shapes": []
            if locked is None
            else [
                {
                    "type": "line",
                    "xref": "x",
                    "yref": "paper",
                    "x0": locked,
                    "x1": locked,
                    "y0": 0,
                    "y1": 1,
                    "line": {"color": _CAME, "width": 1.5},
                }
            ],
            "hovermode": "x",
            **_bare(),
            "showlegend": True,
            "legend": _ABOVE,
        },
    }


def shares(
    rows: Sequence[tuple[str, float | None, float, float, float | None, float | None]],
) -> Figure:
    """One line a concept: the share in explanations with its interval, what chance alone gives,
    and the share in the visible text. ``rows`` are (name, share, low, high, chance, text); without
    a share the line says that the concept is not usable with the pair."""
    at = list(range(len(rows)))
    shown = [row for row in rows if row[1] is not None]
    at_shown = [i for i, row in enumerate(rows) if row[1] is not None]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "name": "explanations hold it (95 % interval)",
                "x": [row[1] for row in shown],
                "y": at_shown,
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [row[3] - (row[1] or 0.0) for row in shown],
                    "arrayminus": [(row[1] or 0.0) - row[2] for row in shown],
                    "thickness": 1.4,
                    "width": 3,
                    "color": _LINE,
                },
                "marker": {"color": _LINE, "size": 10},
                "hovertemplate": "%{x:.0%}<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": "visible text holds it",
                "x": [row[5] for row in rows],
                "y": at,
                "marker": {"color": _CAME, "size": 10, "symbol": "diamond-open"},
                "hovertemplate": "visible text %{x:.0%}<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": "expected by chance",
                "x": [row[4] for row in shown],
                "y": at_shown,
                "marker": {
                    "color": _BAR,
                    "size": 15,
                    "symbol": "line-ns-open",
                    "line": {"width": 2},
                },
                "hovertemplate": "by chance %{x:.0%}<extra></extra>",
            },
        ],
        "layout": {
            "height": 38 * len(rows) + 80,
            "margin": {"l": 4, "r": 20, "t": 4, "b": 26},
            "xaxis": {"range": [-0.02, 1.02], "tickformat": ".0%", "fixedrange": True},
            "yaxis": {
                "autorange": "reversed",
                "tickvals": at,
                "ticktext": [
                    f"{plain_words(row[0])}<br><span style='font-size:.85em'>"
                    f"{_beside_chance(row[1], row[4])}</span>"
                    for row in rows
                ],
                "automargin": True,
                "fixedrange": True,
                "zeroline": False,
            },
            **_bare(),
            "showlegend": True,
            "legend": _ABOVE,
        },
    }


def _beside_chance(share: float | None, chance: float | None) -> str:
    if share is None:
        return "not usable with this pair"
    return f"{share:.0%}" + ("" if chance is None else f", by chance {chance:.0%}")


def counts(rows: Mapping[str, int], noun: str) -> Figure:
    """Horizontal bars of how many there are of each, the most first."""
    ordered = sorted(rows.items(), key=lambda row: (-row[1], row[0]))
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "x": [n for _, n in ordered],
                "y": list(range(len(ordered))),
                "marker": {"color": _LINE, "cornerradius": 2},
                "text": [f"{n:,}" for _, n in ordered],
                "textposition": "outside",
                "cliponaxis": False,
                "hoverinfo": "skip",
                "width": 0.62,
            }
        ],
        "layout": {
            "height": ROW_PX * len(ordered) + 12,
            "margin": {"l": 4, "r": 44, "t": 2, "b": 4},
            "xaxis": {"visible": False, "fixedrange": True, "title": plain(noun)},
            "yaxis": {
                "autorange": "reversed",
                "tickvals": list(range(len(ordered))),
                "ticktext": [plain_words(name) for name, _ in ordered],
                "tickfont": {"size": 12.5},
                "automargin": True,
                "fixedrange": True,
                "showgrid": False,
                "zeroline": False,
                "ticks": "",
            },
            **_bare(),
        },
    }


def plain_words(text: str) -> str:
    """A name in a label, its blanks as they are and nothing that Plotly takes for markup."""
    return _unmarked(visible(text).replace("·", " "), 44)


def plain(text: str) -> str:
    """A token in a label: blanks visible, nothing that Plotly takes for markup."""
    return _unmarked(visible(text), 22)


def _unmarked(shown: str, longest: int) -> str:
    shown = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    # Plotly draws a small set of HTML tags and entities and, with MathJax, text between dollars.
    return shown.replace("&", "＆").replace("<", "‹").replace(">", "›").replace("$", "＄")


def visible(text: str) -> str:
    """``text`` on one line, every character leaving a mark."""
    shown = text.replace("\n", "↵").replace("\t", "⇥").replace(" ", "·") or "∅"
    return "".join(c if c.isprintable() else f"⟨U+{ord(c):04X}⟩" for c in shown)


def percent(p: float) -> str:
    """A probability in few characters: 61%, 0.4%, <0.1%."""
    if p >= 0.0995:
        return f"{p:.0%}"
    return f"{p:.1%}" if p >= 0.001 else "<0.1%"


def probability(surprisal: float | None) -> float | None:
    """The probability that a surprisal in nats stands for."""
    return None if surprisal is None else math.exp(-surprisal)


def _bare() -> Figure:
    return {
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "dragmode": False,
    }
