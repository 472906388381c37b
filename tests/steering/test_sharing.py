"""A model that several threads use at once: what is steered stays with the thread that steers.

Each test reads prompts in one thread while another has a hook on the very same target, and holds
what came of it against what comes of a quiet model, bit by bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from nla_core.explain import Explainer
from nla_core.readings import Transcript
from nla_core.steering.experiment import Edit, Experiment
from nla_core.steering.push import adding
from nla_core.steering.run import steer
from tests.tiny import D_MODEL, tiny_pair

pytestmark = pytest.mark.unit

PROMPTS = ["the quick brown fox jumps", "rain falls on the old stone bridge"]
WAIT = 60.0
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def explainer(pair: Path) -> Explainer:
    return Explainer.load(pair, device="cpu", dtype="float32")


def elsewhere(work: Callable[[], Result]) -> Result:
    """``work`` in another thread."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(WAIT)
    assert found, "it never came back"
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]  # type: ignore[no-any-return]


def read(explainer: Explainer) -> tuple[list[Transcript], list[tuple[Any, ...]]]:
    """All of a run: answers, vectors, texts and scores."""
    made = explainer.transcribe(PROMPTS, seeds=[0, 1], max_new_tokens=6, temperature=1.0)
    transcripts = [t for t in made if isinstance(t, Transcript)]
    positions = [explainer.content_positions(t) for t in transcripts]
    readings = explainer.explain(transcripts, positions, max_new_tokens=6, temperature=1.0)
    return transcripts, sorted(
        (i, r.position, r.explanation, r.mse_nrm, r.centred_cosine) for i, r in readings
    )


def same(left: Any, right: Any) -> None:
    assert [t.transcript_id for t in left[0]] == [t.transcript_id for t in right[0]]
    for one, other in zip(left[0], right[0], strict=True):
        assert torch.equal(one.hidden, other.hidden)
        assert one.tokens == other.tokens
    assert left[1] == right[1]


def test_a_run_reads_the_same_while_the_target_is_pushed(explainer: Explainer) -> None:
    quiet = read(explainer)
    push = torch.full((1, 1, D_MODEL), 50.0)
    with adding(explainer.loaded.target, lambda: push):
        pushed = read(explainer)  # in this thread it does leak: the test can fail
        assert not torch.equal(pushed[0][0].hidden, quiet[0][0].hidden)
        same(elsewhere(lambda: read(explainer)), quiet)
    same(read(explainer), quiet)


def test_steering_comes_out_the_same_while_a_run_reads(explainer: Explainer) -> None:
    asked = Experiment(
        "pair",
        (Edit("the quick brown fox", "the old stone bridge"),),
        prompt="the lazy dog while rain falls",
        alphas=(0.5, 3.0),
        words=("rain",),
        n_seeds=3,
        new_tokens=6,
    )

    def steered() -> Any:
        *_, whole = steer(explainer, asked)
        return whole

    quiet_run, quiet = read(explainer), steered()
    stop, rounds = threading.Event(), list[Any]()

    def run() -> None:
        while not stop.is_set():
            rounds.append(read(explainer))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        for _ in range(5):
            found = steered()
            assert found.continuations == quiet.continuations
            assert found.chances == quiet.chances
            assert found.facts == quiet.facts
    finally:
        stop.set()
        thread.join(WAIT)
    assert rounds
    for found in rounds:
        same(found, quiet_run)


def test_the_first_two_that_read_at_once_share_a_whole_prefix(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verbalizer's prefix is made at the first use; a half of it would garble texts."""
    vectors = torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(0))
    verbalizer = explainer.loaded.verbalizer
    quiet = [t.text for t in verbalizer.verbalize(vectors, seeds=[0, 1], max_new_tokens=6)]
    verbalizer._prefix = None
    honest = verbalizer.parts.decoder.forward
    begun, other_done = threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> Any:
        if options.get("input_ids") is not None and not begun.is_set():  # the prefix, first of all
            begun.set()
            other_done.wait(0.5)  # time enough for the other to see what is not there yet
        return honest(*args, **options)

    monkeypatch.setattr(verbalizer.parts.decoder, "forward", slow)

    def texts() -> list[str]:
        made = verbalizer.verbalize(vectors, seeds=[0, 1], max_new_tokens=6)
        return [t.text for t in sorted(made, key=lambda t: t.row)]

    first: list[list[str]] = []
    thread = threading.Thread(target=lambda: first.append(texts()), daemon=True)
    thread.start()
    assert begun.wait(WAIT)
    second = texts()
    other_done.set()
    thread.join(WAIT)
    assert first == [quiet]
    assert second == quiet
