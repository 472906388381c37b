"""What goes wrong around a run: every other run finishes, nothing is lost, no place leaks.

Faults are raised where they would be: inside the worker's thread, in decoding, on the disk. What is
asserted is what a page or a shell sees: states, counts, datasets, threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch

from nla_core.data.publish import problems
from nla_core.errors import NLAError
from nla_core.jobs import publish
from nla_core.jobs.request import Positions, Sampling, Which
from nla_core.jobs.store import RunState, folded
from tests.jobs.conftest import SOON, Bench, ask, ends, no_place_is_taken, sentence, whole
from tests.tiny import LAYER

DIES = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
BAD = "poison"


@DIES
def test_a_worker_thread_that_is_killed_is_replaced(bench: Bench) -> None:
    runner = bench.runner()
    killed = threading.Event()

    def kill(texts: list[str]) -> None:
        if not killed.is_set() and len(bench.faults.batches) == 2:
            killed.set()
            raise SystemExit  # no Exception: it ends the thread

    bench.faults.on_explain = kill
    made = [runner.submit(ask(sentence(n)), f"v{n}").run_id for n in range(3)]
    for run_id in made:
        whole(bench, runner, run_id)
    assert killed.is_set()
    workers = [t for t in threading.enumerate() if t.name == "runs-cpu"]
    assert len(workers) == 1
    no_place_is_taken(runner)


@DIES
def test_a_reading_that_kills_every_worker_is_given_up_and_the_others_are_made(
    bench: Bench,
) -> None:
    runner = bench.runner(batch_size=4)

    def kill(texts: list[str]) -> None:
        if any(BAD in text for text in texts):
            raise SystemExit

    bench.faults.on_explain = kill
    places = Positions(Which.LAST, 2)
    bad = runner.submit(ask(f"{BAD} text", positions=places), "ann").run_id
    good = [runner.submit(ask(sentence(n)), f"v{n}").run_id for n in range(3)]
    for run_id in good:
        whole(bench, runner, run_id)
    end = runner.wait(bad, SOON)
    assert (end.state, end.done, end.failed) == (RunState.FAILED, 0, 2)
    assert all("broke off" in failure.reason for failure in runner.failures(bad))
    bench.faults.on_explain = lambda texts: None
    assert runner.retry(bad, "ann") == 2
    whole(bench, runner, bad)
    no_place_is_taken(runner)


def test_a_worker_that_hangs_is_left_behind(bench: Bench) -> None:
    runner = bench.runner(stall_s=1.0)
    released, hung = threading.Event(), threading.Event()

    def hang(texts: list[str]) -> None:
        if not hung.is_set():
            hung.set()
            released.wait(SOON)

    bench.faults.on_explain = hang
    try:
        made = [runner.submit(ask(sentence(n)), f"v{n}").run_id for n in range(2)]
        for run_id in made:
            whole(bench, runner, run_id)
        counts = [len(runner.events(run_id).events) for run_id in made]
    finally:
        released.set()
    time.sleep(0.5)  # it wakes, and what it says now must not count
    assert [len(runner.events(run_id).events) for run_id in made] == counts
    assert bench.faults.n_loaded == 2, "models of a hung thread are not used again"
    no_place_is_taken(runner)


def test_an_exception_inside_decode_costs_one_position(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vector at one position breaks any batch it is in."""
    runner = bench.runner()
    verbalizer = bench.real.loaded.verbalizer
    honest = verbalizer._prefill
    target: list[torch.Tensor] = []

    def prefill(rows: Sequence[int], scaled: torch.Tensor) -> object:
        if target and any(torch.equal(row, target[0]) for row in scaled):
            raise RuntimeError("CUDA error: device-side assert triggered")
        return honest(rows, scaled)

    transcript = bench.real.transcribe(
        [ask(sentence(1, 8)).prompts[0].content], seeds=[0], max_new_tokens=3, temperature=0.0
    )[0]
    position = bench.real.content_positions(transcript)[3]
    scale = verbalizer.sidecar.injection_scale
    target.append(torch.nn.functional.normalize(transcript.hidden[position], dim=-1) * scale)
    monkeypatch.setattr(verbalizer, "_prefill", prefill)
    bad = runner.submit(ask(sentence(1, 8)), "ann").run_id
    good = runner.submit(ask(sentence(2, 8)), "bob").run_id
    whole(bench, runner, good)
    end = runner.wait(bad, SOON)
    assert (end.state, end.failed, end.done) == (RunState.DONE, 1, end.total - 1)
    (failure,) = runner.failures(bad)
    assert failure.position == position
    assert "device-side assert" in failure.reason
    assert bench.dataset(bad).manifest.settings["failed_positions"] == 1
    target.clear()
    assert runner.retry(bad, "ann") == 1
    whole(bench, runner, bad)
    no_place_is_taken(runner)


