"""Own prompts in a real browser: a file, a cancel, a restart of the server, a permalink at the end.

The pair is tiny and its texts mean nothing; everything else is what a visitor meets.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.screenshots import serving
from tests.gate import Gate
from tests.tiny import tiny_pair

SOON = 90_000
N_PROMPTS = 20


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["title", "question"])
        words = "the old stone bridge over a slow brown river in the rain near some tall dark trees"
        for n in range(N_PROMPTS):
            rows.writerow([f"number {n}", f"{n} {words}"])
    return path


@pytest.fixture
def served(
    window: Any, dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> Callable[[], Any]:
    """A server over the tiny pair with a folder of runs that outlives it, as a context."""
    monkeypatch.setenv("NLA_PAIRS", str(tiny_pair(tmp_path / "models")))
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("NLA_RUN_WORKER", "devices=cpu,dtype=float32,batch_size=4,transcribe=1")
    return lambda: serving(dataset_root, **gate.environment)


def n_done(page: Any) -> int:
    told = page.locator(".st-key-run_progress").inner_text()
    return int(re.search(r"(\d+) of", told)[1])  # type: ignore[index]


def test_twenty_prompts_survive_a_cancel_and_a_restart(
    served: Callable[[], Any], visit: Callable[..., Any], prompts: Path, gate: Gate
) -> None:
    gate.close(batches=1)
    with served() as address:
        page = visit("/run", address=address)
        page.get_by_text("Many, from a file").click()
        page.locator("input[type=file]").set_input_files(prompts)
        page.get_by_text(f"{N_PROMPTS} prompts in prompts.csv").wait_for()
        page.get_by_label("Pair", exact=True).click()
        page.get_by_role("option", name="pair", exact=True).click()
        page.get_by_label("Tokens to read", exact=True).click()
        page.get_by_role("option", name="The last tokens").click()
        page.get_by_role("spinbutton", name="New tokens").fill("2")
        page.get_by_role("spinbutton", name="New tokens").press("Enter")
        page.locator(".st-key-start_run button:not([disabled])").click()
        page.wait_for_url(re.compile(r"[?&]run=run-"), timeout=SOON)
        page.wait_for_function(
            "() => /[1-9]\\d* of/.test(document.querySelector('.st-key-run_progress')?.innerText)",
            timeout=SOON,
        )
        page.get_by_role("button", name="Cancel", exact=True).click()
        again = page.get_by_role("button", name="Go on with what is missing")
        again.wait_for(timeout=SOON)
        page.get_by_text("cancelled; what was finished is kept", exact=False).first.wait_for()
        kept = n_done(page)
        assert kept > 0
        page.get_by_text("Open in Explore").wait_for(timeout=SOON)  # without a reload
        again.click()
        page.get_by_role("button", name="Cancel", exact=True).wait_for(timeout=SOON)
        link = page.url.removeprefix(address)
        page.close()  # the browser is gone before the server is

    gate.open()
    with served() as address:  # nobody presses anything: the queue goes on by itself
        page = visit(link, address=address)
        page.get_by_text("Finished ·", exact=False).first.wait_for(timeout=SOON)
        assert n_done(page) > kept
        assert page.get_by_role("button", name="Cancel", exact=True).count() == 0
        page.get_by_text("Open in Explore").click()
        page.wait_for_selector(".chip:not(.markup)", timeout=SOON)
        page.locator(".chip:not(.markup):not(.unread)").nth(3).click()
        page.wait_for_selector(".nla-said")
        said, permalink = page.locator(".nla-said").inner_text(), page.url.removeprefix(address)
        assert "d=run-" in permalink
        assert "p=" in permalink
        page.close()

    with served() as address:
        page = visit(permalink, address=address)
        page.wait_for_selector(".chip.locked", timeout=SOON)
        assert page.locator(".nla-said").inner_text() == said
        page.close()


def test_a_tab_with_an_ended_run_notices_that_another_takes_it_up(
    served: Callable[[], Any], visit: Callable[..., Any], gate: Gate
) -> None:
    gate.close(batches=1)
    words = " ".join(["the old stone bridge over a slow brown river in the rain"] * 6)
    with served() as address:
        page = visit("/run", address=address)
        page.get_by_label("Pair", exact=True).click()
        page.get_by_role("option", name="pair", exact=True).click()
        page.get_by_role("textbox", name="User, turn 1").fill(words)
        page.get_by_role("button", name="Read", exact=True).click()
        page.wait_for_url(re.compile(r"[?&]run=run-"), timeout=SOON)
        page.wait_for_function(
            "() => /[1-9]\\d* of/.test(document.querySelector('.st-key-run_progress')?.innerText)",
            timeout=SOON,
        )
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_text("Open in Explore").wait_for(timeout=SOON)
        other = visit(page.url.removeprefix(address), address=address)
        other.get_by_role("button", name="Go on with what is missing").click()
        page.get_by_role("button", name="Cancel", exact=True).wait_for(timeout=SOON)  # untouched
        page.get_by_text("At work ·", exact=False).first.wait_for()
        gate.open()
        page.get_by_text("Finished ·", exact=False).first.wait_for(timeout=SOON)
        page.close()
        other.close()


def test_on_a_phone_the_panel_is_a_line_until_a_token_is_chosen(
    served: Callable[[], Any], visit: Callable[..., Any]
) -> None:
    with served() as address:
        page = visit("/run", address=address, width=390, height=844)
        page.get_by_label("Pair", exact=True).click()
        page.get_by_role("option", name="pair", exact=True).click()
        page.get_by_role("textbox", name="User, turn 1").fill("the quick brown fox")
        page.get_by_role("button", name="Read", exact=True).click()
        page.wait_for_selector(".chip:not(.markup)", timeout=SOON)
        panel = page.locator(".st-key-panel")
        page.get_by_text("Tap a token").wait_for()
        assert panel.bounding_box()["height"] < 50
        page.get_by_text("Open in Explore").wait_for(timeout=SOON)
        page.locator(".chip:not(.markup):not(.unread)").first.click()
        page.wait_for_selector(".nla-said")
        assert panel.bounding_box()["height"] > 100
        page.close()
