"""Small SVG pictures of a report: bars, a curve, a histogram; text in, text out.

Knows how a picture is drawn so that it reads on light and dark pages. Knows nothing of what is
measured. The decision a reader would question: written by hand instead of by a plotting library; a
few rectangles and lines need no further dependency, and equal figures give equal bytes.

Each picture paints its own panel, whose colours follow the reader's colour scheme together with the
ink, so text never lies on a background that it was not chosen for. Two series differ in shape, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 680
_CHARACTER = 6.6  # width of a letter at 12 px, about
_STYLE = (
    ":root{--panel:#ffffff;--ink:#1b2330;--soft:#566173;--grid:#d9dee5;--bar:#2a8a80;--mark:#8a4b08}"
    "@media(prefers-color-scheme:dark){:root{--panel:#10141b;--ink:#eef2f7;--soft:#a3afbf;"
    "--grid:#2b3442;--bar:#43a89b;--mark:#f0b35a}}"
    ".panel{fill:var(--panel)}.bar{fill:var(--bar)}.below{fill:var(--bar);fill-opacity:.45}"
    "text{fill:var(--ink);font:12px system-ui,sans-serif;paint-order:stroke;stroke:var(--panel);"
    "stroke-width:3px;stroke-linejoin:round}.soft{fill:var(--soft)}"
    ".title{font-weight:600;font-size:13px}.end{text-anchor:end}.mid{text-anchor:middle}"
    ".grid{stroke:var(--grid)}.axis{stroke:var(--soft)}"
    ".mark{stroke:var(--mark);stroke-width:3}.dash{stroke:var(--mark);stroke-width:2;"
    "stroke-dasharray:6 4}.curve{fill:none;stroke:var(--bar);stroke-width:2.5}.dot{fill:var(--bar)}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """``mark`` is a second value, drawn as a line across the bar; ``note`` stands small beside."""

    label: str
    value: float
    mark: float | None = None
    note: str = ""


def bars(title: str, description: str, rows: Sequence[Bar], mark_name: str = "") -> str:
    """Horizontal bars from zero, a row each, values at the right; ``mark_name`` tells the marks."""
    left = 24 + _CHARACTER * max(len(_with_note(row)) for row in rows)
    scale = _Scale.of(
        [v for row in rows for v in (row.value, row.mark) if v is not None], left, WIDTH - 66
    )
    top, step = 46 if not mark_name else 62, 24
    height = top + step * len(rows) + 28
    parts = _grid(scale, top - 6, height - 24)
    if mark_name:
        parts.append(_line("mark", 17, 34, 17, 48))
        parts.append(_text(26, 45, mark_name, "soft"))
    for i, row in enumerate(rows):
        y = top + step * i
        start, end = sorted((scale(0.0), scale(row.value)))
        kind = "bar" if row.value >= 0 else "below"
        parts.append(_rect(kind, start, y, end - start, step - 8))
        if row.mark is not None:
            parts.append(_line("mark", scale(row.mark), y - 2, scale(row.mark), y + step - 6))
        parts.append(_text(left - 8, y + 12, _with_note(row), "end"))
        parts.append(_text(WIDTH - 16, y + 12, _number(row.value), "soft end"))
    return _svg(title, description, height, parts)


def curve(
    title: str,
    description: str,
    points: Mapping[int, float],
    level: float,
    level_name: str,
    at: float | None,
) -> str:
    """A curve over k, a dashed line at ``level``, and one down from it at k ``at``."""
    height, left, right, top, bottom = 300, 56, WIDTH - 56, 46, 256
    ks = sorted(points)
    low, high = _range([*points.values(), level])

    def x(k: float) -> float:
        return left + (right - left) * (k - ks[0]) / max(1, ks[-1] - ks[0])

    def y(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    parts = []
    for tick in _ticks(low, high):
        parts.append(_line("grid", left, y(tick), right, y(tick)))
        parts.append(_text(left - 8, y(tick) + 4, _number(tick, 1), "soft end"))
    for k in ks:
        parts.append(_text(x(k), bottom + 18, str(k), "soft mid"))
    parts.append(_text((left + right) / 2, bottom + 34, "last tokens re-read", "soft mid"))
    path = " ".join(f"{_px(x(k))},{_px(y(points[k]))}" for k in ks)
    parts.append(f'<polyline class="curve" points="{path}"/>')
    parts.append(_line("dash", left, y(level), right, y(level)))
    parts.append(_text(right, y(level) - 6, f"{level_name} {_number(level)}", "end"))
    if at is not None and ks[0] <= at < ks[-1]:
        parts.append(_line("dash", x(at), y(level), x(at), bottom))
    for k in ks:
        parts.append(f'<circle class="dot" cx="{_px(x(k))}" cy="{_px(y(points[k]))}" r="4"/>')
        parts.append(_text(x(k) + 8, y(points[k]) + 14, _number(points[k]), "soft"))
    return _svg(title, description, height, parts)


def histogram(
    title: str, description: str, edges: Sequence[float], counts: Sequence[int], level: float
) -> str:
    """Counts between ``edges``, with a dashed line at ``level``."""
    height, left, right, top, bottom = 270, 40, WIDTH - 24, 78, 226
    tallest = max(max(counts), 1)

    def x(value: float) -> float:
        share = (value - edges[0]) / (edges[-1] - edges[0])
        return left + (right - left) * min(max(share, 0.0), 1.0)

    parts = []
    for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True):
        tall = (bottom - top) * count / tallest
        kind = "bar" if start >= -1e-9 else "below"
        parts.append(_rect(kind, x(start) + 1, bottom - tall, x(end) - x(start) - 2, tall))
        if count:
            middle = (x(start) + x(end)) / 2
            parts.append(_text(middle, bottom - tall - 4, str(count), "soft mid"))
    parts.append(_line("axis", left, bottom, right, bottom))
    for edge in edges[:: max(1, (len(edges) - 1) // 8)]:
        parts.append(_text(x(edge), bottom + 18, _number(edge, 1), "soft mid"))
    parts.append(_line("dash", x(level), top - 36, x(level), bottom))
    parts.append(_text(x(level) + 6, top - 26, f"mean {_number(level)}", ""))
    return _svg(title, description, height, parts)


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    left: float
    right: float

    @classmethod
    def of(cls, values: Sequence[float], left: float, right: float) -> _Scale:
        return cls(*_range([0.0, *values]), left, right)

    def __call__(self, value: float) -> float:
        return self.left + (self.right - self.left) * (value - self.low) / (self.high - self.low)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Bounds on fifths that hold all values; never empty."""
    low = math.floor(min(values) * 5 + 1e-9) / 5
    high = math.ceil(max(values) * 5 - 1e-9) / 5
    return min(low, high - 0.2), high