@pytest.fixture
def nan_at(bench: Bench) -> Iterator[NanAt]:
    """Block K's output holds NaN wherever the target reads the poisoned token."""
    parts = bench.real.loaded.target.parts
    honest = parts.layers[LAYER].forward
    made = NanAt(bench.real.loaded.tokenizer(BAD)["input_ids"][0])
    seen: list[torch.Tensor] = []

    def remember(_module: object, args: tuple[torch.Tensor, ...]) -> None:
        seen[:] = [args[0]]

    def forward(states: torch.Tensor, *args: object, **options: object) -> object:
        out = honest(states, *args, **options)
        if made.on and seen[0].shape[1] == states.shape[1]:
            out = out.clone()
            out[made.where(seen[0])] = float("nan")
        return out

    handle = parts.embed.register_forward_pre_hook(remember)
    parts.layers[LAYER].forward = forward  # type: ignore[method-assign]
    yield made
    handle.remove()
    parts.layers[LAYER].forward = honest  # type: ignore[method-assign]


@dataclass(slots=True)
class NanAt:
    token: int
    on: bool = True
    everywhere: bool = False

    def where(self, ids: torch.Tensor) -> torch.Tensor:
        """``[n, T]`` bool."""
        hit = ids == self.token
        return hit.any(-1, keepdim=True).expand_as(ids) if self.everywhere else hit


def test_activations_that_are_no_numbers_cost_their_positions(bench: Bench, nan_at: NanAt) -> None:
    runner = bench.runner()
    prompts = ask(sentence(3), f"rain falls {BAD} {sentence(4)}", sentence(5), target=Sampling(0))
    mixed = runner.submit(prompts, "ann").run_id
    end = runner.wait(mixed, SOON)
    assert end.state is RunState.DONE
    failures = runner.failures(mixed)
    said = runner.said(mixed, 1)
    assert said is not None
    poisoned = [t.position for t in said.tokens if t.token_id == nan_at.token]
    assert [(f.prompt, f.position) for f in failures] == [(1, p) for p in poisoned]
    assert all("NaN" in failure.reason for failure in failures)
    assert end.done == end.total - len(poisoned) > 0

    dataset = bench.dataset(mixed)  # which holds itself to be whole and finite
    rows = dataset.transcripts().set_index("prompt_id")
    assert set(rows["status"]) == {"ok"}
    assert dataset.manifest.settings["failed_positions"] == len(poisoned)
    tokens = dataset.tokens(str(rows.loc["prompt-0002", "transcript_id"]))
    assert tokens.index[tokens["norm"] == 0].tolist() == poisoned
    assert problems(dataset.directory, dataset.manifest) == []

    assert runner.retry(mixed, "ann") == len(poisoned)  # it is no better
    assert runner.wait(mixed, SOON).failed == len(poisoned)
    assert [f.position for f in runner.failures(mixed)] == poisoned
    before = {e.reading for e in runner.events(mixed).events if e.kind == "reading"}
    runner.stop()
    runner = bench.runner()
    assert [f.position for f in runner.failures(mixed)] == poisoned

    nan_at.on = False
    assert runner.retry(mixed, "ann") == len(poisoned)
    whole(bench, runner, mixed)
    after = {e.reading for e in runner.events(mixed).events if e.kind == "reading"}
    assert before < after
    assert len(after) == len(before) + len(poisoned), "what was read is not read again"
    no_place_is_taken(runner)


