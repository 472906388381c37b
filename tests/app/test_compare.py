"""Compare and Audit: claims against the text, the view is the URL, nothing asked breaks it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from nla_core import opened
from nla_core.analysis import concepts as watchlist
from nla_core.analysis.concepts import SHIPPED
from nla_core.analysis.judging import compare_dataset
from nla_core.analysis.semantic import EmbedOnce
from nla_core.analysis.standing import Thresholds
from nla_core.data.dataset import Dataset
from nla_core.links import AuditView, CompareMeasure, CompareView
from nla_core.ui import matches
from tests.app.conftest import Open
from tests.app.test_explore import component, content_positions, held, html
from tests.helpers import ERROR_PROMPT, hash_vectors, make_dataset, transcript_id_of

COMPARE, AUDIT = "pages/compare.py", "pages/audit.py"
FACTS = transcript_id_of("facts-001")


class HashEncoder:
    """Gives the vectors that `make_dataset` publishes."""

    name = "tests"
    dimension = 16
    loaded = True

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return hash_vectors(texts, self.dimension).astype(np.float32)


@pytest.fixture(scope="module")
def judged_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare") / "judged"
    make_dataset(root, samples=2)
    encoder = HashEncoder()
    compare_dataset(Dataset.open(root), Thresholds.load(), encoder, EmbedOnce(encoder.embed))
    return root


@pytest.fixture
def judged(
    open_app: Open, judged_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AppTest]:
    monkeypatch.setattr(opened, "encoder", HashEncoder)
    monkeypatch.setenv(watchlist.OWN_VARIABLE, str(tmp_path / "own"))
    return lambda *args, **kwargs: open_app(*args, root=judged_root, **kwargs)


def compared(app: AppTest) -> CompareView:
    parsed = CompareView.parse({k: str(v) for k, v in dict(app.query_params).items()})
    assert parsed.problems == ()
    return parsed.view


def audited(app: AppTest) -> AuditView:
    parsed = AuditView.parse({k: str(v) for k, v in dict(app.query_params).items()})
    assert parsed.problems == ()
    return parsed.view


def claims_of(app: AppTest) -> dict[str, Any]:
    return component(app, "nla_claims")


def test_evidence_is_quoted_from_the_tokens_it_names(
    judged: Callable[..., AppTest], judged_root: Path
) -> None:
    tokens = Dataset.open(judged_root).tokens(FACTS)
    answer = tokens[(tokens["section"] == "content") & (tokens["role"] == "assistant")]
    seen = 0
    for position in answer["position"].head(4):
        app = judged(CompareView(transcript=FACTS, position=int(position)), page=COMPARE)
        for claim in claims_of(app)["claims"]:
            if claim["evidence"] is None or claim["evidence"].endswith("…"):
                continue
            seen += 1
            stretch = tokens[tokens["position"].between(claim["first"], claim["last"])]
            said = "".join(stretch.loc[stretch["section"] == "content", "text"])
            assert "".join(claim["evidence"].split()) in "".join(said.split())
    assert seen


def test_every_claim_stands_somewhere_in_its_explanation(
    judged: Callable[..., AppTest], judged_root: Path
) -> None:
    position = content_positions(judged_root, FACTS)[3]
    app = judged(CompareView(transcript=FACTS, position=position), page=COMPARE)
    assert not app.exception
    drawn = claims_of(app)
    assert drawn["claims"]
    for claim in drawn["claims"]:
        assert claim["text"] in drawn["text"][claim["start"] : claim["end"]]
        assert claim["standing"] in drawn["words"]
        if claim["standing"] == "said":
            assert claim["first"] is not None
    assert "stands nowhere in the visible text" in html(app)  # the legend, in words


def test_steps_and_colours_are_the_url(judged: Callable[..., AppTest], judged_root: Path) -> None:
    first, second = content_positions(judged_root, FACTS)[2:4]
    app = judged(CompareView(transcript=FACTS, position=first), page=COMPARE)
    app.button(key="step_1").click().run()
    assert compared(app) == CompareView(transcript=FACTS, position=second)
    for measure in get_args(CompareMeasure):
        app.segmented_control(key="compare_measure").set_value(measure).run()
        assert not app.exception
        assert compared(app).measure == measure
        assert component(app, "nla_token_strip")["colour"]["id"].startswith(measure)


def test_a_pinned_reading_stands_beside_the_next(
    judged: Callable[..., AppTest], judged_root: Path
) -> None:
    first, second = content_positions(judged_root, FACTS)[2:4]
    app = judged(CompareView(transcript=FACTS, position=first), page=COMPARE)
    assert "nla-beside" not in html(app)
    app.button(key="pin").click().run()
    app.button(key="step_1").click().run()
    assert "nla-beside" in html(app)
    assert f"token {first} of" in html(app).replace("position ", "token ")
    assert f"· token {second} of" in html(app)
    app.button(key="unpin").click().run()
    assert compared(app).pinned is None


def test_filters_of_the_rankings_are_the_url(judged: Callable[..., AppTest]) -> None:
    app = judged(CompareView(transcript=FACTS), page=COMPARE)
    app.pills(key="compare_floor").set_value(0.2).run()
    app.pills(key="compare_role").set_value("user").run()
    app.toggle(key="compare_flagged").set_value(True).run()
    assert not app.exception
    view = compared(app)
    assert (view.floor, view.role, view.flagged) == (0.2, "user", True)


def test_a_dataset_that_was_not_compared_says_what_to_run(open_app: Open) -> None:
    app = open_app(CompareView(), page=COMPARE)
    assert not app.exception
    assert "precompute compare" in html(app)


def test_a_transcript_that_failed_or_is_unknown(judged: Callable[..., AppTest]) -> None:
    app = judged(CompareView(transcript=transcript_id_of(ERROR_PROMPT)), page=COMPARE)
    assert not app.exception
    assert "does not fit" in html(app)
    app = judged(CompareView(transcript=FACTS[:7]), page=COMPARE)
    assert not app.exception
    assert "There is no transcript" in html(app)


compare_views = st.builds(
    CompareView,
    transcript=st.none() | st.sampled_from([FACTS, transcript_id_of("language-001"), "nothing"]),
    position=st.none() | st.integers(0, 60),
    sample=st.integers(0, 3),
    pinned=st.none() | st.just("ffffffffffff"),
    measure=st.sampled_from(get_args(CompareMeasure)),
    role=st.none() | st.sampled_from(["user", "system"]),
    floor=st.none() | st.sampled_from([-1.0, 0.4]),
    flagged=st.booleans(),
    habits=st.booleans(),
).map(CompareView.normal)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(compare_views)
def test_no_comparison_breaks_the_page_or_its_url(
    judged: Callable[..., AppTest], view: CompareView
) -> None:
    app = judged(view, page=COMPARE)
    assert not app.exception
    assert compared(app) == view


# ---- Audit ---------------------------------------------------------------------------------------


def test_every_concept_stands_with_interval_and_floor(judged: Callable[..., AppTest]) -> None:
    app = judged(AuditView(), page=AUDIT)
    assert not app.exception
    table = app.dataframe[0].value
    assert len(table) == len(json.loads(SHIPPED.read_text(encoding="utf-8"))["concepts"])
    assert (table["low"] <= table["explanations_share"]).all()
    assert (table["explanations_share"] <= table["high"]).all()
    assert table["floor"].notna().all()
    assert "Relative, not calibrated" in html(app)


def test_a_match_is_judged_and_the_verdict_kept(judged: Callable[..., AppTest]) -> None:
    app = judged(AuditView(), page=AUDIT)
    table = app.dataframe[0].value
    found = table.loc[table["explanations_share"] > 0, "concept"]
    concept = str(found.iloc[0])
    app = judged(AuditView(concept=concept), page=AUDIT)
    (shown,) = [
        held(c.proto)
        for c in app.get("bidi_component")
        if c.proto.component_name == "nla_cards" and "match" in held(c.proto)["label"]
    ]
    first = shown["groups"][0]["items"][0]
    assert {action["action"] for action in first["actions"]} == {"confirmed", "rejected"}
    watchlist.judge("judged", concept, first["id"], "confirmed")
    app = judged(AuditView(concept=concept), page=AUDIT)
    assert "1 of 1 that were looked at are right" in html(app)
    assert first["title"]
    assert first["token"]
    assert "· token " in first["facts"]


def test_a_concept_that_is_not_in_the_list_is_told(judged: Callable[..., AppTest]) -> None:
    app = judged(AuditView(concept="nothing"), page=AUDIT)
    assert "This watchlist has no concept “nothing”" in html(app)


def test_every_match_can_be_taken_away(judged: Callable[..., AppTest], judged_root: Path) -> None:
    app = judged(AuditView(), page=AUDIT)
    shares = app.dataframe[0].value.set_index("concept")["explanations_share"]
    dataset = Dataset.open(judged_root)
    scores = opened.scores(dataset, watchlist.watchlist()[0])
    concept = next(c for c in scores.concepts if shares[c.id] > 0)
    rows = scores.matches(concept.id, limit=None)
    row = dataset.readings(str(rows["transcript_id"].iloc[0])).iloc[0]
    table = matches.table(dataset, rows, concept, {str(row["reading_id"]): "rejected"})
    assert table["score"].tolist() == rows["score"].tolist()
    assert set(table["verdict"]) <= {"", "rejected"}
    read = dataset.reading(str(table["reading_id"].iloc[-1]))
    assert read is not None
    assert table["explanation"].iloc[-1] == read["explanation"]
    assert f"{len(rows):,} reading" in matches.counted(len(rows), {})


def test_matches_beyond_the_best_can_be_judged(
    judged: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few more at a time; and in other orders, since the best say little of the rest."""
    monkeypatch.setattr(matches, "SHOWN", 2)
    app = judged(AuditView(), page=AUDIT)
    table = app.dataframe[0].value.set_index("concept")["explanations_share"]
    concept = str(table.idxmax())

    def ids(app: AppTest) -> list[str]:
        (shown,) = [
            held(c.proto)
            for c in app.get("bidi_component")
            if c.proto.component_name == "nla_cards" and "match" in held(c.proto)["label"]
        ]
        return [item["id"] for item in shown["groups"][0]["items"]]

    app = judged(AuditView(concept=concept), page=AUDIT)
    best = ids(app)
    assert len(best) == 2
    app.button(key="matches_more").click().run()
    four = ids(app)
    assert (len(four), four[:2]) == (4, best)
    while "matches_more" in {button.key for button in app.button}:
        app.button(key="matches_more").click().run()
    everything = ids(app)
    assert len(everything) == len(set(everything)) > 4
    for order in ("edge", "random"):
        app.segmented_control(key="matches_order").set_value(order).run()
        assert sorted(ids(app)) == sorted(everything)
        assert ids(app) != everything
    assert "None of these is judged yet" in html(app)
    watchlist.judge("judged", concept, ids(app)[0], "confirmed")
    watchlist.judge("judged", concept, ids(app)[1], "rejected")
    app.run()
    assert f"1 of the 2 judged here are right, so 9% to 91% of all {len(everything)}" in html(app)
    app.segmented_control(key="matches_order").set_value("edge").run()
    assert ids(app) == everything[::-1]
    assert "judged here" not in html(app)
    monkeypatch.setattr(matches, "SHOWN", len(everything))
    app.run()
    assert ids(app) == everything, "a short list needs no order, and comes best first"


