"""The scale can be read: in order, in grey, with text on it, in either theme."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nla_core.ui import palette

THEMES = ["light", "dark"]
PAGE = {"light": "#ffffff", "dark": "#0f1319"}

finite = st.floats(-100, 100)


@given(finite, finite)
def test_more_fidelity_is_never_a_lower_step_or_bar(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= palette.step(low) <= palette.step(high) < palette.STEPS
    assert 0 <= palette.bar_px(low) <= palette.bar_px(high) <= palette.BAR_MAX_PX


def test_the_ends_of_the_scale() -> None:
    assert palette.step(palette.FVE_LOW) == 0
    assert palette.step(palette.FVE_HIGH) == palette.STEPS - 1
    assert palette.bar_px(0.0) == 0.0
    assert palette.bar_px(1.0) == palette.BAR_MAX_PX


@pytest.mark.parametrize("theme", THEMES)
def test_text_can_be_read_on_every_step(theme: palette.Theme) -> None:
    for swatch in palette.ramp(theme):
        assert palette.contrast(swatch.background, swatch.ink) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
def test_steps_move_one_way_in_grey(theme: palette.Theme) -> None:
    """Contrast with the page grows at each step: the order holds without any colour."""
    away = [palette.contrast(swatch.background, PAGE[theme]) for swatch in palette.ramp(theme)]
    assert all(after / before >= 1.08 for before, after in pairwise(away))


def _seen_by(matrix: list[list[float]], colour: str) -> list[float]:
    linear = [
        (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for c in (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    ]
    return [sum(m * c for m, c in zip(row, linear, strict=True)) for row in matrix]


# Machado, Oliveira and Fernandes 2009, severity 1.
DEUTERANOPIA = [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
]
PROTANOPIA = [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
]
TRITANOPIA = [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.303900],
]


@pytest.mark.parametrize("vision", [DEUTERANOPIA, PROTANOPIA, TRITANOPIA])
@pytest.mark.parametrize("theme", THEMES)
def test_steps_keep_their_order_with_any_colour_vision(
    theme: palette.Theme, vision: list[list[float]]
) -> None:
    weights = (0.2126, 0.7152, 0.0722)
    light = [
        sum(w * c for w, c in zip(weights, _seen_by(vision, swatch.background), strict=True))
        for swatch in palette.ramp(theme)
    ]
    assert light == sorted(light, reverse=theme == "light")
    assert len(set(light)) == palette.STEPS


def test_the_style_sheet_has_a_rule_a_step() -> None:
    assert len(re.findall(r"^\.f\d+ \{", palette.css(), re.MULTILINE)) == palette.STEPS
