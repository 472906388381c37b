"""The Run page: a prompt typed, read by a tiny pair, watched, kept, named, deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from nla_core import opened
from nla_core.jobs.request import Which
from nla_core.jobs.runner import JobRunner
from nla_core.jobs.store import RunState
from nla_core.links import RunView
from nla_core.opened import Kept
from nla_core.ui import run_live
from tests.app.test_explore import component, html
from tests.gate import Gate
from tests.tiny import tiny_pair

RUN = "pages/run.py"
SOON = 90.0

Open = Callable[..., AppTest]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def jobs(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobRunner]:
    """The runner of the pages, over the tiny pair and a folder of its own."""
    monkeypatch.setenv("NLA_PAIRS", str(pair))
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("NLA_RUN_WORKER", "devices=cpu,dtype=float32,niceness=0")
    monkeypatch.setattr(opened, "_RUNNERS", Kept(1))
    monkeypatch.setattr(opened, "_MODELS", Kept(1))
    runner = opened.runner()
    yield runner
    runner.stop()


def run_id_of(app: AppTest) -> str:
    found = RunView.parse({name: str(value) for name, value in dict(app.query_params).items()})
    assert found.problems == ()
    assert found.view.run is not None
    return found.view.run


def ask(open_app: Open, text: str = "the quick brown fox") -> AppTest:
    app = open_app(page=RUN)
    app.selectbox(key="run_pair").select("pair")
    app.number_input(key="run_new").set_value(2)
    app.number_input(key="run_longest").set_value(4)
    app.text_area[0].input(text)
    app.run()
    assert not app.exception
    app.button(key="start_run").click()
    return app.run()


def test_without_a_prompt_there_is_nothing_to_start(jobs: JobRunner, open_app: Open) -> None:
    app = open_app(page=RUN)
    assert "No runs yet" in html(app)
    app.button(key="start_run").click().run()
    assert not app.exception
    assert "nothing to read yet" in html(app)
    assert not jobs.queue()


def test_a_press_takes_what_was_typed_last_with_it(jobs: JobRunner, open_app: Open) -> None:
    app = open_app(page=RUN)
    app.selectbox(key="run_pair").select("pair")
    app.number_input(key="run_new").set_value(2)
    app.text_area[0].input("the quick brown fox").run()
    app.text_area[0].input("the lazy dog")  # the browser sends it with the press
    app.button(key="start_run").click().run()
    (prompt,) = jobs.request(run_id_of(app)).prompts
    assert prompt.messages[-1]["content"] == "the lazy dog"


def test_a_prompt_is_read_and_shown_token_by_token(jobs: JobRunner, open_app: Open) -> None:
    app = ask(open_app)
    run_id = run_id_of(app)
    end = jobs.wait(run_id, SOON)
    assert end.version is not None
    app = open_app(page=RUN, **RunView(run=run_id).params())
    assert not app.exception
    strip = component(app, "nla_token_strip")
    late = {position: (fve, text) for position, fve, text, *_ in strip["late"]}
    assert len(late) == end.done
    assert all(fve is not None for fve, _ in late.values())
    position = max(late)
    app = open_app(page=RUN, **RunView(run=run_id, position=position).params())
    assert late[position][1].strip()[:12] in html(app).replace("&#x27;", "'")
    assert f"token {position}" in html(app)


def test_a_run_is_a_dataset_like_any_other(jobs: JobRunner, open_app: Open) -> None:
    run_id = run_id_of(ask(open_app))
    jobs.wait(run_id, SOON)
    app = open_app(d=run_id)
    assert not app.exception
    assert component(app, "nla_token_strip")["chips"]
    app = open_app(page="pages/compare.py", d=run_id)
    assert not app.exception
    assert "precompute compare" not in html(app)


def test_an_edit_after_a_run_is_a_branch(jobs: JobRunner, open_app: Open) -> None:
    app = ask(open_app)
    run_id = run_id_of(app)
    jobs.wait(run_id, SOON)
    app.run()
    app.button(key="change_prompt").click().run()
    assert app.text_area[0].value == "the quick brown fox"
    assert app.number_input(key="run_new").value == 2  # as it was asked, but for the edit
    assert app.number_input(key="run_longest").value == 4
    assert app.selectbox(key="run_pair").value == "pair"
    app.text_area[0].input("the slow brown fox").run()
    assert not app.exception
    assert len(app.pills(key="branch").options) == 2
    app.button(key="start_run").click().run()
    assert run_id_of(app) != run_id


def test_the_same_again_is_answered_from_what_is_there(jobs: JobRunner, open_app: Open) -> None:
    first = run_id_of(ask(open_app))
    jobs.wait(first, SOON)
    done = jobs.snapshot(first).finished
    assert run_id_of(ask(open_app)) == first
    assert jobs.snapshot(first).finished == done


def test_a_run_is_named_and_deleted(jobs: JobRunner, open_app: Open) -> None:
    app = ask(open_app)
    run_id = run_id_of(app)
    jobs.wait(run_id, SOON)
    app = open_app(page=RUN, run=run_id)
    app.text_input(key="run_new_name").input("A fox")
    app.text_area(key="run_new_note").input("<b>note</b>")
    app.button(key="FormSubmitter:rename_form-Save").click().run()
    assert "A fox" in html(app)
    assert "&lt;b&gt;note" in html(app)
    app = open_app(page=RUN, run=run_id)
    app.button(key="delete_run").click().run()
    assert not app.exception
    assert not jobs.stored()


def test_what_does_not_fit_is_said_before_anything_is_queued(
    jobs: JobRunner, open_app: Open
) -> None:
    app = open_app(page=RUN)
    app.selectbox(key="run_pair").select("pair")
    app.text_area[0].input("fox " * 1500).run()
    assert "limit prompt_tokens" in html(app)
    app.button(key="start_run").click().run()
    assert "limit prompt_tokens" in html(app)
    assert not jobs.queue()


def test_an_unknown_run_is_a_message(jobs: JobRunner, open_app: Open) -> None:
    app = open_app(page=RUN, run="run-000000000000")
    assert not app.exception
    assert "There is no run" in html(app)


def test_a_conversation_of_the_corpus_is_where_one_can_begin(
    jobs: JobRunner, open_app: Open, dataset_root: Path
) -> None:
    from nla_core.data.dataset import Dataset

    row = Dataset.open(dataset_root).transcripts(sort="title").iloc[0]
    app = open_app(page=RUN, t=str(row["transcript_id"]))
    assert not app.exception
    assert [area.value for area in app.text_area][:1] != [""]
    assert escape(row["title"]) in html(app)


def test_a_visitor_without_the_token_may_look_and_not_run(
    jobs: JobRunner, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = run_id_of(ask(open_app))
    jobs.wait(run_id, SOON)
    monkeypatch.setenv("NLA_RUN_ACCESS", "token")
    monkeypatch.setenv("NLA_RUN_TOKEN", "a-token-of-many-letters")
    app = open_app(page=RUN)
    assert not app.exception
    assert "start_run" not in {button.key for button in app.button}
    app = open_app(page=RUN, run=run_id)
    assert component(app, "nla_token_strip")["late"]
    assert not {"delete_run", "retry_run", "cancel_run"} & {button.key for button in app.button}


def test_the_queue_is_taken_up_when_the_server_starts(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch, open_app: Open, gate: Gate
) -> None:
    from nla_core.explain import Explainer

    monkeypatch.setattr(Explainer, "explain_each", gate.in_front_of(Explainer.explain_each))
    gate.close()
    run_id = run_id_of(ask(open_app, "one two three four five six seven"))
    jobs.stop()
    assert jobs.snapshot(run_id).version is None
    gate.open()
    monkeypatch.setattr(opened, "_RUNNERS", Kept(1))
    monkeypatch.setattr(opened, "_MODELS", Kept(1))
    opened.resume_runs().join()
    again = opened.runner()
    try:
        assert again.wait(run_id, SOON).version is not None
    finally:
        again.stop()


def test_a_run_that_was_cut_short_is_watched_until_it_is_published(
    jobs: JobRunner, open_app: Open
) -> None:
    run_id = run_id_of(ask(open_app))
    end = jobs.wait(run_id, SOON)
    cut = replace(end, state=RunState.CANCELLED, version=None)
    assert run_live.awaited(cut)
    assert not run_live.awaited(replace(cut, version=end.version))
    assert not run_live.awaited(replace(cut, done=0))


def test_a_token_that_was_not_asked_for_is_not_promised(jobs: JobRunner, open_app: Open) -> None:
    app = open_app(page=RUN)
    app.selectbox(key="run_pair").select("pair")
    app.selectbox(key="run_which").select(Which.LAST)
    app.number_input(key="run_new").set_value(1)
    app.text_area[0].input("the quick brown fox").run()
    app.number_input(key="run_n_last").set_value(1)
    app.button(key="start_run").click().run()
    run_id = run_id_of(app)
    jobs.wait(run_id, SOON)
    app = open_app(page=RUN, **RunView(run=run_id, position=3).params())
    assert run_live.NEVER in html(app)
    assert "the last token · at most 1 new token" in html(app)


def test_a_draft_that_was_replaced_can_be_brought_back(jobs: JobRunner, open_app: Open) -> None:
    app = open_app(page=RUN)
    assert "earlier_draft" not in {button.key for button in app.button}
    app.text_area[0].input("an hour of typing").run()
    app.button(key="afresh").click().run()
    assert app.text_area[0].value == ""
    app.button(key="earlier_draft").click().run()
    assert app.text_area[0].value == "an hour of typing"
    title = app.selectbox(key="starting_point").options[0]
    app.selectbox(key="starting_point").select(title).run()
    app.button(key="start_with").click().run()
    assert app.text_area[0].value != "an hour of typing"
    app.button(key="earlier_draft").click().run()
    assert app.text_area[0].value == "an hour of typing"
    assert not app.exception


def test_a_revision_follows_everything_about_a_run(jobs: JobRunner, open_app: Open) -> None:
    run_id = run_id_of(ask(open_app))
    end = jobs.wait(run_id, SOON)
    assert end.version is not None
    ended = jobs.revision(run_id)
    assert jobs.revision(run_id) == ended
    jobs.rename(run_id, name="another", note="")
    named = jobs.revision(run_id)
    assert named != ended
    began = time.thread_time()
    for _ in range(1000):
        jobs.revision(run_id)
    assert time.thread_time() - began < 0.2, (
        "a tab asks every few seconds, for as long as it is open"
    )
