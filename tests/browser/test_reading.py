"""Reading with the keyboard and the mouse: ranges, hits, what is shared and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import expect

from nla_core.data.dataset import Dataset
from nla_core.links import ViewState
from tests.browser.test_explore import chip, content
from tests.helpers import transcript_id_of

Visit = Callable[..., Any]

FACTS = transcript_id_of("facts-001")
LONG = transcript_id_of("long-002")


def view_of(page: Any) -> ViewState:
    parsed = ViewState.parse(dict(parse_qsl(urlsplit(page.url).query)))
    assert parsed.problems == ()
    return parsed.view


def marked(page: Any, first: int, last: int) -> None:
    page.wait_for_function("h => location.search.includes('h=' + h)", arg=f"{first}-{last}")
    page.wait_for_selector(".chip.ranged")  # the address may change before the strip is painted
    positions = page.locator(".chip.ranged").evaluate_all("all => all.map((c) => +c.dataset.p)")
    assert (positions[0], positions[-1]) == (first, last)


def test_dragging_over_tokens_marks_a_range(visit: Visit, dataset_root: Path) -> None:
    first, last = content(dataset_root, LONG)[12], content(dataset_root, LONG)[15]
    page = visit("/?" + ViewState(transcript=LONG).query)
    page.wait_for_timeout(1500)  # the charts come after the first token
    chip(page, first).hover()
    page.mouse.down()
    chip(page, last).hover()
    page.mouse.up()
    marked(page, first, last)
    expect(page.get_by_text(f"tokens {first} to {last}")).to_be_visible()
    page.get_by_role("button", name="Clear the range").click()
    expect(page.locator(".chip.ranged")).to_have_count(0)


def test_shift_marks_a_range_with_mouse_and_keyboard(visit: Visit, dataset_root: Path) -> None:
    positions = content(dataset_root, LONG)
    page = visit("/?" + ViewState(transcript=LONG, position=positions[10]).query)
    chip(page, positions[14]).click(modifiers=["Shift"])
    marked(page, positions[10], positions[14])
    assert view_of(page).position == positions[10]  # what was locked stays
    chip(page, positions[20]).click()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    marked(page, positions[20], positions[22])
    page.keyboard.press("Escape")
    expect(page.locator(".chip.locked")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator(".chip.ranged")).to_have_count(0)


def test_n_and_p_go_from_hit_to_hit(visit: Visit, dataset_root: Path) -> None:
    readings = Dataset.open(dataset_root).readings(FACTS)
    held = readings[readings["explanation"].str.contains("geography", case=False)]
    hits = sorted(held["position"].unique().tolist())
    assert len(hits) > 2
    page = visit("/?" + ViewState(transcript=FACTS, phrase="geography").query)
    expect(page.locator(".chip.hit")).to_have_count(len(hits))
    page.get_by_role("heading", level=1).click()
    for key, at in [("n", 0), ("n", 1), ("p", 0), ("p", len(hits) - 1)]:
        page.keyboard.press(key)
        page.wait_for_function("p => location.search.includes('p=' + p + '&')", arg=str(hits[at]))


def test_a_late_answer_to_an_earlier_key_does_not_take_the_reader_back(
    visit: Visit, dataset_root: Path
) -> None:
    positions = content(dataset_root, LONG)[10:13]
    page = visit("/?" + ViewState(transcript=LONG, position=positions[0]).query)
    chip(page, positions[0]).focus()
    page.wait_for_function("p => location.search.includes('p=' + p)", arg=str(positions[0]))
    still_locked = chip(page, positions[1]).evaluate(
        """(node) => {
          const earlier = [...window.nlaStripState.values()].at(-1);
          node.click();
          const now = Date.now;
          Date.now = () => now() + 5000;
          window.dispatchEvent(new CustomEvent("nla:strip-state", { detail: earlier }));
          Date.now = now;
          return node.classList.contains("locked");
        }"""
    )
    assert still_locked
    page.wait_for_function("p => location.search.includes('p=' + p)", arg=str(positions[1]))
    chip(page, positions[1]).press("ArrowRight")
    page.wait_for_function("p => location.search.includes('p=' + p)", arg=str(positions[2]))


def test_keys_are_listed_and_the_search_field_is_one_key_away(visit: Visit) -> None:
    page = visit("/?" + ViewState(transcript=FACTS).query)
    expect(page.locator(".chip:not(.markup)").first).to_be_visible()
    page.get_by_role("heading", level=1).click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    page.keyboard.press("/")
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert "Phrase to look for" in (focused or "")
    page.keyboard.type("?n/p")  # in a field they are letters
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()


def test_a_shared_note_is_shown_as_the_sharers(visit: Visit, dataset_root: Path) -> None:
    position = content(dataset_root, FACTS)[4]
    page = visit("/?" + ViewState(transcript=FACTS, position=position).query)
    page.get_by_role("button", name="Share").click()
    page.get_by_label("Note for whoever opens it").fill("<b>Trust me</b> & look")
    link = page.get_by_label("Link", exact=True).input_value()
    assert ViewState.parse(dict(parse_qsl(urlsplit(link).query))).view == ViewState(
        transcript=FACTS, position=position, note="<b>Trust me</b> & look"
    )
    other = visit("/?" + urlsplit(link).query)
    note = other.get_by_role("complementary", name="A note from whoever made this link")
    expect(note).to_contain_text("not from this site")
    expect(note).to_contain_text("<b>Trust me</b> & look")


def test_a_short_link_opens_its_reading(visit: Visit, dataset_root: Path) -> None:
    row = Dataset.open(dataset_root).readings(FACTS).iloc[5]
    page = visit("/?r=" + str(row["reading_id"]))
    expected = ViewState(transcript=FACTS, position=int(row["position"])).query
    page.wait_for_function("q => location.search === '?' + q", arg=expected)
    expect(page.locator(".chip.locked")).to_have_count(1)


@pytest.mark.parametrize("name", ["Markdown", "JSON", "BibTeX"])
def test_a_reading_is_copied_with_its_permalink(
    visit: Visit, address: str, dataset_root: Path, name: str
) -> None:
    position = content(dataset_root, FACTS)[4]
    view = ViewState(transcript=FACTS, position=position)
    page = visit("/?" + view.query, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Share").click()
    page.get_by_role("button", name=name).click()
    expect(page.get_by_role("status").get_by_text(f"{name} copied")).to_be_visible()
    text = page.evaluate("navigator.clipboard.readText()")
    assert f"{address}/?{view.query}" in text
    if name == "JSON":
        assert json.loads(text)["position"] == position


def test_a_long_transcript_has_a_map_that_leads_to_its_end(visit: Visit) -> None:
    page = visit("/?" + ViewState(transcript=LONG).query)
    cells = page.locator(".map span")
    expect(page.locator(".map")).to_be_visible()
    last = page.locator(".chip:not(.markup)").last
    expect(last).not_to_be_in_viewport()
    cells.last.click()
    expect(last).to_be_in_viewport()
