"""Every page in light and dark, from a phone to a wall: drawn, whole, and usable by everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from nla_core.links import SearchView, ViewState
from scripts.screenshots import serving
from tests.helpers import transcript_id_of

Visit = Callable[..., Any]

FACTS = transcript_id_of("facts-001")
LONG = transcript_id_of("long-002")

# Addresses as a colleague would send them, and what must be there.
PAGES = {
    "/": ".chip.locked",
    "/?" + ViewState(transcript=LONG, position=40, range=(30, 60), note="Look").query: ".ranged",
    "/?" + ViewState(transcript=FACTS, measure="surprisal").query: ".legend .ramp",
    "/browse": ".cards .card",
    "/browse?" + ViewState(layout="table", category="facts").query: '[data-testid="stDataFrame"]',
    "/search": "[data-testid='stTextInput'] input",
    "/search?" + SearchView(text="geography", mode="keyword").query: ".cards mark",
    "/about": ".nla-facts",
}
# These show what is derived beside a dataset, and the shipped one has it.
OF_THE_DEMO = {
    "/compare?t=9c6d383ba891&p=30": ".claims li",
    "/audit?concept=refusing": ".cards .card",
}
EVERY = pytest.mark.parametrize("path", list(PAGES))
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
SIDEWAYS = """() => Math.max(document.documentElement.scrollWidth,
    document.querySelector('[data-testid=stMain]').scrollWidth) - window.innerWidth"""


@pytest.fixture(scope="module")
def demo(window: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(NLA_OWN=str(tmp_path_factory.mktemp("own"))) as address:
        yield address


@EVERY
def test_a_cold_link_is_drawn_whole(visit: Visit, path: str) -> None:
    """Cold on a phone, then at every width in both schemes."""
    page = visit(path, width=360, height=900, color_scheme="light")
    drawn_whole(page, PAGES[path])


@pytest.mark.parametrize("path", list(OF_THE_DEMO))
def test_a_cold_link_to_what_is_derived(visit: Visit, demo: str, path: str) -> None:
    page = visit(path, address=demo, width=360, height=900, color_scheme="light")
    drawn_whole(page, OF_THE_DEMO[path])


def drawn_whole(page: Any, what: str) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (360, 1100, 2560):
            page.set_viewport_size({"width": width, "height": 900})
            expect(page.locator(what).first).to_be_visible()
            expect(page.get_by_test_id("stException")).to_have_count(0)
            page.wait_for_timeout(250)
            assert page.evaluate(SIDEWAYS) <= 0, (scheme, width)


@EVERY
@SCHEMES
def test_nothing_keeps_people_out(visit: Visit, path: str, scheme: str) -> None:
    page = visit(path, color_scheme=scheme)
    accessible(page, PAGES[path])


@pytest.mark.parametrize("path", list(OF_THE_DEMO))
@SCHEMES
def test_nothing_keeps_people_from_what_is_derived(
    visit: Visit, demo: str, path: str, scheme: str
) -> None:
    accessible(visit(path, address=demo, color_scheme=scheme), OF_THE_DEMO[path])


def accessible(page: Any, what: str) -> None:
    """axe-core finds no serious violation of WCAG 2.2 A and AA."""
    expect(page.locator(what).first).to_be_visible()
    page.wait_for_timeout(1500)  # charts come after the first token
    found = Axe().run(page).response["violations"]
    serious = [
        (v["id"], [node["target"] for node in v["nodes"]])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_a_page_asks_no_other_server_for_anything(visit: Visit, address: str) -> None:
    """Transcripts may be confidential: not even their visit is anybody else's business."""
    page = visit("/about")
    elsewhere: list[str] = []

    def hear(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            elsewhere.append(request.url)

    page.on("request", hear)
    for path in PAGES:
        page.goto(address + path)
        expect(page.locator(PAGES[path]).first).to_be_visible()
        page.wait_for_timeout(500)
    assert elsewhere == []


def test_an_embedded_page_is_the_transcript_alone(visit: Visit) -> None:
    page = visit("/?embed=true&" + ViewState(transcript=FACTS, position=8).query)
    expect(page.locator(".chip.locked")).to_have_count(1)
    expect(page.get_by_role("heading", level=1)).to_have_text("Capital of France")
    expect(page.locator(".library")).to_have_count(0)
    expect(page.get_by_role("link", name="Browse")).to_have_count(0)


def test_whoever_judges_with_the_keyboard_keeps_the_place(visit: Visit, demo: str) -> None:
    page = visit("/audit?concept=refusing", address=demo)
    second = page.get_by_role("button", name="Right", exact=True).nth(1)
    second.focus()
    page.keyboard.press("Enter")
    judged = page.get_by_role("button", name="Take the verdict back")
    expect(judged).to_be_focused(timeout=20_000)
    page.keyboard.press("Enter")
    expect(judged).to_have_count(0, timeout=20_000)
    expect(second).to_be_focused()


def test_claim_and_evidence_light_each_other(visit: Visit, demo: str) -> None:
    page = visit("/compare?t=9c6d383ba891&p=30", address=demo)
    page.locator(".claims li.said", has_text="Saturn").first.hover()
    expect(page.locator(".chip.evidence")).to_have_text(["Saturn"])
    page.locator(".chip.locked").hover()
    expect(page.locator(".claims li.lit").first).to_contain_text("Saturn")


def test_browse_opens_a_transcript_and_back_returns(visit: Visit) -> None:
    page = visit("/browse")
    page.get_by_role("link", name="Capital of France").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Capital of France")
    expect(page.locator(".chip:not(.markup)").first).to_be_visible()
    page.go_back()
    expect(page.locator(".cards .card").first).to_be_visible()


def test_searching_as_one_types_and_opening_a_hit(visit: Visit) -> None:
    page = visit("/search?mode=keyword")
    page.get_by_role("searchbox", name="Search readings").press_sequentially("geograph", delay=40)
    mark = page.locator(".cards mark").first
    expect(mark).to_have_text("geography")
    page.wait_for_function("location.search.includes('q=geograph')")
    link = page.locator(".cards a.card").first
    query = link.get_attribute("data-query")
    link.click()
    page.wait_for_function("q => location.search === '?' + q", arg=query)
    expect(page.locator(".chip.locked")).to_have_count(1)


def test_a_download_holds_the_readings(visit: Visit, tmp_path: Path) -> None:
    page = visit("/?" + ViewState(transcript=FACTS, position=8).query)
    expect(page.locator(".chip.locked")).to_have_count(1)
    page.get_by_role("button", name="Download").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Plain dump").click()
    text = Path(waiting.value.path()).read_text(encoding="utf-8")
    assert "# version: v-" in text
    assert f"transcript-{FACTS}" in waiting.value.suggested_filename
    assert "' capital':" in text
