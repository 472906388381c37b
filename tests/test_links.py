"""Links round-trip, anything that arrives is read, and every form reads as it always did.

tests/data/links.json is frozen. It holds, for each page, a link as it may arrive, the fields of its
view that are not the default, the link that the page writes for that view, and what the visitor
reads about whatever could not be used.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nla_core import links
from nla_core.data.dataset import TranscriptSort
from nla_core.links import (
    FidelityBand,
    Layout,
    LengthBand,
    Measure,
    SearchIn,
    SearchMode,
    SearchView,
    SortKey,
    TokenRef,
    ViewState,
    unglued,
)
from nla_core.schema import Flag, Role

HERE: Final = Path(__file__).parent
GOLDEN: Final = json.loads((HERE / "data/links.json").read_text(encoding="utf-8"))
PARSE: Final[dict[str, Any]] = {
    "explore": links.ViewState.parse,
    "search": links.SearchView.parse,
    "compare": links.CompareView.parse,
    "audit": links.AuditView.parse,
    "run": links.RunView.parse,
    "steer": links.SteerView.parse,
}
SECTION: Final = {
    "explore": "Links to a token or a list",
    "search": "Links to a search",
    "compare": "Links to a comparison",
    "audit": "Links to an audit",
    "run": "Links to a run",
    "steer": "Links to an experiment",
}


def read(page: str, link: str) -> Any:
    return PARSE[page](dict(parse_qsl(link, keep_blank_values=True)))


@pytest.mark.parametrize("page", PARSE)
def test_each_link_reads_as_it_always_did(page: str) -> None:
    for golden in GOLDEN[page]:
        parsed = read(page, golden["link"])
        fields = {
            field.name: getattr(parsed.view, field.name)
            for field in dataclasses.fields(parsed.view)
            if getattr(parsed.view, field.name) != field.default
        }
        found = {
            "link": golden["link"],
            "view": json.loads(json.dumps(fields)),
            "canonical": parsed.view.query,
            "problems": list(parsed.problems),
        }
        if parsed.wanted is not None:
            found["wanted"] = parsed.wanted
        assert found == golden


@pytest.mark.parametrize("page", PARSE)
def test_a_canonical_link_is_read_without_complaint_and_written_again(page: str) -> None:
    for golden in GOLDEN[page]:
        parsed = read(page, golden["canonical"])
        assert parsed.problems == ()
        assert parsed.view == read(page, golden["link"]).view
        assert parsed.view.query == golden["canonical"]


@pytest.mark.parametrize("page", PARSE)
def test_every_documented_parameter_is_in_a_golden_link(page: str) -> None:
    document = (HERE.parent / "docs/links.md").read_text(encoding="utf-8")
    section = document.split(f"## {SECTION[page]}\n")[1].split("\n## ")[0]
    documented = set(
        re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)))
    )
    written = {name for golden in GOLDEN[page] for name, _ in parse_qsl(golden["canonical"])}
    assert documented == written


# ---- properties ----------------------------------------------------------------------------------

ids = st.from_regex(links.ID_FORM, fullmatch=True).filter(lambda text: unglued(text) == text)


def texts(longest: int = links.LONGEST_TEXT) -> st.SearchStrategy[str]:
    return st.text(max_size=longest).map(
        lambda text: "".join(c for c in text if c.isprintable()).strip()
    )


indices = st.integers(0, links.LARGEST_INDEX)
ranges = st.none() | st.tuples(indices, indices).map(lambda ends: (min(ends), max(ends)))
names = st.none() | texts().filter(bool)
views = st.builds(
    ViewState,
    dataset=st.none() | ids,
    reading=st.none() | ids,
    transcript=st.none() | ids,
    position=st.none() | indices,
    sample=st.integers(0, 99),
    paragraph=st.none() | st.integers(0, 99),
    range=ranges,
    note=texts(links.LONGEST_NOTE),
    measure=st.sampled_from(get_args(Measure)),
    phrase=texts(),
    category=names,
    tag=names,
    flag=st.none() | st.sampled_from([str(flag) for flag in Flag]),
    fidelity=st.none() | st.sampled_from(get_args(FidelityBand)),
    length=st.none() | st.sampled_from(get_args(LengthBand)),
    contains=texts(),
    sort=st.sampled_from(get_args(SortKey)),
    descending=st.booleans(),
    layout=st.sampled_from(get_args(Layout)),
    after=names,
    markup=st.booleans(),
).map(ViewState.normal)
searches = st.builds(
    SearchView,
    dataset=st.none() | ids,
    text=texts(),
    mode=st.sampled_from(get_args(SearchMode)),
    within=st.sampled_from(get_args(SearchIn)),
    like=st.none() | ids,
    unlike=texts(),
    unspoken=st.booleans(),
    category=names,
    tag=names,
    role=st.none() | st.sampled_from([str(role) for role in Role]),
    flag=st.none() | st.sampled_from([str(flag) for flag in Flag]),
    without=st.none() | st.sampled_from([str(flag) for flag in Flag]),
    floor=st.none() | st.integers(-300, 100).map(lambda hundredths: hundredths / 100),
    range=ranges,
    after=names,
)


@given(searches)
def test_a_search_survives_its_link(view: SearchView) -> None:
    parsed = SearchView.parse(dict(parse_qsl(view.query, keep_blank_values=True)))
    assert parsed.view == view
    assert parsed.problems == ()


@given(st.dictionaries(st.sampled_from(SearchView.names()) | st.text(max_size=12), st.text()))
def test_whatever_arrives_as_a_search_is_read(params: dict[str, str]) -> None:
    parsed = SearchView.parse(params)
    assert all(problem.endswith(".") and problem.isprintable() for problem in parsed.problems)
    assert SearchView.parse(parsed.view.params()).view == parsed.view


@given(views)
def test_a_view_survives_its_link(view: ViewState) -> None:
    parsed = ViewState.parse_query(view.query)
    assert parsed.view == view
    assert parsed.problems == ()
    assert parsed.wanted is None


@given(views)
def test_there_is_one_link_a_view(view: ViewState) -> None:
    assert ViewState.parse_query(view.query).view.query == view.query
    assert set(view.params()) <= set(ViewState.names())


@given(
    st.dictionaries(
        st.sampled_from(ViewState.names()) | st.text(max_size=12), st.text(max_size=300)
    )
)
def test_whatever_arrives_is_read(params: dict[str, str]) -> None:
    parsed = ViewState.parse(params)
    assert parsed.view == parsed.view.normal()
    assert all(problem.endswith(".") and problem.isprintable() for problem in parsed.problems)
    assert ViewState.parse_query(parsed.view.query).view == parsed.view


def test_a_token_is_its_own_link() -> None:
    token = TokenRef("3f9ac0d2", 41, 2)
    assert token.query == "t=3f9ac0d2&p=41&s=2"
    assert ViewState.parse_query(token.query).view.token == token
    assert TokenRef("3f9ac0d2", 0).query == "t=3f9ac0d2&p=0"


@pytest.mark.parametrize("end", [".", ")", "),", ">", "”", "…", " "])
def test_what_a_mail_program_glues_to_a_link_is_dropped(end: str) -> None:
    parsed = ViewState.parse_query("t=3f9ac0d2&p=41" + end)
    assert parsed.view == ViewState(transcript="3f9ac0d2", position=41)
    assert parsed.problems == ()
    assert ViewState.parse_query("t=3f9ac0d2" + quote(end)).view.transcript == "3f9ac0d2"


def test_a_link_pasted_from_source_is_read() -> None:
    assert ViewState.parse_query("t=3f9ac0d2&amp;p=41").view.token == TokenRef("3f9ac0d2", 41)


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("t=3f9a&p=4x", "“4x” is not a whole number"),
        ("t=3f9a&p=-1", "“-1” is not a whole number"),
        ("t=3f9a&p=٣", "is not a whole number"),
        ("t=3f9a&p=99999999999999999999", "is not a whole number"),
        ("t=a/b c", "cannot be the id of a transcript"),
        ("t=", "names no transcript"),
        ("p=4", "names a position but no transcript"),
        ("t=3f9a&s=2", "names a sample but no position"),
        ("sort=shoe_size", "cannot be sorted by “shoe_size”"),
        ("markup=maybe", "0 or 1"),
        ("t=3f9a&h=a-4", "is not of the form 12-40"),
        ("m=shoe", "cannot be coloured by “shoe”"),
        ("flag=tall", "No reading is flagged “tall”"),
        ("token=4", "“token” that means nothing here"),
        ("q=" + "x" * 300, "longer than 200"),
    ],
)
def test_what_cannot_be_used_is_said(query: str, word: str) -> None:
    problems = ViewState.parse_query(query).problems
    assert len(problems) == 1
    assert word in problems[0]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("t=3f9a&h=40-12", {"range": (12, 40)}),
        ("t=3f9a&h=12–40", {"range": (12, 40)}),
        ("t=3f9a&h=7", {"range": (7, 7)}),
        ("h=12-40", {"range": None}),  # of no transcript
        ("t=3f9a&m=phrase", {"measure": "fve"}),  # of no phrase
        ("note=hello", {"note": ""}),
    ],
)
def test_ranges_and_what_hangs_in_the_air(query: str, fields: dict[str, object]) -> None:
    parsed = ViewState.parse_query(query)
    assert parsed.problems == ()
    assert {name: getattr(parsed.view, name) for name in fields} == fields


def test_a_note_stays_with_what_it_was_written_on() -> None:
    view = ViewState(transcript="3f9a", position=4, range=(2, 9), note="look")
    assert view.at(5).note == ""
    assert view.at(5).range == (2, 9)
    assert view.opened("77").range is None


def test_an_impossible_id_is_kept_for_the_search_of_near_ones() -> None:
    parsed = ViewState.parse_query("t=rhyme%20and%2Freason&p=3")
    assert parsed.wanted == "rhyme and/reason"
    assert parsed.view.transcript is None


def test_tracking_fields_are_no_news() -> None:
    assert ViewState.parse_query("t=3f9a&utm_source=mail&fbclid=xyz").problems == ()


def test_links_and_the_store_sort_by_the_same_columns() -> None:
    assert set(get_args(SortKey)) == set(get_args(TranscriptSort))
