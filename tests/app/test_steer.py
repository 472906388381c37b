"""Steer through AppTest: from a reading to an edit, a run with a tiny pair, presets, every view."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from nla_core import opened
from nla_core.data.dataset import Dataset
from nla_core.explain import Explainer
from nla_core.links import SteerView, ViewState
from nla_core.steering.experiment import Place
from nla_core.steering.presets import presets
from nla_core.steering.runner import Desk, Status
from nla_core.ui.steering import answer_start, experiment_of, source_of
from nla_core.ui.steering_presets import view_of
from nla_core.ui.steering_results import as_csv, points, shown
from tests.app.conftest import Open
from tests.app.test_explore import component, content_positions, html, reading
from tests.helpers import transcript_id_of
from tests.steering.test_desk import Loaded
from tests.tiny import tiny_pair

STEER = "pages/steer.py"
FACTS = transcript_id_of("facts-001")
WAIT = 60.0


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    return Explainer.load(tiny_pair(tmp_path_factory.mktemp("pair")), device="cpu", dtype="float32")


@pytest.fixture
def desk(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk of its own whose only pair is the tiny one, loaded."""
    models = Loaded(lambda pair: explainer)
    made = Desk(models)
    monkeypatch.setattr(opened, "steering", lambda: made)
    monkeypatch.setattr(opened, "explainer", models.using)
    while not made.loaded("tiny"):
        time.sleep(0.01)
    return made


def asked(app: AppTest) -> SteerView:
    parsed = SteerView.parse({k: str(v) for k, v in dict(app.query_params).items()})
    assert parsed.problems == ()
    return parsed.view


OWN = SteerView(
    pair="tiny",
    prompt="the lazy dog while rain",
    original="the quick <b>brown</b> fox",
    edited="the quick <b>stone</b> fox",
    words="rain, people",
    alphas=(1.0, 4.0),
    seeds=3,
    new_tokens=4,
)


def test_the_bare_page_offers_presets_and_a_text_of_ones_own(open_app: Open) -> None:
    app = open_app(page=STEER)
    assert not app.exception
    cards = component(app, "nla_cards")
    works = [p for p in presets() if p.measured is not None and p.measured.works]
    assert len(cards["groups"][0]["items"]) == len(works)
    assert "beat a random direction" in cards["groups"][0]["title"]
    assert sum(len(group["items"]) for group in cards["groups"]) == len(presets())
    first = cards["groups"][0]["items"][0]
    assert SteerView.parse_query(first["query"]).view in [view_of(p, None) for p in works]
    app.text_area(key="steer_prompt").set_value("The dog ").run()
    assert asked(app).prompt == "The dog"


def test_a_reading_leads_to_its_edit_and_back(open_app: Open, dataset_root: Path) -> None:
    position = content_positions(dataset_root, FACTS)[3]
    app = open_app(ViewState(transcript=FACTS, position=position, sample=1))
    (link,) = [e.proto for e in app.get("page_link") if e.proto.label == "Steer from here"]
    view = SteerView.parse_query(link.query_string).view
    assert view == SteerView(transcript=FACTS, position=position, sample=1)
    app = open_app(view, page=STEER)
    assert not app.exception
    said = reading(dataset_root, FACTS, position, 1)["explanation"]
    assert component(app, "nla_edit_box")["text"] == said
    assert "Change a word to see" in html(app)
    (back,) = [e.proto for e in app.get("page_link") if e.proto.label == "In Explore"]
    assert f"p={position}" in back.query_string


def test_the_prompt_ends_at_the_token_or_where_the_answer_begins(dataset_root: Path) -> None:
    dataset = Dataset.open(dataset_root)
    position = content_positions(dataset_root, FACTS)[2]
    tokens = dataset.tokens(FACTS)
    here = source_of(dataset, SteerView(transcript=FACTS, position=position))
    later = source_of(dataset, SteerView(transcript=FACTS, position=position, answer=True))
    assert here is not None
    assert later is not None
    assert here.token_ids == tuple(tokens["token_id"].iloc[: position + 1])
    begins = answer_start(tokens, position)
    assert begins is not None
    assert tokens["section"].iloc[begins] == "content"
    assert later.token_ids == tuple(tokens["token_id"].iloc[:begins])
    assert (here.read_at, later.read_at) == (position, position)
    assert answer_start(tokens, begins) is None
    also = SteerView(transcript=FACTS, position=position, also=(0, position + 2), edited="x")
    source = source_of(dataset, also)
    assert source is not None
    near = [p for p in content_positions(dataset_root, FACTS) if p <= position + 2]
    assert len(source.others) == len(near) - 1


def test_an_edit_is_shown_and_a_missing_pair_refused(open_app: Open, dataset_root: Path) -> None:
    position = content_positions(dataset_root, FACTS)[3]
    view = SteerView(transcript=FACTS, position=position, edited="a <i>new</i> text")
    app = open_app(view, page=STEER)
    assert not app.exception
    assert "<del>" in html(app)
    assert "&lt;" in html(app)
    assert "<i>new</i>" not in html(app)
    app.button(key="steer_run").click().run()
    key = app.session_state["steer_last"]
    seen = opened.steering().wait(key, WAIT)
    assert seen is not None
    assert seen.status == Status.FAILED
    app.run()
    assert "There is no pair “tiny-L2” here" in html(app)
    app.button(key="steer_reset").click().run()
    assert asked(app).edited == ""


