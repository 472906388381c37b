"""Runs through the API: asked for, watched, changed, with the tiny pair and a real queue."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nla_core import opened
from nla_core.api import runs
from nla_core.data.dataset import Dataset
from nla_core.explain import Explainer
from nla_core.jobs.runner import JobRunner
from nla_core.jobs.settings import Limits
from tests.api.asking import ROUTES
from tests.api.conftest import client_of
from tests.api.running import SLOW, Asking, asked
from tests.jobs.conftest import SOON, Bench
from tests.tiny import tiny_pair


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Explainer]:
    pair = tiny_pair(tmp_path_factory.mktemp("api-runs"))
    return pair, Explainer.load(pair, device="cpu", dtype="float32")


@pytest.fixture
def bench(tmp_path: Path, explainer: tuple[Path, Explainer]) -> Iterator[Bench]:
    made = Bench(tmp_path / "runs", *explainer)
    yield made
    made.faults.on_explain = lambda texts: None
    for runner in made.runners:
        runner.stop()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a runner behind the API."""

    def put(runner: JobRunner) -> JobRunner:
        monkeypatch.setattr(opened, "runner", lambda: runner)
        return runner

    return put


@pytest.fixture
def ask(tmp_path: Path) -> Asking:
    return Asking(client_of(tmp_path / "nothing"))


class Held:
    """Keeps the worker waiting inside its first batch until ``go`` is set."""

    def __init__(self, bench: Bench) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        bench.faults.on_explain = self._wait

    def _wait(self, texts: list[str]) -> None:
        self.begun.set()
        self.go.wait(SOON)


# ---- one run, from the question to its deletion --------------------------------------------------


def test_a_run_from_the_question_to_its_deletion(ask: Asking, bench: Bench, use: Any) -> None:
    runner = use(bench.runner())
    assert [pair["pair"] for pair in ask("GET", "/runs/pairs")["pairs"]] == ["tiny"]
    assert ask("GET", "/runs/limits")["limits"]["prompts"] == Limits().prompts
    body = asked("the quick brown fox", name="Foxes", note="of one kind")
    assert ask("POST", "/runs/estimate", body)["estimate"]["basis"] in ("nothing", "warm-up")
    assert ask("GET", "/runs")["runs"] == []

    found = ask("POST", "/runs", body, status=202)
    run_id = found["run_id"]
    assert found["is_new"]
    lines = ask.lines(run_id)
    assert runner.wait(run_id, SOON).state == "done"

    kinds = [line["kind"] for line in lines]
    assert kinds.count("tokens") == 1
    assert kinds.count("text") == kinds.count("reading") == 2
    assert lines[-1]["run"]["state"] == "done"
    (tokens,) = [line for line in lines if line["kind"] == "tokens"]
    assert tokens["messages"][0] == {"role": "user", "content": "the quick brown fox"}
    texts = {line["position"]: line["explanation"] for line in lines if line["kind"] == "text"}
    readings = {line["position"]: line["reading"] for line in lines if line["kind"] == "reading"}
    assert {at: reading["explanation"] for at, reading in readings.items()} == texts

    in_full = ask("GET", f"/runs/{run_id}")
    assert in_full["run"]["name"] == "Foxes"
    assert in_full["failures"] == []
    published = Dataset.open(bench.home / run_id).find_readings()
    assert set(published["explanation"]) == set(texts.values())
    assert in_full["run"]["dataset"] == run_id
    assert in_full["run"]["page"] == f"/explore?d={run_id}"

    again = ask("POST", "/runs", in_full["request"])
    assert (again["run_id"], again["is_new"]) == (run_id, False)

    renamed = ask("PATCH", f"/runs/{run_id}", {"name": "Another"})["run"]
    assert (renamed["name"], renamed["note"]) == ("Another", "of one kind")
    (row,) = ask("GET", "/runs?state=done")["runs"]
    assert (row["run_id"], row["name"], row["done"], row["place"]) == (run_id, "Another", 2, None)

    export = ask.send("GET", f"/runs/{run_id}/export")
    assert export.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(export.content))
    names = archive.namelist()
    assert json.loads(archive.read(f"{run_id}/run.json"))["visitors"] == []
    assert f"{run_id}/run.json" in names
    assert any(name.endswith("readings.parquet") for name in names)

    assert ask("POST", f"/runs/{run_id}/retry")["again"] == 0
    assert ask("POST", f"/runs/{run_id}/cancel")["run"]["state"] == "done"
    assert ask("DELETE", f"/runs/{run_id}") == {"deleted": run_id}
    assert ask.refused("GET", f"/runs/{run_id}", 404)
    assert ask("GET", "/runs")["runs"] == []
    unseen = {route for route in ROUTES if route[1].startswith("/runs")} - ask.seen
    assert unseen == {("GET", "/runs/{run_id}/export"), ("GET", "/runs/{run_id}/events")}


