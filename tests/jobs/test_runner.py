"""A run from question to dataset: tokens, readings, publishing, keys, cancelling, retrying."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from dataclasses import replace

import pytest

from nla_core.data.manifest import CURRENT
from nla_core.errors import NLAError
from nla_core.jobs.request import Positions, RunPrompt, RunRequest, Sampling, Which
from nla_core.jobs.settings import Limits
from nla_core.jobs.store import RunState
from tests.jobs.conftest import Bench, ask, sentence

SOON = 60.0


def test_a_run_becomes_a_dataset(bench: Bench) -> None:
    runner = bench.runner()
    made = runner.submit(ask(name="My fox"), "ann")
    assert made.is_new
    end = runner.wait(made.run_id, SOON)
    assert (end.state, end.failed, end.error) == (RunState.DONE, 0, None)
    assert end.done == end.total > 5
    assert end.total_is_known
    dataset = bench.dataset(made.run_id)
    assert dataset.version == end.version
    (row,) = dataset.transcripts().to_dict("records")
    assert row["n_readings"] == end.done
    assert row["title"] == "the quick brown fox jumps"
    readings = dataset.readings(row["transcript_id"])
    transcript = bench.real.transcribe(
        [ask().prompts[0].content], seeds=[0], max_new_tokens=3, temperature=0.0
    )[0]
    expected = {
        (r.position, r.explanation, bench.real.reading_id(transcript.transcript_id, r))
        for _, r in bench.real.explain(
            [transcript], [bench.real.content_positions(transcript)], max_new_tokens=5
        )
    }
    assert expected == set(
        zip(readings["position"], readings["explanation"], readings["reading_id"], strict=True)
    )


def test_what_a_page_sees_tokens_then_texts_then_scores(bench: Bench) -> None:
    runner = bench.runner()
    run_id = runner.submit(ask(), "ann").run_id
    runner.wait(run_id, SOON)
    delta = runner.events(run_id)
    kinds = [event.kind for event in delta.events]
    assert kinds[0] == "tokens"
    said = runner.said(run_id, 0)
    assert said is not None
    assert said.messages[-1]["role"] == "assistant"
    first: dict[tuple[int | None, int], list[str]] = {}
    for event in delta.events[1:]:
        first.setdefault((event.position, event.sample), []).append(event.kind)
    assert all(order == ["text", "reading"] for order in first.values())
    texts = {e.position: e.explanation for e in delta.events if e.kind == "text"}
    scored = {e.position: e.reading for e in delta.events if e.reading is not None}
    assert all(scored[p].explanation == text for p, text in texts.items())
    later = runner.events(run_id, delta.next)
    assert (later.events, later.again) == ((), False)
    assert runner.events(run_id, delta.next + 1).again, "a page from before a restart starts over"


def test_the_same_request_is_answered_from_the_disk(bench: Bench) -> None:
    first = bench.runner()
    run_id = first.submit(ask(name="one"), "ann").run_id
    first.wait(run_id, SOON)
    n_batches = len(bench.faults.batches)
    again = first.submit(ask(name="two", note="other words"), "bob")
    assert (again.run_id, again.is_new) == (run_id, False)
    first.stop()
    second = bench.runner()
    answer = second.submit(ask(), "cleo")
    assert (answer.run_id, answer.is_new) == (run_id, False)
    assert second.snapshot(run_id).state is RunState.DONE
    assert len(bench.faults.batches) == n_batches
    assert not second.queue()


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 2, "verbalizer": Sampling(5, 0.7)},
        {"target": Sampling(3, 0.5)},
        {"target": Sampling(3, 0.0, 1)},
        {"target": Sampling(4)},
        {"verbalizer": Sampling(5, 0.5)},
        {"verbalizer": Sampling(5, 0.0, 1)},
        {"verbalizer": Sampling(6)},
        {"positions": Positions(Which.ANSWER)},
        {"positions": Positions(Which.LAST, 2)},
    ],
)
def test_every_setting_is_part_of_the_key(bench: Bench, changes: dict[str, object]) -> None:
    pair = bench.real.pair.describe()
    assert ask(**changes).run_id(pair) != ask().run_id(pair)
    assert ask(name="x", note="y").run_id(pair) == ask().run_id(pair)
    assert ask().run_id({**pair, "revision": "another"}) != ask().run_id(pair)
    assert RunRequest.from_json(ask(**changes).to_json()) == ask(**changes)


@pytest.mark.parametrize(
    ("positions", "count"),
    [
        (Positions(Which.ANSWER), None),
        (Positions(Which.LAST, 2), 2),
        (Positions(Which.EVERY, 1000), 1),
        (Positions(Which.LIST, at=(4, 0, 4)), 2),
    ],
)
def test_positions(bench: Bench, positions: Positions, count: int | None) -> None:
    runner = bench.runner()
    run_id = runner.submit(ask(positions=positions), "ann").run_id
    end = runner.wait(run_id, SOON)
    if count is None:  # one a character of the answer, which tokens may share
        tokens = runner.said(run_id, 0).tokens
        count = len({t.chip for t in tokens if t.turn == 1 and t.section == "content"})
    assert (end.state, end.done) == (RunState.DONE, count)
    if positions.at:
        found = bench.dataset(run_id).readings(runner.said(run_id, 0).transcript_id)
        assert sorted(found["position"]) == [0, 4]


def test_a_position_behind_the_end_of_the_answer_is_a_failure_with_a_reason(bench: Bench) -> None:
    runner = bench.runner()
    n = len(runner.pairs.tokens("tiny").pieces(ask().prompts[0]))
    request = ask(positions=Positions(Which.LIST, at=(2, n + 2)), target=Sampling(3))
    bench.faults.spoil = lambda t: replace(t, tokens=t.tokens[:n], hidden=t.hidden[:n])
    end = runner.wait(runner.submit(request, "ann").run_id, SOON)
    assert (end.done, end.failed) == (1, 1)
    (failure,) = runner.failures(end.run_id)
    assert failure.position == n + 2
    assert "answer ended before" in failure.reason
    assert runner.retry(end.run_id, "ann") == 0, "it would end there again"


def test_plain_text_and_a_begun_answer(bench: Bench) -> None:
    runner = bench.runner()
    plain = replace(ask(), prompts=(RunPrompt(text="rain falls on the"),))
    begun = replace(
        ask(),
        prompts=(
            RunPrompt(
                messages=(
                    {"role": "user", "content": "rain"},
                    {"role": "assistant", "content": "falls on the old"},
                )
            ),
        ),
        target=Sampling(0),
    )
    for request, said in ((plain, "rain falls on the"), (begun, "falls on the old")):
        run_id = runner.submit(request, "ann").run_id
        assert runner.wait(run_id, SOON).state is RunState.DONE
        found = runner.said(run_id, 0)
        assert said in [m["content"] for m in found.messages]
        visible = "".join(t.text for t in found.tokens if t.section == "content")
        assert visible == "".join(m["content"] for m in found.messages)
    assert found.messages[-1]["content"] == "falls on the old"
    assert {t.turn for t in found.tokens if t.role == "assistant"} == {1}


def test_cancel_keeps_what_is_finished_and_the_rest_can_be_taken_up(bench: Bench) -> None:
    runner = bench.runner(batch_size=2)
    enough, go_on = threading.Event(), threading.Event()

    def hold(texts: list[str]) -> None:
        if len(bench.faults.batches) == 3:
            enough.set()
            assert go_on.wait(SOON)

    bench.faults.on_explain = hold
    run_id = runner.submit(ask(sentence(1, 8)), "ann").run_id
    assert enough.wait(SOON)
    runner.cancel(run_id)
    go_on.set()
    end = runner.wait(run_id, SOON)
    assert end.state is RunState.CANCELLED
    assert 0 < end.done < end.total
    assert len(bench.dataset(run_id).readings(runner.said(run_id, 0).transcript_id)) == end.done
    n_batches = len(bench.faults.batches)
    assert runner.submit(ask(sentence(1, 8)), "ann").is_new, "what is left is new"
    whole = runner.wait(run_id, SOON)
    assert (whole.state, whole.done) == (RunState.DONE, whole.total)
    assert whole.version != end.version
    made_later = sum(len(batch) for batch in bench.faults.batches[n_batches:])
    assert made_later == whole.total - end.done, "nothing was done twice"
    assert bench.dataset(run_id).version == whole.version
    assert (bench.home / run_id / str(end.version)).is_dir(), "links to it still hold"


def test_cancel_stops_between_decode_steps(bench: Bench) -> None:
    """A long explanation is given up while it is written, beside one that goes on."""
    runner = bench.runner()
    long = {"verbalizer": Sampling(150), "positions": Positions(Which.LAST, 1)}
    started = threading.Event()
    bench.faults.on_explain = lambda texts: started.set()
    honest = bench.real.loaded.verbalizer._is_complete

    def slow(ids: list[int]) -> bool:
        time.sleep(0.02)
        return honest(ids)

    bench.real.loaded.verbalizer._is_complete = slow  # type: ignore[method-assign]
    try:
        run_id = runner.submit(ask(**long), "ann").run_id
        assert started.wait(SOON)
        began = time.monotonic()
        runner.cancel(run_id)
        end = runner.wait(run_id, SOON)
        assert time.monotonic() - began < 2.0, "150 steps of 20 ms would take three seconds"
    finally:
        del bench.real.loaded.verbalizer._is_complete
    assert (end.state, end.done, end.version) == (RunState.CANCELLED, 0, None)


def test_two_visitors_of_one_run(bench: Bench) -> None:
    runner = bench.stopped()
    one, two = runner.submit(ask(), "ann"), runner.submit(ask(), "bob")
    assert one.run_id == two.run_id
    assert not two.is_new
    runner.cancel(one.run_id, "ann")
    assert runner.snapshot(one.run_id).state is RunState.QUEUED, "bob still waits for it"
    runner.cancel(one.run_id, "bob")
    assert runner.snapshot(one.run_id).state is RunState.CANCELLED


def test_name_note_list_export_delete(bench: Bench) -> None:
    runner = bench.runner()
    run_id = runner.submit(ask(), "ann").run_id
    runner.wait(run_id, SOON)
    version = (bench.home / run_id / CURRENT).read_text()
    runner.rename(run_id, name="A fox", note="seen twice")
    assert (bench.home / run_id / CURRENT).read_text() == version
    with pytest.raises(NLAError, match="characters"):
        runner.rename(run_id, name="x" * 500, note="")
    (stored,) = runner.stored()
    assert (stored.name, stored.note, stored.state) == ("A fox", "seen twice", RunState.DONE)
    packed = io.BytesIO()
    runner.export(run_id, packed)
    names = zipfile.ZipFile(packed).namelist()
    assert {n.rpartition("/")[2] for n in names} >= {"run.json", "manifest.json", "CURRENT"}
    runner.delete(run_id)
    assert not (bench.home / run_id).exists()
    assert not runner.stored()
    with pytest.raises(NLAError, match="There is no run"):
        runner.snapshot(run_id)
    for bad in ("../x", "", "run-000000000000/.."):
        with pytest.raises(NLAError, match="There is no run"):
            runner.snapshot(bad)


def test_a_run_at_work_cannot_be_deleted(bench: Bench) -> None:
    runner = bench.stopped()
    run_id = runner.submit(ask(), "ann").run_id
    with pytest.raises(NLAError, match="Cancel it first"):
        runner.delete(run_id)


def test_one_process_a_folder(bench: Bench) -> None:
    bench.runner()
    with pytest.raises(NLAError, match="Another process"):
        bench.stopped().start()


def test_an_estimate_is_learned(bench: Bench) -> None:
    runner = bench.runner()
    request = ask(sentence(1, 9), sentence(2, 9))
    before = runner.estimate(request)
    assert (before.seconds, before.basis) == (None, "nothing")
    began = time.monotonic()
    runner.wait(runner.submit(request, "ann").run_id, SOON)
    took = time.monotonic() - began
    other = ask(sentence(3, 9), sentence(4, 9))
    learned = runner.estimate(other)
    assert learned.basis == "past runs"
    assert learned.seconds is not None
    assert 0 < learned.seconds < 5 * took
    assert learned.low < learned.seconds < learned.high  # type: ignore[operator]
    runner.stop()
    later = bench.stopped()
    assert later.estimate(other).basis == "past runs", "it is kept over a restart"
    later.submit(other, "bob")
    behind = later.estimate(ask(sentence(5, 9), sentence(6, 9)))
    assert behind.seconds > later.estimate(other).seconds * 0.5  # type: ignore[operator]


def test_models_are_loaded_when_needed_and_let_go_when_idle(bench: Bench) -> None:
    runner = bench.runner(idle_unload_s=4.0)  # publishing takes a second or two, and counts
    time.sleep(0.3)
    assert bench.faults.n_loaded == 0
    run_id = runner.submit(ask(), "ann").run_id
    runner.wait(run_id, SOON)
    assert [state.state for state in runner.models("tiny").values()] == ["ready"]
    end = time.monotonic() + SOON
    while time.monotonic() < end and runner.models("tiny")["cpu"].state == "ready":
        time.sleep(0.1)
    assert runner.models("tiny")["cpu"].state == "not loaded"
    runner.wait(runner.submit(ask("another text"), "ann").run_id, SOON)
    assert bench.faults.n_loaded == 2


def test_limits_hold_before_the_queue(bench: Bench) -> None:
    limits = Limits(queue_per_visitor=2, queue_total=3, stored_runs=4, prompts=2, prompt_tokens=40,
                    new_tokens=5, explanation_tokens=9, samples=2, readings=40,
                    prompt_characters=500)  # fmt: skip
    runner = bench.stopped(limits)

    def refused(request: RunRequest, name: str, value: str, visitor: str = "ann") -> NLAError:
        before = len(list(bench.home.glob("run-*")))
        with pytest.raises(NLAError) as error:
            runner.submit(request, visitor)
        assert name in error.value.why
        assert value in error.value.why
        assert len(list(bench.home.glob("run-*"))) == before
        return error.value

    refused(ask("a", "b", "c"), "prompts", "2")
    refused(ask(target=Sampling(6)), "new_tokens", "5")
    refused(ask(verbalizer=Sampling(10)), "explanation_tokens", "9")
    refused(ask(samples=3, verbalizer=Sampling(5, 0.7)), "samples", "2")
    refused(ask("fox " * 60), "prompt_tokens", "40")
    refused(ask("fox " * 600), "prompt_characters", "500")
    too_many = ask(sentence(1, 12), sentence(2, 12), samples=2, verbalizer=Sampling(5, 0.7))
    assert "last 10 positions" in refused(too_many, "readings", "40").fix
    for n in (1, 2):
        runner.submit(ask(sentence(n)), "ann")
    refused(ask(sentence(3)), "queue_per_visitor", "2")
    runner.submit(ask(sentence(3)), "bob")
    refused(ask(sentence(4)), "queue_total", "3", "cleo")
    for snapshot in runner.queue():
        runner.cancel(snapshot.run_id)
    runner.submit(ask(sentence(4)), "ann")
    refused(ask(sentence(5)), "stored_runs", "4")


def test_prompts_are_refused_with_their_line(bench: Bench) -> None:
    runner = bench.stopped()
    prompts = tuple(
        RunPrompt(text=text, where=f"upload.txt line {line}")
        for line, text in enumerate(["fine", "fox " * 300, "fine too"], start=7)
    )
    with pytest.raises(NLAError, match=r"upload.txt line 8 has .* context of 256") as error:
        runner.submit(replace(ask(), prompts=prompts), "ann")
    assert "line 7" not in error.value.why
    for positions in (Positions(Which.LIST, at=(9999,)), Positions(Which.LIST, at=(3, 60))):
        with pytest.raises(NLAError, match="does not exist"):
            runner.submit(ask(positions=positions), "ann")
    with pytest.raises(NLAError, match="no pair “other”"):
        runner.submit(replace(ask(), pair="other"), "ann")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": 2}, "all be the same"),
        ({"samples": 0}, "1 or more"),
        ({"target": Sampling(-1)}, "0 (read"),
        ({"verbalizer": Sampling(0)}, "1 or more"),
        ({"verbalizer": Sampling(5, float("nan"))}, "nan"),
        ({"target": Sampling(3, 0.0, -1)}, "seed"),
        ({"note": "x" * 5000}, "up to 4000"),
        ({"prompts": ()}, "at least one"),
    ],
)
def test_requests_that_make_no_sense(changes: dict[str, object], said: str) -> None:
    with pytest.raises(NLAError) as error:
        replace(ask(), **changes)
    assert said in str(error.value)


def test_a_repeated_prompt_and_roles_out_of_order() -> None:
    with pytest.raises(NLAError, match="Prompt 3 repeats prompt 1"):
        ask("a", "b", "a")
    with pytest.raises(NLAError, match="line 4 cannot be used"):
        RunPrompt(messages=({"role": "robot", "content": "x"},), where="line 4")
