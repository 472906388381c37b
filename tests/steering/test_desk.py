"""Experiments in a thread: queued, shared by key, cancelled, failing in words; presets on file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nla_core.errors import Cancelled, NLAError
from nla_core.steering import run
from nla_core.steering import runner as desks
from nla_core.steering.experiment import Edit, Experiment
from nla_core.steering.outcome import Facts, Fidelity, Outcome
from nla_core.steering.presets import presets
from nla_core.steering.runner import Desk, Status

pytestmark = pytest.mark.unit

ASKED = Experiment("tiny", (Edit("a cake", "a fish"),), prompt="For dinner", n_seeds=2)
FACTS = Facts("rev", 1.0, 0.0, Fidelity(0, 0, 0), Fidelity(0, 0, 0), 1, 2, (1,), (), "For dinner")
WAIT = 10.0


class Held:
    """Stands in for ``steer``: yields once, then waits until it is let go or cancelled."""

    def __init__(self) -> None:
        self.go, self.started, self.runs = threading.Event(), threading.Event(), 0

    def __call__(
        self, explainer: Any, experiment: Experiment, *, cancelled: Callable[[], bool]
    ) -> Iterator[Outcome]:
        self.runs += 1
        yield Outcome(experiment, FACTS)
        self.started.set()
        while not self.go.wait(0.01):
            if cancelled():
                raise Cancelled
        yield Outcome(experiment, FACTS)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    made = Held()
    monkeypatch.setattr(run, "steer", made)
    yield made
    made.go.set()


class Loaded:
    """Stands in for the shelves: ``load`` is called for a pair that is not there yet."""

    def __init__(self, load: Callable[[str], Any]) -> None:
        self.load, self.there = load, dict[str, Any]()

    def ready(self, name: str) -> bool:
        return name in self.there

    @contextmanager
    def using(self, name: str) -> Iterator[Any]:
        if name not in self.there:
            self.there[name] = self.load(name)
        yield self.there[name]


@pytest.fixture
def desk() -> Desk:
    return Desk(Loaded(lambda pair: object()))


def test_the_same_experiment_runs_once(desk: Desk, held: Held) -> None:
    key = desk.start(ASKED)
    assert desk.start(ASKED) == key
    assert held.started.wait(WAIT)
    running = desk.seen(key)
    assert running is not None
    assert running.active
    assert running.outcome is not None  # what there is can be seen before the end
    held.go.set()
    done = desk.wait(key, WAIT)
    assert done is not None
    assert done.status == Status.DONE
    assert desk.start(ASKED) == key
    assert held.runs == 1
    assert desk.seen("nothing") is None


def test_one_waits_for_another_and_both_can_be_cancelled(desk: Desk, held: Held) -> None:
    first = desk.start(ASKED)
    assert held.started.wait(WAIT)
    second = desk.start(replace(ASKED, first_seed=7))
    third = desk.start(replace(ASKED, first_seed=8))
    waiting = desk.seen(third)
    assert waiting is not None
    assert (waiting.status, waiting.ahead) == (Status.WAITING, 2)
    desk.cancel(second)
    desk.cancel(first)
    stopped = desk.wait(first, WAIT)
    assert stopped is not None
    assert stopped.status == Status.CANCELLED
    assert stopped.outcome is not None  # what was made stays
    held.go.set()
    last = desk.wait(third, WAIT)
    assert last is not None
    assert last.status == Status.DONE
    never = desk.seen(second)
    assert never is not None
    assert (never.status, never.outcome) == (Status.CANCELLED, None)
    assert desk.start(ASKED) == first  # one that was cancelled may run again
    again = desk.wait(first, WAIT)
    assert again is not None
    assert again.status == Status.DONE


def test_the_queue_has_an_end(desk: Desk, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "MOST_WAITING", 1)
    desk.start(ASKED)
    assert held.started.wait(WAIT)
    desk.start(replace(ASKED, first_seed=7))
    with pytest.raises(NLAError, match="Too many experiments"):
        desk.start(replace(ASKED, first_seed=8))


def test_old_outcomes_go(desk: Desk, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "MOST_KEPT", 2)
    held.go.set()
    keys = [desk.start(replace(ASKED, first_seed=i)) for i in range(4)]
    for key in keys:
        desk.wait(key, WAIT)
    assert [desk.seen(key) is None for key in keys] == [True, True, False, False]


def test_failures_are_told_in_words(held: Held) -> None:
    def missing(pair: str) -> Any:
        raise NLAError(f"The pair {pair} is not on this machine", why="w", fix="f")

    desk = Desk(Loaded(missing))
    seen = desk.wait(desk.start(ASKED), WAIT)
    assert seen is not None
    assert seen.status == Status.FAILED
    assert "not on this machine" in str(seen.error)

    def broken(pair: str) -> Any:
        raise RuntimeError("a bug")

    desk = Desk(Loaded(broken))
    seen = desk.wait(desk.start(ASKED), WAIT)
    assert seen is not None
    assert "RuntimeError: a bug" in str(seen.error)
    with pytest.raises(NLAError, match="Nothing was edited"):
        desk.start(replace(ASKED, edits=(Edit("a", "a"),)))


def test_models_are_loaded_beside_the_page() -> None:
    gate, tries = threading.Event(), []

    def load(pair: str) -> Any:
        tries.append(pair)
        gate.wait(WAIT)
        if len(tries) == 1:
            raise NLAError("No such pair", why="w", fix="f")
        return object()

    def until(wanted: bool) -> None:
        for _ in range(1000):
            if desk.loaded("tiny") == wanted:
                return
            threading.Event().wait(0.01)
        raise AssertionError("never loaded")

    models = Loaded(load)
    desk = Desk(models)
    assert not desk.loaded("tiny")
    assert not desk.loaded("tiny")
    gate.set()
    with pytest.raises(NLAError, match="No such pair"):
        until(True)
    until(True)  # asked again, it is tried again
    assert tries == ["tiny", "tiny"]
    models.there.clear()  # let go meanwhile, as nobody used it
    assert not desk.loaded("tiny"), "a page must not be kept waiting by what it takes for loaded"
    until(True)
    assert len(tries) == 3


# ---- presets -------------------------------------------------------------------------------------


def test_the_shipped_presets_can_be_run_and_were_measured() -> None:
    found = presets()
    assert len(found) >= 5
    for preset in found:
        preset.experiment.checked()
        assert preset.alpha in preset.experiment.alphas
        assert preset.measured is not None, f"{preset.id}: python -m precompute steer"
        assert preset.measured.steered.n >= 20
    assert sum(p.measured is not None and p.measured.works for p in found) >= 3


def test_a_preset_that_changed_is_not_shown_with_old_numbers(tmp_path: Path) -> None:
    shipped = presets()
    folder = Path(__file__).resolve().parents[2] / "data" / "steering"
    asked = json.loads((folder / "presets.json").read_text(encoding="utf-8"))
    asked["presets"][0]["words"] = ["something else"]
    changed = tmp_path / "presets.json"
    changed.write_text(json.dumps(asked), encoding="utf-8")
    found = presets(changed)
    assert found[0].measured is None
    assert found[1] == shipped[1]
    assert shipped[1].stale("another revision")
    assert presets(tmp_path / "none.json") == ()
    changed.write_text("{", encoding="utf-8")
    with pytest.raises(NLAError, match=r"presets\.json cannot be read"):
        presets(changed)
