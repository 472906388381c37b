"""One copy of the models for the queue, for steering and for whoever asks; who waits for whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nla_core import opened
from nla_core.errors import Cancelled, NLAError
from nla_core.explain import Explainer
from nla_core.jobs import models as models_module
from nla_core.jobs.models import DeviceModels, LoadState, ModelCache, megabytes_of
from nla_core.jobs.settings import WorkerSettings
from nla_core.opened import Kept
from nla_core.steering.experiment import Edit, Experiment
from nla_core.steering.runner import Desk
from nla_core.steering.runner import Status as Steered
from tests.jobs.conftest import SETTINGS, SOON, Bench, ask, sentence, whole
from tests.tiny import tiny_pair

A, B = ("a", "r1"), ("b", "r1")
STEER = Experiment(
    "tiny",
    (Edit("the quick brown fox", "the old stone bridge"),),
    prompt="the lazy dog while rain falls",
    alphas=(4.0,),
    n_seeds=2,
    new_tokens=4,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(models_module, "megabytes_of", lambda explainer: 10)


class Loading:
    """Loads nothing, says what it loaded, and can be held up."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, name: str, **_: Any) -> Any:
        self.loaded.append(name)
        self.go.wait(SOON)
        return SimpleNamespace(pair=SimpleNamespace(pair_id=name, revision="r1"))


def device(load: Loading, *, memory_mb: int = 0, idle_s: float = 1800.0) -> DeviceModels:
    return DeviceModels(load, device="cpu", dtype="float32", memory_mb=memory_mb, idle_s=idle_s)


class User(threading.Thread):
    """Uses a pair until it is let go."""

    def __init__(self, device: DeviceModels, name: str) -> None:
        super().__init__(daemon=True)
        self.device, self.name_ = device, name
        self.has, self.leave = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            with self.device.using((self.name_, "r1"), self.name_):
                self.has.set()
                self.leave.wait(SOON)
        except (Cancelled, NLAError) as error:
            self.error = error

    def is_kept_waiting(self) -> bool:
        return not self.has.wait(0.15)

    def ends(self) -> None:
        self.leave.set()
        self.join(SOON)
        assert not self.is_alive()


def test_several_use_one_copy_at_a_time_without_waiting() -> None:
    load = Loading()
    on = device(load)
    users = [User(on, "a") for _ in range(4)]
    assert all(user.has.wait(SOON) for user in users)
    assert load.loaded == ["a"]
    for user in users:
        user.ends()


def test_without_a_limit_pairs_stand_beside_each_other() -> None:
    load = Loading()
    on = device(load)
    one = User(on, "a")
    assert one.has.wait(SOON)
    load.go.clear()
    other = User(on, "b")
    again = User(on, "a")
    assert again.has.wait(SOON), "what is there does not wait for what is being loaded"
    load.go.set()
    assert other.has.wait(SOON)
    for user in (one, other, again):
        user.ends()
    assert on.has(A)
    assert on.has(B)


def test_with_a_limit_a_pair_goes_when_nobody_uses_it() -> None:
    load = Loading()
    on = device(load, memory_mb=10)
    run = User(on, "a")
    assert run.has.wait(SOON)
    steer = User(on, "b")
    assert steer.is_kept_waiting()
    assert "another pair" in on.state(B).note
    assert on.has(A), "what is in use is not taken away"
    next_batch = User(on, "a")
    assert next_batch.is_kept_waiting(), "else one pair's batches would keep the other out for ever"
    run.ends()
    assert steer.has.wait(SOON)
    assert not on.has(A)
    steer.ends()
    assert next_batch.has.wait(SOON)
    next_batch.ends()
    assert load.loaded == ["a", "b", "a"]