def test_a_retry_that_gives_another_answer_reads_the_whole_prompt_anew(
    bench: Bench, nan_at: NanAt
) -> None:
    """With NaN among the logits the answer was nonsense; none of its readings may stay."""
    runner = bench.runner()
    asked = ask(f"{BAD} {sentence(4)} {BAD}", sentence(5))
    run_id = runner.submit(asked, "ann").run_id
    end = runner.wait(run_id, SOON)
    assert end.failed
    old = runner.said(run_id, 0)
    nan_at.on = False
    assert runner.retry(run_id, "ann") > 0
    whole(bench, runner, run_id)
    new = runner.said(run_id, 0)
    assert old is not None
    assert new is not None
    assert not new.unreadable
    assert new.transcript_id != old.transcript_id
    dataset = bench.dataset(run_id)
    assert new.transcript_id in set(dataset.transcripts()["transcript_id"])
    live = folded(runner.events(run_id).events, 0)
    assert len(live.readings) == len(dataset.readings(new.transcript_id))
    runner.stop()
    again = bench.runner()
    found = folded(again.events(run_id).events, 0)
    assert found.readings == live.readings


def test_a_prompt_of_nothing_but_nan_fails_as_a_whole(bench: Bench, nan_at: NanAt) -> None:
    nan_at.everywhere = True
    runner = bench.runner()
    asked = ask(sentence(3), f"{BAD} {sentence(4)}", target=Sampling(0))
    run_id = runner.submit(asked, "ann").run_id
    end = runner.wait(run_id, SOON)
    assert (end.state, end.failed) == (RunState.DONE, 1)
    (failure,) = runner.failures(run_id)
    assert (failure.prompt, failure.position) == (1, None)
    assert "NaN" in failure.reason
    rows = bench.dataset(run_id).transcripts().set_index("prompt_id")
    assert rows.loc["prompt-0002", "status"] == "error"
    nan_at.on = False
    assert runner.retry(run_id, "ann") == 1
    whole(bench, runner, run_id)


def test_a_score_that_is_no_number_is_a_failed_position(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = bench.runner()
    reconstructor = bench.real.loaded.reconstructor
    honest, calls = reconstructor.reconstruct, []

    def reconstruct(texts: list[str], **options: object) -> torch.Tensor:
        calls.append(texts)
        vectors = honest(texts, **options)  # type: ignore[arg-type]
        return vectors * float("nan") if len(calls) == 2 else vectors

    monkeypatch.setattr(reconstructor, "reconstruct", reconstruct)
    run_id = runner.submit(ask(sentence(1)), "ann").run_id
    end = runner.wait(run_id, SOON)
    assert end.state is RunState.DONE
    assert end.failed > 0
    assert all("no numbers" in failure.reason for failure in runner.failures(run_id))
    assert runner.retry(run_id, "ann") == end.failed
    whole(bench, runner, run_id)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_halves_the_batch_and_costs_nothing(
    bench: Bench, error: RuntimeError
) -> None:
    runner = bench.runner(batch_size=16)

    def full(texts: list[str]) -> None:
        if len(texts) > 4:
            raise error

    bench.faults.on_explain = full
    made = [runner.submit(ask(sentence(n, 10)), f"v{n}").run_id for n in range(3)]
    for run_id in made:
        whole(bench, runner, run_id)
    sizes = [len(batch) for batch in bench.faults.batches]
    first_fit = next(i for i, n in enumerate(sizes) if n > 2)
    while sizes[first_fit] > 4:
        first_fit += 1
    assert max(sizes[first_fit:]) <= 4, "what did not fit once is not tried again"


def test_a_pair_that_cannot_be_loaded_ends_its_runs_with_the_reason(bench: Bench) -> None:
    runner = bench.runner()
    broken = threading.Event()
    broken.set()

    def load() -> None:
        if broken.is_set():
            raise NLAError("The weights are gone", why="no file", fix="Fetch them")

    bench.faults.on_load = load
    made = [runner.submit(ask(sentence(n)), f"v{n}").run_id for n in range(2)]
    for end in ends(runner, *made):
        assert end.state is RunState.FAILED
        assert "weights are gone" in str(end.error)
        assert end.model.startswith("failed")
    broken.clear()
    for run_id in made:
        assert runner.retry(run_id, "ann") > 0
        whole(bench, runner, run_id)
    no_place_is_taken(runner)


@DIES
def test_a_publisher_that_dies_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, calls = publish.publish_run, []

    def die(*args: object) -> object:
        calls.append(args)
        if len(calls) == 1:
            raise SystemExit
        return honest(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(publish, "publish_run", die)
    runner = bench.runner()
    whole(bench, runner, runner.submit(ask(sentence(1)), "ann").run_id)
