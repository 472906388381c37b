"""The fidelity scale: which colour and which bar stand for an FVE.

Knows the range of the scale, its colours in light and dark, and the second channel, a bar whose
height is the share explained. Does not know what is drawn with it. The decision a reader would
question: one hue path whose lightness runs evenly from the page's own background to strong ink,
instead of cividis end to end: on a light page cividis gives the worst readings the heaviest ink.
Even steps of OKLCH lightness keep the order readable with any colour vision and in grey.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

Theme = Literal["light", "dark"]

FVE_LOW: Final = -0.5
"""FVE at or below this gets the first step; an unrelated text lies about here."""

FVE_HIGH: Final = 1.0
STEPS: Final = 9

BAR_MAX_PX: Final = 4.0
"""Height of the bar under a token at FVE 1; nothing is drawn at 0 and below."""

# (lightness, chroma, hue) at both ends; hue runs from slate blue to teal green in either theme, so
# that a colour keeps its meaning when the theme changes.
_ENDS: Final[dict[Theme, tuple[tuple[float, float, float], tuple[float, float, float]]]] = {
    "light": ((0.970, 0.008, 262.0), (0.590, 0.104, 182.0)),
    "dark": ((0.245, 0.016, 262.0), (0.515, 0.090, 178.0)),
}
_INK: Final = {"dark": "#10141b", "light": "#ffffff"}
_INK_ON_PAGE: Final = {"light": "#1b2330", "dark": "#eef2f7"}


@dataclass(frozen=True, slots=True)
class Swatch:
    background: str
    ink: str


def step(fve: float) -> int:
    """0 to STEPS - 1; values outside the range get the nearest end."""
    share = (min(max(fve, FVE_LOW), FVE_HIGH) - FVE_LOW) / (FVE_HIGH - FVE_LOW)
    return min(int(share * STEPS), STEPS - 1)


def bar_px(fve: float) -> float:
    """Height of the second channel in CSS pixels."""
    return round(BAR_MAX_PX * min(max(fve, 0.0), 1.0), 2)


def ramp(theme: Theme) -> tuple[Swatch, ...]:
    """STEPS swatches, low to high, each with the ink that reads best on it."""
    low, high = _ENDS[theme]
    swatches = []
    for index in range(STEPS):
        share = index / (STEPS - 1)
        lightness, chroma, hue = (a + (b - a) * share for a, b in zip(low, high, strict=True))
        background = _oklch_hex(lightness, chroma, hue)
        inks = (_INK_ON_PAGE[theme], _INK["dark"], _INK["light"])
        # The page's own ink as long as it reads well, so that text does not flicker along a line.
        ink = next(
            (ink for ink in inks[:1] if contrast(ink, background) >= 5.5),
            max(inks, key=lambda ink: contrast(ink, background)),
        )
        swatches.append(Swatch(background, ink))
    return tuple(swatches)


def css() -> str:
    """A rule a step, ``.f0`` to ``.f8``; light-dark() follows the theme of the page."""
    rules = [
        f".f{i} {{ --fill: light-dark({a.background}, {b.background}); "
        f"--ink: light-dark({a.ink}, {b.ink}); }}"
        for i, (a, b) in enumerate(zip(ramp("light"), ramp("dark"), strict=True))
    ]
    return "\n".join(rules)


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio of two #rrggbb colours, 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _oklch_hex(lightness: float, chroma: float, hue: float) -> str:
    """sRGB of an OKLCH colour, out-of-gamut channels clipped (Ottosson's matrices)."""
    a = chroma * math.cos(math.radians(hue))
    b = chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    encoded = (
        12.92 * c if c <= 0.0031308 else 1.055 * max(c, 0.0) ** (1 / 2.4) - 0.055 for c in linear
    )
    return "#" + "".join(f"{round(255 * min(max(c, 0.0), 1.0)):02x}" for c in encoded)