def test_two_pairs_in_turns_never_stop_each_other() -> None:
    """Ten threads, two pairs, room for one: all of them get through, many times."""
    load = Loading()
    on = device(load, memory_mb=10)
    done: list[str] = []

    def work(name: str) -> None:
        for _ in range(10):
            with on.using((name, "r1"), name):
                assert on.has((name, "r1"))
            done.append(name)

    threads = [threading.Thread(target=work, args=("ab"[i % 2],), daemon=True) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert len(done) == 100


def test_idle_models_go_and_used_ones_stay() -> None:
    on = device(Loading(), idle_s=0.05)
    user = User(on, "a")
    assert user.has.wait(SOON)
    time.sleep(0.1)
    assert on.unload_idle() == []
    user.ends()
    time.sleep(0.1)
    assert on.unload_idle() == [A]
    assert on.state(A).state is LoadState.ABSENT


def test_who_fails_to_load_leaves_the_place_free() -> None:
    load = Loading()
    on = device(load, memory_mb=5)  # a pair takes 10
    for _ in range(2):
        with pytest.raises(NLAError, match="does not fit"), on.using(A, "a"):
            raise AssertionError("it does not fit")
    assert load.loaded == ["a", "a"]
    assert on.is_empty()


def models_of(load: Loading, **changes: Any) -> ModelCache:
    class OnlyNames:
        def get(self, name: str) -> Any:
            return SimpleNamespace(pair_id=name, revision="r1")

    return ModelCache(OnlyNames(), WorkerSettings(devices="cpu", **changes), load)  # type: ignore[arg-type]


def test_a_caller_that_waits_for_replaced_models_goes_to_the_new_ones() -> None:
    load = Loading()
    models = models_of(load)
    load.go.clear()
    hung = User(models.of("cpu"), "a")
    while not load.loaded:
        time.sleep(0.01)
    got = threading.Event()

    def steer() -> None:
        with models.using("a"):
            got.set()

    threading.Thread(target=steer, daemon=True).start()
    assert not got.wait(0.1)
    old = models.of("cpu")
    assert models.renewed("cpu") is not old
    load.go.set()
    assert got.wait(SOON)
    assert load.loaded == ["a", "a"]
    hung.ends()
    assert models.ready("a")


def test_models_that_no_worker_looks_after_are_let_go_when_idle() -> None:
    models = models_of(Loading(), idle_unload_s=0.05)
    assert not models.ready("a")
    with models.using("a"):
        assert models.ready("a")
    deadline = time.monotonic() + SOON
    while models.ready("a") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not models.ready("a")
    with models.using("a"):  # and they come back
        assert models.ready("a")


def test_the_device_that_has_the_pair_is_asked() -> None:
    load = Loading()
    models = ModelCache(models_of(load).pairs, WorkerSettings(devices="cpu+meta"), load)
    with models.of("meta").using(A, "a"):
        pass
    with models.using("a"), models.using("a"):
        pass
    assert load.loaded == ["a"]
    with models.using("b"):
        assert models.of("cpu").has(B)


# ---- a run and an experiment ---------------------------------------------------------------------


@pytest.fixture
def server(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The pages' own queue and desk over the tiny pair; what was loaded."""
    loaded: list[Path] = []
    honest = Explainer.load

    def load(folder: Path, **options: Any) -> Explainer:
        loaded.append(folder)
        return honest(folder, **options)

    monkeypatch.setattr(Explainer, "load", load)
    monkeypatch.setenv("NLA_PAIRS", str(pair))
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("NLA_RUN_WORKER", "devices=cpu,dtype=float32,niceness=0")
    for name in ("_RUNNERS", "_MODELS", "_DESKS"):
        monkeypatch.setattr(opened, name, Kept(1))
    yield loaded
    opened.runner().stop()


def test_a_server_that_reads_and_steers_loads_a_pair_once(server: list[Path], pair: Path) -> None:
    from dataclasses import replace

    runner, desk = opened.runner(), opened.steering()
    made = runner.submit(replace(ask(sentence(1)), pair=pair.name), "ann")
    key = desk.start(replace(STEER, pair=pair.name))
    assert runner.wait(made.run_id, SOON).done
    seen = desk.wait(key, SOON)
    assert seen is not None
    assert seen.status == Steered.DONE
    with opened.explainer(pair.name) as explainer:
        assert explainer.loaded.target is not None
    assert len(server) == 1


def test_an_experiment_does_not_wait_for_a_run(bench: Bench) -> None:
    runner = bench.runner()
    at_work, go = threading.Event(), threading.Event()

    def hold(texts: list[str]) -> None:
        at_work.set()
        go.wait(SOON)

    bench.faults.on_explain = hold
    run_id = runner.submit(ask(sentence(1)), "ann").run_id
    assert at_work.wait(SOON)
    desk = Desk(runner.model_cache)
    assert desk.loaded("tiny")
    seen = desk.wait(desk.start(STEER), SOON)
    assert seen is not None
    assert seen.status == Steered.DONE
    assert runner.snapshot(run_id).done == 0, "the run is still where it was"
    go.set()
    whole(bench, runner, run_id)
    assert bench.faults.n_loaded == 1


def test_the_idle_queue_does_not_take_models_from_an_experiment(bench: Bench) -> None:
    runner = bench.runner(idle_unload_s=0.05)
    with ExitStack() as stack:
        explainer = stack.enter_context(runner.model_cache.using("tiny"))
        time.sleep(1.5)  # the worker has looked several times
        with runner.model_cache.using("tiny") as again:
            assert again is explainer
    assert bench.faults.n_loaded == 1
    assert SETTINGS.devices == "cpu"


def test_packed_weights_are_counted_like_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_module, "MEGABYTE", 1)
    explainer = Explainer.load(tiny_pair(tmp_path), device="cpu", dtype="float32")
    models = explainer.loaded
    held = [
        weight.numel() * weight.element_size()
        for model in (models.target.model, models.verbalizer.model, models.reconstructor.model)
        for weight in model.parameters()
    ]
    assert megabytes_of(explainer) >= sum(held)


@pytest.mark.parametrize(
    ("device", "free_gb", "rows"), [("cuda:0", 0, 16), ("cuda:0", 8, 62), ("cuda:0", 120, 256)]
)
def test_a_batch_follows_the_memory_of_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, free_gb: int, rows: int
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_gb * 10**9, 140 * 10**9))
    for name in (device, "auto"):
        models = DeviceModels(Loading(), device=name, dtype="auto", memory_mb=0, idle_s=1.0)
        assert models.batch_size() == rows
    cpu = DeviceModels(Loading(), device="cpu", dtype="auto", memory_mb=0, idle_s=1.0)
    assert cpu.batch_size() == models_module.CPU_BATCH