def test_an_experiment_runs_beside_the_page(open_app: Open, desk: Desk) -> None:
    app = open_app(OWN, page=STEER)
    assert not app.exception
    assert "Rebuilt from the text" in html(app)
    assert "Not run yet" in html(app)
    app.button(key="steer_run").click().run()
    assert not app.exception
    seen = desk.wait(app.session_state["steer_last"], WAIT)
    assert seen is not None
    assert seen.status == Status.DONE
    assert seen.outcome is not None
    app.run()
    drawn = html(app)
    assert not app.exception
    assert f"{seen.outcome.rate('steered', 4.0).hits}/3" in drawn  # type: ignore[arg-type]
    assert "random direction" in drawn
    assert drawn.count("scope='row'>0</th>") + drawn.count("scope='row'>1</th>") >= 2
    app.text_input(key="steer_words").set_value("fox").run()
    assert asked(app).words == "fox"
    assert "The settings have changed" in html(app)
    # The link of what was run shows it to anybody.
    again = open_app(OWN, page=STEER)
    assert "What it writes" in html(again)
    rows = as_csv(seen.outcome).decode("utf-8-sig").splitlines()
    assert rows[0].startswith("experiment,revision,arm")
    assert sum(row.startswith(seen.outcome.experiment.key) for row in rows) == 15


@pytest.mark.parametrize(
    ("edited", "said"), [(OWN.original, "difference of their vectors is zero"), (" ", "is empty")]
)
def test_edits_that_say_nothing_are_refused(
    open_app: Open, desk: Desk, edited: str, said: str
) -> None:
    app = open_app(replace(OWN, edited=edited), page=STEER)
    app.button(key="steer_run").click().run()
    assert not app.exception
    assert said in html(app)
    assert "steer_last" not in app.session_state


def test_the_last_token_of_ones_own_text_is_read(
    open_app: Open, desk: Desk, explainer: Explainer
) -> None:
    app = open_app(SteerView(pair="tiny", prompt="the lazy dog"), page=STEER)
    app.run()
    assert not app.exception
    view = asked(app)
    assert view.original
    assert component(app, "nla_edit_box")["text"] == view.original


def test_settings_are_the_url(open_app: Open, desk: Desk) -> None:
    app = open_app(OWN, page=STEER)
    app.text_input(key="steer_alphas").set_value("0.5, x, −1").run()
    assert asked(app).alphas == (0.5, -1.0)
    assert "“x” is not a number" in html(app)
    app.segmented_control(key="steer_place").set_value("prompt").run()
    app.toggle(key="steer_prompt_only").set_value(False).run()
    app.number_input(key="steer_seeds").set_value(5).run()
    app.number_input(key="steer_temperature").set_value(0.5).run()
    view = asked(app)
    assert (view.place, view.prompt_only, view.seeds) == ("prompt", True, 5)
    assert view.temperature == 0.5


def test_a_preset_tells_its_effect_and_of_which_pair(open_app: Open, desk: Desk) -> None:
    preset = next(p for p in presets() if p.measured is not None and p.measured.works)
    assert preset.measured is not None
    app = open_app(view_of(preset, None), page=STEER)
    assert not app.exception
    drawn = html(app)
    assert preset.about in drawn
    assert f"steered {preset.measured.steered.share:.0%}" in drawn
    assert points(preset.measured.over_random.low) in drawn
    assert "measured with revision" in drawn  # the tests' dataset is of another pair
    app.text_input(key="steer_words").set_value("else").run()
    assert asked(app).preset is None


def test_a_preset_is_the_experiment_that_was_measured(dataset_root: Path) -> None:
    dataset = Dataset.open(dataset_root)
    for preset in presets():
        view = view_of(preset, None)
        there = SteerView.parse_query(view.query)
        assert (there.view, there.problems) == (view, ())
        source = source_of(dataset, there.view)
        assert source is not None
        assert experiment_of(there.view, source) == preset.experiment


def test_links_that_lead_nowhere(open_app: Open, desk: Desk) -> None:
    app = open_app(page=STEER, t="0123456789ab", p="3")
    assert not app.exception
    assert "There is no reading to start from" in html(app)
    app = open_app(page=STEER, p="3", n="5000", a="nan", text="x")
    assert not app.exception
    assert "without its transcript" in html(app)
    assert "the nearest" in html(app)


def test_texts_are_never_markup() -> None:
    made = shown("\n a <b>fish</b>\n\n\n& more ", ("fish",))
    assert made == "a &lt;b&gt;<mark>fish</mark>&lt;/b&gt;\n&amp; more"
    assert [points(x) for x in (0.456, -0.03, 0.001)] == ["+46", "−3", "0"]


texts = st.text(alphabet="ab <&\n", max_size=12)
steer_views = st.builds(
    SteerView,
    preset=st.none() | st.just("space"),
    transcript=st.none() | st.sampled_from([FACTS, "nothing"]),
    position=st.none() | st.integers(0, 60),
    sample=st.integers(0, 3),
    also=st.none() | st.just((3, 9)),
    answer=st.booleans(),
    pair=st.none() | st.just("tiny"),
    prompt=texts,
    original=texts,
    edited=texts,
    place=st.sampled_from(get_args(Place)),
    prompt_only=st.booleans(),
    alphas=st.lists(
        st.integers(1, 1000).map(lambda n: n / 100), min_size=1, max_size=8, unique=True
    ).map(tuple),
    words=st.sampled_from(["", "rain", "rain, people, <b>"]),
    seeds=st.integers(1, 100),
    first_seed=st.integers(0, 10_000),
    new_tokens=st.integers(1, 80),
    temperature=st.none() | st.sampled_from([0.0, 0.5, 2.0]),
).map(SteerView.normal)


@given(steer_views)
def test_every_experiment_stands_in_its_link(view: SteerView) -> None:
    there = SteerView.parse_query(view.query)
    assert there.view == view
    assert there.problems == ()


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steer_views)
def test_no_experiment_breaks_the_page(open_app: Open, desk: Desk, view: SteerView) -> None:
    app = open_app(view, page=STEER)
    assert not app.exception