def test_events_are_read_by_page(ask: Asking, bench: Bench, use: Any) -> None:
    runner = use(bench.runner())
    run_id = ask("POST", "/runs", asked("rain falls", positions="all"), status=202)["run_id"]
    runner.wait(run_id, SOON)
    whole = ask("GET", f"/runs/{run_id}/events")
    events: list[Any] = []
    page = {"next": 0, "events": [None]}
    while page["events"]:
        page = ask("GET", f"/runs/{run_id}/events?since={page['next']}&limit=3")
        assert len(page["events"]) <= 3
        events += page["events"]
    assert events == whole["events"]
    assert len(events) == whole["next"] == whole["run"]["n_events"]
    late = ask("GET", f"/runs/{run_id}/events?since=999&limit=2")
    assert late["again"]
    assert late["events"] == events[:2]
    streamed = [e for e in ask.lines(run_id, since=4) if e["kind"] != "run"]
    assert streamed == events[4:]


def test_readings_arrive_while_it_is_worked_on(
    ask: Asking, bench: Bench, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream ends by itself, with all of a run that was going on when it began."""
    held = Held(bench)
    runner = use(bench.runner())
    run_id = ask("POST", "/runs", asked("rain falls", **SLOW), status=202)["run_id"]
    assert held.begun.wait(SOON)
    assert ask("GET", f"/runs/{run_id}")["run"]["state"] == "running"
    assert ask("GET", "/runs")["queue"] == [run_id]
    snapshot = runner.snapshot

    def look_then_let_go(name: str) -> Any:
        seen = snapshot(name)
        held.go.set()
        return seen

    monkeypatch.setattr(runner, "snapshot", look_then_let_go)
    lines = ask.lines(run_id)
    states = [line["run"]["state"] for line in lines if line["kind"] == "run"]
    assert states[0] == "running"
    assert states[-1] == "done"
    assert len([line for line in lines if line["kind"] == "reading"]) == lines[-1]["run"]["done"]
    assert runs._streams == 0


def test_a_run_that_is_deleted_ends_its_streams(
    ask: Asking, bench: Bench, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = use(bench.stopped())
    run_id = ask("POST", "/runs", asked("rain falls"), status=202)["run_id"]

    def vanish() -> None:
        runner.cancel(run_id)
        runner.delete(run_id)

    snapshot, looks = runner.snapshot, iter(range(100))

    def gone_at_the_third_look(name: str) -> Any:
        if next(looks) == 2:
            vanish()
        return snapshot(name)

    monkeypatch.setattr(runner, "snapshot", gone_at_the_third_look)
    lines = ask.lines(run_id)
    assert [line["kind"] for line in lines] == ["run", "error"]
    assert run_id in lines[-1]["error"]["what"]


def test_streams_are_limited(
    ask: Asking, bench: Bench, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(bench.stopped())
    run_id = ask("POST", "/runs", asked("rain falls"), status=202)["run_id"]
    monkeypatch.setattr(runs, "MOST_STREAMS", 0)
    assert "format=jsonl" in ask.refused("GET", f"/runs/{run_id}/events?format=jsonl", 429)
    assert ask.send("HEAD", f"/runs/{run_id}/events").status_code == 200


# ---- states --------------------------------------------------------------------------------------


def test_cancel_keeps_what_is_there_and_retry_goes_on(ask: Asking, bench: Bench, use: Any) -> None:
    held = Held(bench)
    runner = use(bench.runner())
    run_id = ask("POST", "/runs", asked("rain falls on the old bridge", **SLOW), status=202)[
        "run_id"
    ]
    assert held.begun.wait(SOON)
    assert "Cancel it first" in ask.refused("DELETE", f"/runs/{run_id}", 409)
    assert ask("POST", f"/runs/{run_id}/cancel")["run"]["state"] == "cancelled"
    held.go.set()
    before = runner.wait(run_id, SOON)
    assert before.done < before.total
    assert ask("POST", f"/runs/{run_id}/retry")["again"] > 0
    after = runner.wait(run_id, SOON)
    assert (after.state, after.done) == ("done", after.total)


def test_what_failed_is_told(ask: Asking, bench: Bench, use: Any) -> None:
    def refuse(texts: list[str]) -> None:
        raise RuntimeError("no more")

    bench.faults.on_transcribe = refuse
    runner = use(bench.runner())
    run_id = ask("POST", "/runs", asked("rain falls"), status=202)["run_id"]
    assert runner.wait(run_id, SOON).state == "failed"
    (failure,) = ask("GET", f"/runs/{run_id}")["failures"]
    assert (failure["prompt"], failure["position"]) == (0, None)
    (line,) = [line for line in ask.lines(run_id) if line["kind"] == "failure"]
    assert line["reason"] == failure["reason"]
    assert ask.refused("GET", f"/runs/{run_id}/export", 409)
    bench.faults.on_transcribe = lambda texts: None
    assert ask("POST", f"/runs/{run_id}/retry")["again"] == 1
    assert runner.wait(run_id, SOON).state == "done"


def test_runs_are_listed_by_page(ask: Asking, bench: Bench, use: Any) -> None:
    use(bench.stopped(Limits(queue_per_visitor=50)))
    for number in range(7):
        ask("POST", "/runs", asked(f"rain falls {number}"), status=202)
    whole = ask("GET", "/runs")
    ids = [row["run_id"] for row in whole["runs"]]
    assert whole["next"] is None
    assert whole["queue"] == ids[::-1]
    assert [row["place"] for row in whole["runs"]][-1] in (0, 1)
    first = ask("GET", "/runs?limit=3")
    ask("POST", "/runs", asked("newer than all"), status=202)
    ask("POST", f"/runs/{first['runs'][-1]['run_id']}/cancel")
    ask("DELETE", f"/runs/{first['runs'][-1]['run_id']}")
    rest = ask("GET", f"/runs?limit=500&next={first['next']}")
    assert [row["run_id"] for row in first["runs"] + rest["runs"]] == ids
    assert "another question" in ask.refused("GET", f"/runs?next={first['next']}&state=done", 400)
    for token in ("AAAA", "WyJydW5zIiwiIiwiYSJd"):
        ask.refused("GET", f"/runs?next={token}", 400)


# ---- wrong questions -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("name", ["run-0123456789ab", "nothing", "run-%2e%2e%2fx", "%00"])
def test_unknown_runs_are_404(ask: Asking, bench: Bench, use: Any, method: str, name: str) -> None:
    use(bench.stopped())
    response = ask.send(method, f"/runs/{name}", {"name": "x"} if method == "PATCH" else None)
    assert response.status_code == 404
    for action in ("cancel", "retry"):
        assert ask.send("POST", f"/runs/run-nope/{action}").status_code == 404
    for what in ("events", "export", "events?format=jsonl"):
        assert ask.send("GET", f"/runs/run-nope/{what}").status_code == 404


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "prompt or prompts"),
        ({"prompt": "a", "prompts": ["b"]}, "prompt or prompts"),
        ({"prompt": ""}, "prompt: "),
        ({"prompt": 3}, "prompt: "),
        ({"prompts": "a"}, "valid list"),
        ({"prompts": ["a", {"text": "b", "messages": [{"role": "user", "content": "c"}]}]}, "both"),
        ({"prompts": ["a", [{"role": "judge", "content": "b"}]]}, "prompts[1]"),
        ({"prompts": ["a", {"texts": "b"}]}, "no field"),
        ({"prompt": {"text": "\ud800"}}, "surrogate"),
        ({"prompt": "a", "temperature": 1}, "no field"),
        ({"prompt": "a", "pair": 3}, "pair"),
        ({"prompt": "a", "samples": 1.5}, "samples"),
        ({"prompt": "a", "samples": True}, "samples"),
        ({"prompt": "a", "name": None}, "name"),
        ({"prompt": "a", "positions": "some"}, "positions.which"),
        ({"prompt": "a", "positions": 3}, "positions"),
        ({"prompt": "a", "positions": {"at": ["1"]}}, "positions.at"),
        ({"prompt": "a", "positions": {"which": "last", "n": "2"}}, "positions.n"),
        ({"prompt": "a", "target": 3}, "target"),
        ({"prompt": "a", "target": {"temperature": "hot"}}, "target.temperature"),
        ({"prompt": "a", "verbalizer": {"top_p": 1}}, "verbalizer"),
    ],
)
def test_bodies_of_another_shape_are_refused(
    ask: Asking, bench: Bench, use: Any, body: dict[str, Any], word: str
) -> None:
    use(bench.stopped())
    assert word in ask.refused("POST", "/runs", 400, body)
    assert word in ask.refused("POST", "/runs/estimate", 400, body)
    assert ask("GET", "/runs")["runs"] == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"pair": "no-such"}, "this server has tiny"),
        ({"samples": 0}, "1 or more"),
        ({"samples": 2}, "would all be the same"),
        ({"samples": 9, "verbalizer": {"temperature": 1}}, "the limit samples is 8"),
        ({"positions": {"which": "last"}}, "a count of 1 or more"),
        ({"positions": {"at": [-1]}}, "0 or more"),
        ({"positions": {"at": [9999]}}, "does not exist"),
        ({"target": {"max_tokens": 99}}, "the limit new_tokens is 60"),
        ({"target": {"max_tokens": 10**30}}, "the limit new_tokens is 60"),
        ({"verbalizer": {"max_tokens": 0}}, "1 or more"),
        ({"verbalizer": {"temperature": 11}}, "greedy"),
        ({"target": {"seed": -1}}, "seed"),
        ({"prompt": "rain " * 150}, "the limit prompt_tokens is 100"),
        ({"name": "x" * 121}, "up to 120"),
    ],
)
def test_what_is_over_a_limit_is_refused_with_the_limit(
    ask: Asking, bench: Bench, use: Any, change: dict[str, Any], word: str
) -> None:
    use(bench.stopped(Limits(new_tokens=60, prompt_tokens=100)))
    body = {"prompt": "rain falls", **change}
    assert word in ask.refused("POST", "/runs", 422, body)
    assert ask("GET", "/runs")["runs"] == []


def test_a_full_queue_asks_to_wait(ask: Asking, bench: Bench, use: Any) -> None:
    use(bench.stopped(Limits(queue_per_visitor=1, stored_runs=2)))
    first = ask("POST", "/runs", asked("rain falls"), status=202)["run_id"]
    said = ask.refused("POST", "/runs", 429, asked("the old bridge"))
    assert "queue_per_visitor is 1" in said
    ask("POST", f"/runs/{first}/cancel")
    second = ask("POST", "/runs", asked("the old bridge"), status=202)["run_id"]
    assert "queue_per_visitor" in ask.refused("POST", f"/runs/{first}/retry", 429)
    ask("POST", f"/runs/{second}/cancel")
    assert "stored_runs is 2" in ask.refused("POST", "/runs", 422, asked("people say"))


@pytest.mark.parametrize("body", [{}, {"title": "x"}, {"name": 3}, {"note": "\ud800"}])
def test_wrong_names_change_nothing(ask: Asking, bench: Bench, use: Any, body: Any) -> None:
    use(bench.stopped())
    run_id = ask("POST", "/runs", asked("rain falls", name="Rain"), status=202)["run_id"]
    ask.refused("PATCH", f"/runs/{run_id}", 400, body)
    assert "up to 120" in ask.refused("PATCH", f"/runs/{run_id}", 422, {"name": "x" * 121})
    assert ask("GET", f"/runs/{run_id}")["run"]["name"] == "Rain"


def test_short_forms_are_what_they_stand_for(ask: Asking, bench: Bench, use: Any) -> None:
    use(bench.stopped(Limits(queue_per_visitor=50)))
    same = [
        {"prompt": "rain falls"},
        {"prompts": ["rain falls"], "pair": "tiny", "positions": "all", "samples": 1},
        {"prompt": [{"role": "user", "content": "rain falls"}], "positions": {"which": "all"}},
        {"prompt": {"messages": [{"role": "user", "content": "rain falls"}], "title": "Rain"}},
    ]
    ids = [ask.send("POST", "/runs", body).json()["run_id"] for body in same]
    assert len(set(ids)) == 1
    plain = ask("POST", "/runs", {"prompt": {"text": "rain falls"}}, status=202)["run_id"]
    listed = ask("POST", "/runs", {"prompt": "rain falls", "positions": {"at": [2]}}, status=202)
    assert len({plain, listed["run_id"], *ids}) == 3
    assert ask("GET", f"/runs/{plain}")["request"]["prompts"][0]["text"] == "rain falls"
