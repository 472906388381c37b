"""Explore: the URL says what is shown, widgets say what the URL becomes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from nla_core.data.dataset import Dataset
from nla_core.data.manifest import DATABASE
from nla_core.errors import NLAError
from nla_core.links import CompareView, ViewState
from tests.app.conftest import Open
from tests.helpers import ERROR_PROMPT, PAIR, RAWVAR, make_dataset, transcript_id_of

FACTS = transcript_id_of("facts-001")
LANGUAGE = transcript_id_of("language-001")


def html(app: AppTest) -> str:
    return "\n".join(element.value for element in app.get("html") if "<style>" not in element.value)


def component(app: AppTest, name: str) -> dict[str, Any]:
    """What a component was given; the strip's chips and its state in one."""
    found = [c.proto for c in app.get("bidi_component") if c.proto.component_name == name]
    assert len(found) == 1, f"{len(found)} components {name}"
    values = held(found[0])
    return values | component(app, f"{name}_state") if name == "nla_token_strip" else values


def held(proto: Any) -> Any:
    """The data of a component, in whichever field it travels."""
    return json.loads(proto.bytes or proto.json or proto.mixed.json)


def view_of(app: AppTest) -> ViewState:
    parsed = ViewState.parse({name: str(value) for name, value in dict(app.query_params).items()})
    assert parsed.problems == ()
    return parsed.view


def reading(root: Path, transcript_id: str, position: int, sample: int = 0) -> Any:
    rows = Dataset.open(root).readings(transcript_id)
    return rows[(rows["position"] == position) & (rows["sample"] == sample)].iloc[0]


def content_positions(root: Path, transcript_id: str) -> list[int]:
    tokens = Dataset.open(root).tokens(transcript_id)
    return [int(p) for p in tokens.loc[tokens["section"] == "content", "position"]]


def test_a_first_visit_opens_a_token_and_says_what_this_is(open_app: Open) -> None:
    app = open_app()
    assert not app.exception
    assert "natural language autoencoder" in html(app)
    strip = component(app, "nla_token_strip")
    assert strip["locked"] is not None
    assert strip["reveal"] is False  # nothing jumps under a visitor who asked for nothing
    assert dict(app.query_params) == {}  # so that Back leaves the app
    assert "What the model represents here" in html(app)


def test_a_permalink_shows_its_token(open_app: Open, dataset_root: Path) -> None:
    position = content_positions(dataset_root, FACTS)[3]
    app = open_app(ViewState(transcript=FACTS, position=position))
    said = reading(dataset_root, FACTS, position)
    assert component(app, "nla_token_strip")["locked"] == position
    for line in said["explanation"].splitlines():
        assert line.replace("'", "&#x27;") in html(app)
    assert f"<dd>{said['fve']:.2f}".replace("-", "−") in html(app)
    assert component(app, "nla_library")["current"] == FACTS
    assert "natural language autoencoder" not in html(app)


def test_fve_is_shown_with_its_denominator(open_app: Open, dataset_root: Path) -> None:
    position = content_positions(dataset_root, FACTS)[3]
    app = open_app(ViewState(transcript=FACTS, position=position))
    helps = [m.value for m in app.markdown if "fraction of variance explained" in m.value]
    assert len(helps) == 1
    said = reading(dataset_root, FACTS, position)
    assert f"= 1 − {said['mse_nrm']:.3f} ÷ {RAWVAR:.3f} = " in helps[0]


def test_the_copied_link_is_the_view(open_app: Open, dataset_root: Path) -> None:
    position = content_positions(dataset_root, FACTS)[3]
    view = ViewState(transcript=FACTS, position=position, markup=True, contains="france")
    assert component(open_app(view), "nla_copy_link")["query"] == view.query


