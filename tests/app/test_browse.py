"""Browse: facets and order are the URL, pages follow each other, no combination breaks it."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from nla_core.data.dataset import TranscriptSort
from nla_core.data.queries import FIDELITY_BANDS, LENGTH_BANDS
from nla_core.links import FidelityBand, Layout, LengthBand, SortKey, ViewState
from nla_core.schema import Flag
from nla_core.ui import browser
from tests.app.conftest import Open
from tests.app.test_explore import component, html, view_of
from tests.helpers import transcript_id_of

BROWSE = "pages/browse.py"


def listed(app: AppTest) -> list[str]:
    groups = component(app, "nla_cards")["groups"]
    return [item["id"] for group in groups for item in group["items"]]


def test_links_and_the_store_name_the_same_bands_and_orders() -> None:
    assert set(get_args(SortKey)) == set(get_args(TranscriptSort))
    assert set(get_args(FidelityBand)) == {band.name for band in FIDELITY_BANDS}
    assert set(get_args(LengthBand)) == {band.name for band in LENGTH_BANDS}


def test_every_transcript_is_a_link_with_its_fidelity_along_it(open_app: Open) -> None:
    app = open_app(page=BROWSE)
    assert not app.exception
    items = [i for g in component(app, "nla_cards")["groups"] for i in g["items"]]
    assert len(items) == 6
    drawn = next(item for item in items if item["id"] == transcript_id_of("facts-001"))
    assert drawn["query"] == ViewState(transcript=drawn["id"]).query
    assert len(drawn["spark"]) > 2
    failed = next(item for item in items if item["id"] == transcript_id_of("long-001"))
    assert failed["failed"]
    assert "spark" not in failed


def test_a_facet_narrows_the_list_and_says_how_many_it_leaves(open_app: Open) -> None:
    app = open_app(page=BROWSE)
    pills = app.pills(key="facet_category")
    assert r"facts \(2\)" in pills.options  # a label is markdown
    pills.set_value("facts").run()
    assert view_of(app) == ViewState(category="facts")
    assert len(listed(app)) == 2
    assert "2 of 6 transcripts" in html(app)
    app.button(key="drop_category").click().run()
    assert view_of(app) == ViewState()
    assert len(listed(app)) == 6


def test_words_order_and_layout_are_the_url(open_app: Open) -> None:
    app = open_app(page=BROWSE)
    app.text_input(key="filter").set_value("France").run()
    app.selectbox(key="order").select(("n_tokens", True)).run()
    app.segmented_control(key="layout").set_value("table").run()
    expected = ViewState(contains="France", sort="n_tokens", descending=True, layout="table")
    assert view_of(app) == expected
    assert app.dataframe[0].value["title"].tolist() == ["Capital of France"]


def test_an_empty_list_says_which_filter_empties_it(open_app: Open) -> None:
    app = open_app(ViewState(category="facts", tag="code"), page=BROWSE)
    assert "No transcript passes all of these filters" in html(app)
    assert "2" in app.button(key="without_tag").label
    app.button(key="without_tag").click().run()
    assert view_of(app) == ViewState(category="facts")
    assert len(listed(app)) == 2


def test_pages_follow_each_other_without_gap(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "PAGE", 2)
    app = open_app(ViewState(sort="title"), page=BROWSE)
    seen = listed(app)
    while [b for b in app.button if b.key == "next_page"]:
        app.button(key="next_page").click().run()
        assert not app.exception
        seen += listed(app)
    assert len(seen) == len(set(seen)) == 6
    app.button(key="first_page").click().run()
    assert listed(app) == seen[:2]


def test_a_page_of_another_version_starts_over(open_app: Open) -> None:
    app = open_app(ViewState(after="no-such-transcript"), page=BROWSE)
    assert not app.exception
    assert view_of(app) == ViewState()
    assert len(listed(app)) == 6


names = st.sampled_from(["facts", "code", "language switching", "no such thing"])
views = st.builds(
    ViewState,
    category=st.none() | names,
    tag=st.none() | st.sampled_from(["geography", "multilingual", "nothing"]),
    flag=st.none() | st.sampled_from([str(flag) for flag in Flag]),
    fidelity=st.none() | st.sampled_from(get_args(FidelityBand)),
    length=st.none() | st.sampled_from(get_args(LengthBand)),
    contains=st.sampled_from(["", "France", "'; DROP TABLE x --", "%", "挨"]),
    sort=st.sampled_from(get_args(SortKey)),
    descending=st.booleans(),
    layout=st.sampled_from(get_args(Layout)),
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(views)
def test_no_combination_breaks_the_page_or_its_url(open_app: Open, view: ViewState) -> None:
    app = open_app(view, page=BROWSE)
    assert not app.exception
    assert view_of(app) == view
    assert replace(view_of(app)).query == view.query
