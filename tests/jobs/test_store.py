"""What a page shows of a prompt while its readings arrive."""

from __future__ import annotations

from nla_core.jobs.request import Sampling
from nla_core.jobs.store import Event, RunState, folded
from tests.jobs.conftest import SOON, Bench, ask


def test_texts_come_before_their_scores_and_failures_go_when_tried_again() -> None:
    events = [
        Event("tokens", 0),
        Event("text", 0, 3, 0, explanation="soon"),
        Event("failure", 0, 4, 0, reason="no"),
        Event("text", 1, 3, 0, explanation="of another prompt"),
    ]
    live = folded(events, 0)
    assert live.texts == {(3, 0): "soon"}
    assert live.failures == {(4, 0): "no"}
    assert folded([*events, Event("retry", 0, 4, 0)], 0).failures == {}
    whole = folded([*events, Event("failure", 1, reason="too odd")], 1)
    assert whole.failed == "too odd"
    assert folded([*events, Event("failure", 1, reason="x"), Event("retry", 1)], 1).failed is None


def test_a_run_folds_into_all_of_its_readings(bench: Bench) -> None:
    runner = bench.runner()
    request = ask("one two three", "four five six", target=Sampling(max_tokens=2))
    run_id = runner.submit(request, "ann").run_id
    assert runner.wait(run_id, SOON).state is RunState.DONE
    assert runner.request(run_id).prompts == request.prompts
    events = runner.events(run_id).events
    found = [folded(events, index) for index in range(2)]
    assert sum(len(live.readings) for live in found) == runner.snapshot(run_id).done
    assert all(not live.texts and not live.failures for live in found)


def test_a_published_run_has_its_claims_judged(bench: Bench) -> None:
    from nla_core.analysis.derived import Claims

    runner = bench.runner()
    run_id = runner.submit(ask("the old stone bridge"), "ann").run_id
    assert runner.wait(run_id, SOON).state is RunState.DONE
    claims = Claims.open(bench.dataset(run_id))
    transcript = str(bench.dataset(run_id).transcripts()["transcript_id"].iloc[0])
    assert len(claims.readings(transcript)) == runner.snapshot(run_id).done