def test_steps_change_the_url_and_the_panel(open_app: Open, dataset_root: Path) -> None:
    first, second = content_positions(dataset_root, FACTS)[2:4]
    app = open_app(ViewState(transcript=FACTS, position=first))
    app.button(key="step_1").click().run()
    assert view_of(app) == ViewState(transcript=FACTS, position=second)
    assert component(app, "nla_token_strip")["locked"] == second
    assert f"token {second} ·" in html(app)
    app.button(key="step_-1").click().run()
    assert view_of(app).position == first


def test_steps_end_where_the_text_ends(open_app: Open, dataset_root: Path) -> None:
    positions = content_positions(dataset_root, FACTS)
    app = open_app(ViewState(transcript=FACTS, position=positions[0]))
    assert app.button(key="step_-1").disabled
    assert not app.button(key="step_1").disabled
    app = open_app(ViewState(transcript=FACTS, position=positions[-1]))
    assert app.button(key="step_1").disabled


def test_the_other_sample_of_a_token_has_its_own_link(open_app: Open, dataset_root: Path) -> None:
    position = content_positions(dataset_root, FACTS)[4]
    app = open_app(ViewState(transcript=FACTS, position=position, sample=1))
    other = reading(dataset_root, FACTS, position, sample=1)
    assert f"<dd>{other['fve']:.2f}".replace("-", "−") in html(app)
    samples = app.segmented_control(key="sample")
    assert samples.value == 1
    samples.set_value(0).run()
    assert view_of(app) == ViewState(transcript=FACTS, position=position)


def test_a_token_of_a_character_can_be_chosen(open_app: Open, dataset_root: Path) -> None:
    tokens = Dataset.open(dataset_root).tokens(LANGUAGE)
    chips = tokens.groupby("chip")["position"].apply(list)
    pieces = next(positions for positions in chips if len(positions) > 1)
    app = open_app(ViewState(transcript=LANGUAGE, position=int(pieces[-1])))
    choice = app.segmented_control(key="piece")
    assert "This character is" in choice.label
    choice.set_value(int(pieces[0])).run()
    assert view_of(app).position == pieces[0]


def test_a_template_token_has_no_reading_and_says_why(open_app: Open) -> None:
    app = open_app(ViewState(transcript=FACTS, position=0))
    assert not app.exception
    assert "part of the chat template" in html(app)


def test_flags_are_explained_in_words(open_app: Open, dataset_root: Path) -> None:
    position = content_positions(dataset_root, FACTS)[0]
    app = open_app(ViewState(transcript=FACTS, position=position))
    assert "<b>Early position.</b> One of the first 20 positions" in html(app)


def test_a_cut_text_is_not_passed_off_as_whole(open_app: Open, dataset_root: Path) -> None:
    key = transcript_id_of("rhyme-001")
    position = next(p for p in content_positions(dataset_root, key) if p % 3 == 0)
    app = open_app(ViewState(transcript=key, position=position))
    assert "[…]</p>" in html(app)


def test_template_tokens_are_part_of_the_link(open_app: Open, dataset_root: Path) -> None:
    app = open_app(ViewState(transcript=FACTS, position=8))
    assert component(app, "nla_token_strip")["markup"] is False
    app.toggle(key="markup").set_value(True).run()
    assert view_of(app).markup is True
    assert component(app, "nla_token_strip")["markup"] is True


def test_a_transcript_that_failed_shows_its_error(open_app: Open) -> None:
    app = open_app(ViewState(transcript=transcript_id_of(ERROR_PROMPT)))
    assert not app.exception
    assert "does not fit" in html(app)
    assert "word word" in html(app)
    assert not any(c.proto.component_name == "nla_token_strip" for c in app.get("bidi_component"))


def test_text_of_users_is_never_markup(open_app: Open) -> None:
    key = transcript_id_of("markup-001")
    app = open_app(ViewState(transcript=key, position=8))
    assert "&lt;b&gt;HTML&lt;/b&gt; &amp; $math$ in a title" in html(app)
    assert "<b>HTML</b>" not in html(app)


# ---- the list ------------------------------------------------------------------------------------


