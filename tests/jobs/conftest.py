"""A tiny pair, and a queue over it whose explainer can be made to fail.

Faults are set by tests in `Faults`; everything else is real: models, threads, files, publishing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from nla_core.data.dataset import Dataset
from nla_core.explain import Explainer
from nla_core.jobs.models import ModelCache, Pairs
from nla_core.jobs.request import Positions, RunPrompt, RunRequest, Sampling, Which
from nla_core.jobs.runner import JobRunner
from nla_core.jobs.settings import Limits, WorkerSettings
from nla_core.jobs.store import RunState, Snapshot
from tests.precompute.fake import HashEmbedder
from tests.tiny import tiny_pair

SETTINGS = WorkerSettings(batch_size=8, devices="cpu", dtype="float32", niceness=0, transcribe=2)
SOON = 60.0
WORDS = ["rain", "falls", "on", "the", "old", "stone", "bridge", "and", "people", "say"]


@dataclass(slots=True)
class Faults:
    """``on_explain`` and ``on_transcribe`` are called inside the worker's thread, with the texts
    of the prompts at work; what they raise is what the models raise."""

    on_explain: Callable[[list[str]], None] = lambda texts: None
    on_transcribe: Callable[[list[str]], None] = lambda texts: None
    on_load: Callable[[], None] = lambda: None
    spoil: Callable[[Any], Any] = lambda transcript: transcript
    batches: list[list[str]] = field(default_factory=list)
    n_loaded: int = 0


class FaultyExplainer:
    """The real one, with `Faults` in between."""

    def __init__(self, real: Explainer, faults: Faults) -> None:
        self.real, self.faults = real, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def transcribe(self, prompts: Any, **options: Any) -> Any:
        self.faults.on_transcribe([_text(prompt) for prompt in prompts])
        return [self.faults.spoil(found) for found in self.real.transcribe(prompts, **options)]

    def explain_each(self, wanted: Any, **options: Any) -> Any:
        texts = [w.transcript.messages[0]["content"] for w in wanted]
        self.faults.batches.append(texts)
        self.faults.on_explain(texts)
        yield from self.real.explain_each(wanted, **options)


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else prompt[0]["content"]


@dataclass(slots=True)
class Bench:
    """Makes runners over one folder, so that a test can end one and start the next."""

    home: Path
    pair: Path
    real: Explainer
    faults: Faults = field(default_factory=Faults)
    runners: list[JobRunner] = field(default_factory=list)

    def runner(self, limits: Limits | None = None, **settings: Any) -> JobRunner:
        """One that is started."""
        made = self.stopped(limits, **settings)
        made.start()
        return made

    def stopped(self, limits: Limits | None = None, **settings: Any) -> JobRunner:
        """One whose threads do not run: what is submitted waits."""
        pairs, asked = Pairs(lambda: {"tiny": self.pair}), replace(SETTINGS, **settings)
        made = JobRunner(
            self.home,
            pairs=pairs,
            embedder=HashEmbedder(),
            limits=limits,
            settings=asked,
            model_cache=ModelCache(pairs, asked, self._load),
        )
        self.runners.append(made)
        return made

    def _load(self, name: str, **_: Any) -> Any:
        self.faults.n_loaded += 1
        self.faults.on_load()
        return FaultyExplainer(self.real, self.faults)

    def dataset(self, run_id: str) -> Dataset:
        return Dataset.open(self.home / run_id)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pair(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def real(pair: Path) -> Explainer:
    return Explainer.load(pair, device="cpu", dtype="float32")


@pytest.fixture
def bench(tmp_path: Path, pair: Path, real: Explainer) -> Iterator[Bench]:
    made = Bench(tmp_path / "runs", pair, real)
    yield made
    made.faults.on_explain = lambda texts: None
    for runner in made.runners:
        runner.stop()
    left = [t.name for t in threading.enumerate() if t.name.startswith("runs-")]
    assert not left or not made.runners, f"threads are left: {left}"


def ask(text: str = "the quick brown fox jumps", *more: str, **changes: Any) -> RunRequest:
    """A run over one prompt or more; short, greedy texts."""
    prompts = tuple(RunPrompt(messages=({"role": "user", "content": t},)) for t in (text, *more))
    settings: dict[str, Any] = {
        "target": Sampling(max_tokens=3),
        "verbalizer": Sampling(max_tokens=5),
        **changes,
    }
    return RunRequest("tiny", prompts, **settings)


def sentence(number: int, words: int = 4) -> str:
    """Another text for another number."""
    return f"{number} " + " ".join(WORDS[(number + i) % len(WORDS)] for i in range(words))


def ends(runner: JobRunner, *run_ids: str) -> list[Snapshot]:
    return [runner.wait(run_id, SOON) for run_id in run_ids]


def whole(bench: Bench, runner: JobRunner, run_id: str) -> None:
    """Done, and the dataset holds all of it."""
    end = runner.wait(run_id, SOON)
    assert (end.state, end.failed, end.error) == (RunState.DONE, 0, None)
    assert end.done == end.total
    dataset = bench.dataset(run_id)
    assert dataset.manifest.counts["readings"] == end.done
    assert len(dataset.transcripts()) == end.n_prompts


def no_place_is_taken(runner: JobRunner, visitor: str = "ann") -> None:
    """The queue takes as many runs of one visitor as it did at the start."""
    assert not runner.queue()
    for n in range(runner.limits.queue_per_visitor):
        runner.submit(ask(sentence(900 + n), positions=Positions(Which.LAST, 1)), visitor)
    for snapshot in runner.queue():
        runner.wait(snapshot.run_id, SOON)
    assert not runner.queue()