def test_a_claim_is_counted_in_no_more_transcripts_than_readings(
    judged: Callable[..., AppTest],
) -> None:
    app = judged(AuditView(standing="unspoken", flagged=True, habits=True), page=AUDIT)
    board = next(
        held(c.proto)
        for c in app.get("bidi_component")
        if c.proto.component_name == "nla_cards" and held(c.proto)["label"] == "Claims that return"
    )
    assert board["groups"][0]["items"]
    for item in board["groups"][0]["items"]:
        found = re.search(r"([\d,]+) readings? of ([\d,]+) transcripts?", item["facts"])
        assert found is not None
        assert int(found[1].replace(",", "")) >= int(found[2].replace(",", ""))


def test_a_concept_is_edited_and_the_shipped_list_comes_back(
    judged: Callable[..., AppTest],
) -> None:
    app = judged(AuditView(), page=AUDIT)
    app.selectbox(key="edit_concept").select("refusing").run()
    app.text_input(key="concept_name_refusing").set_value("saying no")
    app.button[[b.label for b in app.button].index("Keep")].click().run()
    assert not app.exception
    assert "saying no" in app.dataframe[0].value["name"].tolist()
    app.button(key="forget_concepts").click().run()
    assert "saying no" not in app.dataframe[0].value["name"].tolist()


def test_a_concept_that_is_refused_changes_nothing(judged: Callable[..., AppTest]) -> None:
    app = judged(AuditView(), page=AUDIT)
    app.selectbox(key="edit_concept").select("refusing").run()
    app.text_area(key="concept_positives_refusing").set_value("")
    app.button[[b.label for b in app.button].index("Keep")].click().run()
    assert not app.exception
    assert "positives" in html(app)
    assert not (watchlist.own_folder() / "concepts.json").exists()


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.builds(
        AuditView,
        concept=st.none() | st.sampled_from(["refusing", "nothing"]),
        category=st.none() | st.sampled_from(["facts", "no such thing"]),
        standing=st.sampled_from(["unspoken", "foreseen"]),
        floor=st.none() | st.sampled_from([0.0, 0.9]),
        flagged=st.booleans(),
        habits=st.booleans(),
    )
)
def test_no_audit_breaks_the_page_or_its_url(
    judged: Callable[..., AppTest], view: AuditView
) -> None:
    app = judged(view, page=AUDIT)
    assert not app.exception
    assert audited(app) == view