def listed(app: AppTest) -> list[str]:
    groups = component(app, "nla_library")["groups"]
    return [item["id"] for group in groups for item in group["items"]]


def test_the_list_is_grouped_and_counted(open_app: Open) -> None:
    app = open_app()
    groups = {g["name"]: len(g["items"]) for g in component(app, "nla_library")["groups"]}
    assert groups["facts"] == 2
    assert sum(groups.values()) == 6
    assert "All categories (6)" in app.selectbox(key="category").options
    assert "facts (2)" in app.selectbox(key="category").options


def test_every_entry_of_the_list_is_a_link_to_its_transcript(open_app: Open) -> None:
    app = open_app(ViewState(contains="tallest"))
    links = component(app, "nla_library")["links"]
    key = transcript_id_of("facts-002")
    assert links == {key: ViewState(transcript=key, contains="tallest").query}


def test_filter_category_and_order_are_the_url(open_app: Open) -> None:
    app = open_app()
    app.text_input(key="filter").set_value("  France ").run()
    assert view_of(app) == ViewState(contains="France")
    assert listed(app) == [FACTS]
    app.text_input(key="filter").set_value("").run()
    app.selectbox(key="category").select("facts").run()
    assert view_of(app) == ViewState(category="facts")
    assert len(listed(app)) == 2
    app.selectbox(key="order").select(("n_tokens", True)).run()
    assert view_of(app) == ViewState(category="facts", sort="n_tokens", descending=True)
    assert listed(app)[0] == transcript_id_of("facts-002")


def test_a_linked_list_sets_its_widgets(open_app: Open) -> None:
    view = ViewState(category="facts", contains="tall", sort="title", descending=True)
    app = open_app(view)
    assert app.text_input(key="filter").value == "tall"
    assert app.selectbox(key="category").value == "facts"
    assert app.selectbox(key="order").value == ("title", True)
    assert view_of(app) == view


def test_a_reading_leads_to_its_claims(open_app: Open, dataset_root: Path) -> None:
    position = content_positions(dataset_root, FACTS)[3]
    app = open_app(ViewState(transcript=FACTS, position=position))
    links = [e.proto for e in app.get("page_link")]
    (link,) = [link for link in links if link.label == "Compare with the text"]
    assert CompareView.parse_query(link.query_string).view == CompareView(transcript=FACTS).at(
        position
    )


def test_a_colour_that_needs_a_phrase_asks_for_one(open_app: Open) -> None:
    app = open_app()
    app.segmented_control(key="measure").set_value("phrase").run()
    assert not app.exception
    assert view_of(app).measure == "fve"
    assert "Type a phrase into the field" in html(app)
    app.segmented_control(key="measure").set_value("surprisal").run()
    assert "Type a phrase into the field" not in html(app)


def test_a_list_without_matches_can_be_left(open_app: Open) -> None:
    app = open_app(ViewState(contains="zeppelin", category="facts"))
    assert "No transcript matches “zeppelin” in facts." in html(app)
    app.button(key="show_all").click().run()
    assert view_of(app) == ViewState()
    assert len(listed(app)) == 6


# ---- links that are wrong ------------------------------------------------------------------------


def test_a_cut_id_offers_the_transcript_it_began(open_app: Open) -> None:
    app = open_app(t=FACTS[:7], p="4")
    assert not app.exception
    assert f"There is no transcript “{FACTS[:7]}” in this dataset." in html(app)
    app.button(key=f"nearest_{FACTS}").click().run()
    assert view_of(app) == ViewState(transcript=FACTS)
    assert "There is no transcript" not in html(app)


@pytest.mark.parametrize("wanted", ["facts-01", "the talest mountain", "///", "x" * 5000])
def test_a_mangled_id_offers_something(open_app: Open, wanted: str) -> None:
    app = open_app(t=wanted)
    assert not app.exception
    assert "There is no transcript" in html(app)
    assert [b for b in app.button if b.key and b.key.startswith("nearest_")]
    assert component(app, "nla_library")["current"] is None


