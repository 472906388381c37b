"""Steering in a real browser: typing an edit, running it, reading what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from playwright.sync_api import expect

from nla_core.links import SteerView
from scripts.screenshots import serving
from tests.browser.test_pages import SIDEWAYS, accessible
from tests.tiny import tiny_pair

Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def steerable(
    window: Any, dataset_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The app with a tiny pair beside the dataset."""
    pair = tiny_pair(tmp_path_factory.mktemp("pair"))
    named = {"NLA_PAIRS": str(pair)}
    with mock.patch.dict(os.environ, named), serving(dataset_root) as url:
        yield url


def test_typing_an_edit_and_running_it(visit: Visit, steerable: str) -> None:
    view = SteerView(
        pair="pair",
        prompt="the lazy dog while rain",
        original="the quick brown fox",
        words="rain",
        alphas=(1.0, 4.0),
        seeds=3,
        new_tokens=4,
    )
    page = visit("/steer?" + view.query, address=steerable)
    box = page.get_by_role("textbox", name="What it should say instead")
    expect(box).to_have_value("the quick brown fox")
    box.press("End")
    for _ in range(len("fox")):
        box.press("Backspace")
    box.press_sequentially("bridge", delay=30)
    page.wait_for_function("location.search.includes('bridge')")  # without leaving the box
    expect(page.locator(".nla-edit ins")).to_have_text("bridge")
    expect(box).to_have_value("the quick brown bridge")
    expect(page.get_by_role("row", name="edited")).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".nla-steered tbody tr")).to_have_count(3, timeout=60_000)
    expect(page.get_by_text("steered minus random")).to_be_visible()
    accessible(page, ".nla-steered")
    page.set_viewport_size({"width": 400, "height": 900})
    page.wait_for_timeout(400)
    assert page.evaluate(SIDEWAYS) <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_bare_page_is_whole_and_keeps_nobody_out(
    visit: Visit, steerable: str, scheme: str
) -> None:
    page = visit("/steer", address=steerable, color_scheme=scheme, width=400)
    accessible(page, ".cards .card")
    assert page.evaluate(SIDEWAYS) <= 0