def _ticks(low: float, high: float) -> list[float]:
    step = next(s for s in (0.2, 0.5, 1.0, 2.0, 5.0, 1e9) if (high - low) / s <= 8)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _grid(scale: _Scale, top: float, bottom: float) -> list[str]:
    parts = []
    for tick in _ticks(scale.low, scale.high):
        kind = "axis" if abs(tick) < 1e-9 else "grid"
        parts.append(_line(kind, scale(tick), top, scale(tick), bottom))
        parts.append(_text(scale(tick), bottom + 15, _number(tick, 1), "soft mid"))
    return parts


def _with_note(row: Bar) -> str:
    return f"{row.label} ({row.note})" if row.note else row.label


def _number(value: float, digits: int = 2) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _px(value: float) -> str:
    return f"{value:.1f}"


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="{kind}" x="{_px(x)}" y="{_px(y)}" width="{_px(width)}" '
        f'height="{_px(height)}" rx="2"/>'
    )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{_px(x1)}" y1="{_px(y1)}" x2="{_px(x2)}" y2="{_px(y2)}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{_px(x)}" y="{_px(y)}">{escape(text)}</text>'


def _svg(title: str, description: str, height: float, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {_px(height)}" '
        f'width="{WIDTH}">\n<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>\n'
        f"<style>{_STYLE}</style>\n"
        f'<rect class="panel" width="{WIDTH}" height="{_px(height)}" rx="8"/>\n'
        f"{_text(16, 24, title, 'title')}\n{body}\n</svg>\n"
    )
