"""Explore in a real browser: links, clicks, keys, Back, themes, small screens."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import expect

from nla_core.data.dataset import Dataset
from nla_core.links import TokenRef, ViewState
from scripts.screenshots import serving
from tests.helpers import transcript_id_of

FACTS = transcript_id_of("facts-001")
LANGUAGE = transcript_id_of("language-001")
LONG = transcript_id_of("long-002")

Visit = Callable[..., Any]


def explanation(root: Path, ref: TokenRef) -> str:
    rows = Dataset.open(root).readings(ref.transcript)
    return str(rows.loc[rows["position"] == ref.position, "explanation"].iloc[0])


def content(root: Path, transcript_id: str) -> list[int]:
    tokens = Dataset.open(root).tokens(transcript_id)
    tokens = tokens[(tokens["section"] == "content") & (tokens["text"] != "")]
    return [int(position) for position in tokens["position"]]


def chip(page: Any, position: int) -> Any:
    return page.locator(f".chip[data-p='{position}']")


def shows(page: Any, root: Path, ref: TokenRef) -> None:
    """The panel, the strip and the address bar agree on this token."""
    expect(page.locator(".nla-said")).to_have_text(explanation(root, ref))
    expect(page.locator(".nla-token span")).to_contain_text(f"token {ref.position} ")
    expect(page.locator(".chip.locked")).to_have_count(1)
    expect(chip(page, ref.position)).to_have_class(re.compile(r"\blocked\b"))
    expect(chip(page, ref.position)).to_have_attribute("aria-selected", "true")
    page.wait_for_function("query => location.search === '?' + query", arg=ref.query)


def title_is(page: Any, part: str) -> None:
    """While one transcript replaces another, both titles stand on the page for a moment."""
    expect(page.get_by_role("heading", level=1, name=part)).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_count(1)


def test_a_cold_permalink_shows_its_token(visit: Visit, dataset_root: Path) -> None:
    ref = TokenRef(FACTS, content(dataset_root, FACTS)[5])
    for path in ("/", "/explore"):
        shows(visit(f"{path}?{ref.query}"), dataset_root, ref)


@pytest.mark.parametrize("path", ["/explore", "/about"])
def test_the_first_link_to_a_fresh_server_has_its_frame(
    window: Any, dataset_root: Path, path: str
) -> None:
    ref = TokenRef(FACTS, content(dataset_root, FACTS)[5])
    with serving(dataset_root) as address:
        page = window.new_page()
        page.goto(f"{address}{path}?{ref.query}")
        expect(page).to_have_title(re.compile("Explore|About|NLA Explorer"))
        expect(page.get_by_role("link", name="About")).to_be_visible(timeout=20_000)
        if path == "/explore":
            shows(page, dataset_root, ref)
        else:
            expect(page.get_by_role("heading", name="What the numbers mean")).to_be_visible()
        page.close()


def test_a_click_locks_a_token(visit: Visit, dataset_root: Path) -> None:
    first, second = content(dataset_root, FACTS)[5:7]
    page = visit("/?" + TokenRef(FACTS, first).query)
    shows(page, dataset_root, TokenRef(FACTS, first))
    chip(page, second).click()
    shows(page, dataset_root, TokenRef(FACTS, second))


def test_hovering_shows_a_reading_without_locking_it(visit: Visit, dataset_root: Path) -> None:
    first, second = content(dataset_root, FACTS)[5:7]
    page = visit("/?" + TokenRef(FACTS, first).query)
    chip(page, second).hover()
    said = explanation(dataset_root, TokenRef(FACTS, second))
    expect(page.locator(".card .said")).to_have_text(said)
    shows(page, dataset_root, TokenRef(FACTS, first))
    page.mouse.move(2, 2)
    expect(page.locator(".card")).to_be_hidden()


def test_keys_move_the_lock_and_let_go(visit: Visit, dataset_root: Path) -> None:
    positions = content(dataset_root, FACTS)
    page = visit("/?" + TokenRef(FACTS, positions[5]).query)
    page.wait_for_timeout(1500)  # the charts come after the first token
    chip(page, positions[5]).click()
    for key, at in [
        ("ArrowRight", 6),
        ("ArrowRight", 7),
        ("ArrowLeft", 6),
        ("End", -1),
        ("Home", 0),
    ]:
        page.keyboard.press(key)
        shows(page, dataset_root, TokenRef(FACTS, positions[at]))
        focused = page.evaluate("document.activeElement.shadowRoot?.activeElement?.dataset.p")
        assert focused == str(positions[at])  # a run of the server does not take the focus away
    page.keyboard.press("Escape")
    expect(page.get_by_text("No token is locked.")).to_be_visible()
    expect(page.locator(".chip.locked")).to_have_count(0)
    page.keyboard.press("ArrowRight")  # without a lock the card follows, the URL does not
    said = explanation(dataset_root, TokenRef(FACTS, positions[1]))
    expect(page.locator(".card .said")).to_have_text(said)
    assert dict(parse_qsl(urlsplit(page.url).query)) == {"t": FACTS}
    page.keyboard.press("Enter")
    shows(page, dataset_root, TokenRef(FACTS, positions[1]))


def test_keys_can_outrun_the_server(visit: Visit, dataset_root: Path) -> None:
    positions = content(dataset_root, LONG)
    page = visit("/?" + TokenRef(LONG, positions[10]).query)
    chip(page, positions[10]).click()
    for _ in range(25):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(40)
    shows(page, dataset_root, TokenRef(LONG, positions[35]))
    page.wait_for_timeout(1200)  # no answer that is under way moves it back
    shows(page, dataset_root, TokenRef(LONG, positions[35]))


def test_up_and_down_move_between_lines(visit: Visit, dataset_root: Path) -> None:
    positions = content(dataset_root, LONG)
    page = visit("/?" + TokenRef(LONG, positions[60]).query)
    chip(page, positions[60]).click()
    before = chip(page, positions[60]).bounding_box()
    page.keyboard.press("ArrowDown")
    locked = page.locator(".chip.locked")
    expect(locked).not_to_have_attribute("data-p", str(positions[60]))
    after = locked.bounding_box()
    assert after["y"] > before["y"]

    def away(box: dict[str, float]) -> float:
        return abs(box["x"] + box["width"] / 2 - before["x"] - before["width"] / 2)

    boxes = [chip(page, position).bounding_box() for position in positions[61:100]]
    line = [box for box in boxes if abs(box["y"] - after["y"]) < 3]
    assert len(line) > 1
    assert away(after) == pytest.approx(min(map(away, line)), abs=1)


def test_back_and_forward_return(visit: Visit, dataset_root: Path) -> None:
    first, second = content(dataset_root, FACTS)[5:7]
    page = visit("/?" + TokenRef(FACTS, first).query)
    chip(page, second).click()
    shows(page, dataset_root, TokenRef(FACTS, second))
    page.locator(f".library a[data-id='{LANGUAGE}']").click()
    title_is(page, "Grüße")
    page.go_back()
    shows(page, dataset_root, TokenRef(FACTS, second))
    page.go_back()
    shows(page, dataset_root, TokenRef(FACTS, first))
    page.go_forward()
    shows(page, dataset_root, TokenRef(FACTS, second))


def test_a_visit_without_a_link_does_not_trap_back(visit: Visit) -> None:
    page = visit("/about")
    page.get_by_role("link", name="Explore").click()
    expect(page.locator(".chip.locked")).to_have_count(1)
    page.wait_for_timeout(500)
    page.go_back()
    expect(page.get_by_role("heading", name="What the numbers mean")).to_be_visible()


def test_the_link_that_is_copied_opens_the_same_token(visit: Visit, dataset_root: Path) -> None:
    page = visit("/")
    button = page.get_by_role("button", name="Copy link")
    expect(button).to_be_visible()
    said = page.locator(".nla-said").inner_text()
    link = urlsplit(button.get_attribute("data-link"))
    other = visit(f"{link.path}?{link.query}")
    expect(other.locator(".nla-said")).to_have_text(said)


def test_the_list_is_made_of_links(visit: Visit, dataset_root: Path) -> None:
    page = visit("/")
    href = page.locator(f".library a[data-id='{FACTS}']").get_attribute("href")
    assert href == "?" + ViewState(transcript=FACTS).query


def test_filtering_as_one_types(visit: Visit) -> None:
    page = visit("/")
    page.get_by_role("searchbox", name="Filter transcripts").press_sequentially("couplet", delay=60)
    expect(page.locator(".library a")).to_have_count(1)
    page.wait_for_function("location.search === '?q=couplet'")
    page.go_back()
    expect(page.locator(".library a")).not_to_have_count(1)
    expect(page.get_by_role("searchbox", name="Filter transcripts")).to_have_value("")


def test_characters_of_several_tokens_are_one_chip(visit: Visit, dataset_root: Path) -> None:
    page = visit("/?" + ViewState(transcript=LANGUAGE).query)
    tokens = Dataset.open(dataset_root).tokens(LANGUAGE)
    count = tokens.loc[tokens["section"] == "content", "chip"].nunique()
    expect(page.locator(".chip:not(.markup)")).to_have_count(count)
    expect(page.locator(".chip", has_text="挨").first).to_be_visible()


def test_blanks_are_visible_and_template_tokens_can_be_shown(
    visit: Visit, dataset_root: Path
) -> None:
    page = visit("/?" + ViewState(transcript=transcript_id_of("rhyme-001")).query)
    assert "↵" in page.locator(".turn[data-role='user'] .text").inner_text()
    template = page.locator(".chip.markup").first
    expect(template).to_be_hidden()
    page.get_by_text("Template tokens").click()
    expect(template).to_be_visible()
    page.wait_for_function("location.search.includes('markup=1')")


def test_text_of_models_stays_text(visit: Visit) -> None:
    page = visit("/?" + ViewState(transcript=transcript_id_of("markup-001")).query)
    expect(page.get_by_role("heading", level=1)).to_have_text("<b>HTML</b> & $math$ in a title")
    assert "<script>alert(1)</script>" in page.locator(".turn[data-role='assistant']").inner_text()


def test_a_mangled_link_says_so_and_offers_the_nearest(visit: Visit, dataset_root: Path) -> None:
    page = visit(f"/?t={FACTS[:9]}&p=7")
    expect(page.get_by_role("alert")).to_contain_text("There is no transcript")
    page.get_by_role("button", name="Capital of France").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Capital of France")
    page.wait_for_function("id => location.search === '?t=' + id", arg=FACTS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_are_drawn_with_their_own_colours(
    visit: Visit, dataset_root: Path, scheme: str
) -> None:
    ref = TokenRef(LONG, content(dataset_root, LONG)[30])
    page = visit("/?" + ref.query, color_scheme=scheme)
    shows(page, dataset_root, ref)
    ink, fill, paper = page.evaluate(
        """() => {
          const host = [...document.querySelectorAll('[data-testid=stBidiComponentIsolated]')]
            .find((h) => h.shadowRoot.querySelector('.strip'));
          const chip = getComputedStyle(host.shadowRoot.querySelector('.chip.f0, .chip.f1'));
          const app = getComputedStyle(document.querySelector('[data-testid=stApp]'));
          return [chip.color, chip.backgroundColor, app.backgroundColor];
        }"""
    )

    def brightness(colour: str) -> float:
        return sum(float(part) for part in re.findall(r"[\d.]+", colour)[:3]) / 765

    assert (brightness(paper) < 0.5) is (scheme == "dark")
    assert abs(brightness(fill) - brightness(paper)) < 0.2
    assert abs(brightness(ink) - brightness(fill)) > 0.5


@pytest.mark.parametrize("path", ["/", "/about"])
def test_a_phone_has_no_sideways_scroll(visit: Visit, path: str) -> None:
    page = visit(path, width=360, height=740, has_touch=True, is_mobile=True)
    page.wait_for_timeout(800)
    width = page.evaluate(
        """() => Math.max(document.documentElement.scrollWidth,
                       document.querySelector('[data-testid=stMain]').scrollWidth)"""
    )
    assert width <= 360


def test_a_tap_locks(visit: Visit, dataset_root: Path) -> None:
    position = content(dataset_root, FACTS)[2]
    page = visit("/?t=" + FACTS, width=390, height=844, has_touch=True, is_mobile=True)
    page.wait_for_timeout(1500)  # the charts come after the first token
    chip(page, position).tap()
    shows(page, dataset_root, TokenRef(FACTS, position))
    expect(page.locator(".nla-said")).to_be_in_viewport()


def test_a_phone_opens_a_transcript_and_shows_it(visit: Visit) -> None:
    page = visit("/", width=390, height=844, has_touch=True, is_mobile=True)
    page.get_by_test_id("stExpandSidebarButton").tap()
    page.locator(f".library a[data-id='{LANGUAGE}']").tap()
    title_is(page, "Grüße")
    expect(page.locator(f".library a[data-id='{LANGUAGE}']")).not_to_be_in_viewport()
    expect(page.locator(".chip:not(.markup)").first).to_be_in_viewport()


def test_chips_have_names_for_those_who_do_not_see_them(visit: Visit) -> None:
    page = visit("/?" + ViewState(transcript=FACTS).query)
    tokens = page.get_by_role("listbox", name="Tokens of the transcript")
    option = tokens.get_by_role("option", name=re.compile(r"^capital, fidelity -?\d\.\d\d"))
    expect(option.first).to_be_visible()
    assert tokens.locator("[tabindex='0']").count() == 1
