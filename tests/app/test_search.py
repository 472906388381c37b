"""Search: what is typed is the URL, hits are permalinks, nothing typed breaks it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from nla_core import opened
from nla_core.data.dataset import Dataset
from nla_core.links import SearchView, ViewState
from nla_core.schema import Flag, Role
from tests.app.conftest import Open
from tests.app.test_compare import HashEncoder
from tests.app.test_explore import component, html
from tests.helpers import transcript_id_of

SEARCH = "pages/search.py"
WORD = "geography"  # stands in explanations of the tests' dataset


def search_of(app: AppTest) -> SearchView:
    parsed = SearchView.parse({name: str(value) for name, value in dict(app.query_params).items()})
    assert parsed.problems == ()
    return parsed.view


def found(app: AppTest) -> list[dict[str, object]]:
    return [item for group in component(app, "nla_cards")["groups"] for item in group["items"]]


def test_nothing_asked_offers_examples(open_app: Open) -> None:
    app = open_app(SearchView(), page=SEARCH)
    assert not app.exception
    assert "Try one of these" in html(app)
    app.button(key="example_1").click().run()
    assert search_of(app).text


def test_typing_searches_and_every_hit_is_a_permalink(open_app: Open) -> None:
    app = open_app(SearchView(mode="keyword"), page=SEARCH)
    app.text_input(key="search_text").set_value(WORD).run()
    assert search_of(app) == SearchView(text=WORD, mode="keyword")
    hits = found(app)
    assert hits
    for hit in hits:
        view = ViewState.parse_query(str(hit["query"])).view
        assert view.token is not None
        start, end = hit["spans"][0]  # type: ignore[index]
        assert str(hit["text"])[start:end].casefold().startswith(WORD)


def test_a_hit_can_be_asked_for_more_and_for_less(open_app: Open, dataset_root: object) -> None:
    dataset = Dataset.open(dataset_root)  # type: ignore[arg-type]
    reading = str(dataset.find_readings(limit=1)["reading_id"].iloc[0])
    app = open_app(SearchView(like=reading), page=SEARCH)
    assert not app.exception
    assert "Like the reading" in html(app)
    assert all(hit["id"] != reading for hit in found(app))
    app.button(key="drop_like").click().run()
    assert search_of(app) == SearchView()


def test_an_empty_result_says_why_and_what_is_near(open_app: Open) -> None:
    app = open_app(
        SearchView(text=WORD, mode="keyword", category="code", role="system"), page=SEARCH
    )
    assert not app.exception
    assert "Nothing was found" in html(app)
    near = [button for button in app.button if str(button.key).startswith("near_")]
    assert near
    near[0].click().run()
    assert found(app)


def test_filters_are_the_url(open_app: Open) -> None:
    app = open_app(SearchView(text=WORD, mode="keyword"), page=SEARCH)
    app.pills(key="filter_role").set_value("user").run()
    app.pills(key="filter_floor").set_value(0.2).run()
    app.pills(key="filter_without").set_value("cut").run()
    app.number_input(key="from_position").set_value(5).run()
    view = search_of(app)
    assert (view.role, view.floor, view.without) == ("user", 0.2, "cut")
    assert view.range is not None
    assert view.range[0] == 5
    assert not app.exception
    app.button(key="clear_filters").click().run()
    assert search_of(app) == SearchView(text=WORD, mode="keyword")


def test_visible_text_is_found_with_its_token(open_app: Open) -> None:
    app = open_app(SearchView(text="capital of France", within="visible"), page=SEARCH)
    assert not app.exception
    (first, *_) = found(app)
    view = ViewState.parse_query(str(first["query"])).view
    assert view.transcript == transcript_id_of("facts-001")
    assert view.position is not None


def test_words_that_stand_nowhere_can_be_searched_for_by_meaning(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "encoder", HashEncoder)
    app = open_app(SearchView(text="zzzqqq", mode="keyword"), page=SEARCH)
    assert "Nothing was found" in html(app)
    app.button(key="by_meaning").click().run()
    assert search_of(app) == SearchView(text="zzzqqq", mode="semantic")
    assert not app.exception


def test_a_reading_that_is_not_here_is_a_message(open_app: Open) -> None:
    app = open_app(SearchView(like="ffffffffffff"), page=SEARCH)
    assert not app.exception
    assert 'role="status"' in html(app)


def test_the_dataset_of_another_encoder_is_searched_by_words(open_app: Open) -> None:
    """The vectors of the tests' dataset are none of the encoder's."""
    app = open_app(SearchView(text=WORD), page=SEARCH)
    assert not app.exception
    assert found(app)
    assert "Only words were searched for" in html(app)


anything = st.text(max_size=60) | st.sampled_from(
    ['"', "-", "*", "NEAR(a b)", "a OR b AND", "'; DROP TABLE readings; --", "(((", "\x00", "挨拶",
     "مرحبا", "👋🏽" * 20, "x" * 100_000, ".*", "{{x}}", "<script>alert(1)</script>"]
)  # fmt: skip
searches = st.builds(
    SearchView,
    text=anything.map(lambda t: "".join(c for c in t if c.isprintable()).strip()[:200].rstrip()),
    mode=st.sampled_from(["keyword", "hybrid"]),
    within=st.sampled_from(["explanations", "visible"]),
    unspoken=st.booleans(),
    category=st.none() | st.sampled_from(["facts", "nothing"]),
    role=st.none() | st.sampled_from([str(role) for role in Role]),
    flag=st.none() | st.sampled_from([str(flag) for flag in Flag]),
    floor=st.none() | st.sampled_from([-0.5, 0.2, 0.9]),
    range=st.none() | st.just((0, 20)),
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(searches)
@example(SearchView(text='"', mode="keyword"))
def test_no_search_breaks_the_page_or_its_url(open_app: Open, view: SearchView) -> None:
    app = open_app(view, page=SEARCH)
    assert not app.exception
    assert search_of(app) == view


@pytest.mark.parametrize("params", [{"q": "x" * 5000}, {"fve": "abc", "q": WORD}, {"shoe": "1"}])
def test_a_mangled_link_is_followed_as_far_as_it_goes(
    open_app: Open, params: dict[str, str]
) -> None:
    app = open_app(page=SEARCH, **params)
    assert not app.exception
    assert "could not be followed to the letter" in html(app)