def test_a_position_beyond_the_end_shows_the_last_token(open_app: Open, dataset_root: Path) -> None:
    last = len(Dataset.open(dataset_root).tokens(FACTS)) - 1
    app = open_app(t=FACTS, p="9999")
    assert f"has no token 9999: its tokens are numbered 0 to {last}" in html(app)
    assert component(app, "nla_token_strip")["locked"] == last


def test_a_mangled_position_is_named_and_the_transcript_shown(open_app: Open) -> None:
    app = open_app(t=FACTS, p="4x", shoe="1")
    assert "The position “4x” is not a whole number" in html(app)
    assert "a field “shoe” that means nothing here" in html(app)
    assert component(app, "nla_token_strip")["locked"] is None
    assert "No token is locked." in html(app)


# ---- datasets that are wrong ---------------------------------------------------------------------


def test_a_missing_dataset_says_what_to_run(open_app: Open, tmp_path: Path) -> None:
    app = open_app(root=tmp_path / "nothing")
    assert not app.exception
    assert "There is no dataset at" in html(app)
    assert "make app" in html(app)


def test_a_damaged_dataset_is_refused_in_words(
    open_app: Open, dataset_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(dataset_root, root)
    for path in root.glob("v-*/*"):
        if path.suffix == ".duckdb":
            path.unlink()
    tokens = next(root.glob("v-*/parquet/tokens.parquet"))
    tokens.write_bytes(tokens.read_bytes()[:-1])
    app = open_app(root=root)
    assert not app.exception
    assert "is not whole" in html(app)
    assert "What to do" in html(app)


def test_the_first_start_builds_the_database(open_app: Open, tmp_path: Path) -> None:
    root = tmp_path / "fresh"
    version = make_dataset(root)
    (root / version / DATABASE).unlink(missing_ok=True)
    app = open_app(root=root)
    assert not app.exception
    assert (root / version / DATABASE).exists()
    assert component(app, "nla_token_strip")["chips"]


def test_a_refusal_in_the_middle_of_a_run_is_a_message(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object, **__: object) -> None:
        raise NLAError("The dataset took too long", why="it is busy", fix="Try again")

    monkeypatch.setattr(Dataset, "transcripts", slow)
    app = open_app()
    assert not app.exception
    assert "The dataset took too long" in html(app)
    assert "Try again." in html(app)


# ---- several datasets ----------------------------------------------------------------------------


def test_the_same_token_by_another_pair(open_app: Open, dataset_root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_dataset(other, pair=PAIR | {"pair_id": "tiny-L3", "layer": 3})
    position = content_positions(dataset_root, FACTS)[3]
    both = f"{dataset_root}{os.pathsep}{other}"
    app = open_app(ViewState(transcript=FACTS, position=position), root=both)
    assert not app.exception
    drawn = [
        held(c.proto) for c in app.get("bidi_component") if c.proto.component_name == "nla_cards"
    ]
    (cards,) = [card for card in drawn if card["label"] == "The same token by other pairs"]
    (item,) = cards["groups"][0]["items"]
    assert "tiny-L3, layer 3" in item["facts"]
    assert item["query"] == ViewState(dataset="other", transcript=FACTS, position=position).query
    app = open_app(ViewState(dataset="other", transcript=FACTS, position=position), root=both)
    assert html(app).count(reading(other, FACTS, position)["explanation"].splitlines()[0]) == 1


def test_a_dataset_that_is_not_here_is_named(open_app: Open) -> None:
    app = open_app(ViewState(dataset="elsewhere"))
    assert not app.exception
    assert "There is no dataset “elsewhere” here" in html(app)


def test_a_short_link_to_nothing_says_so(open_app: Open) -> None:
    app = open_app(ViewState(reading="ffffffffffff"))
    assert not app.exception
    assert "no reading “ffffffffffff”" in html(app)
