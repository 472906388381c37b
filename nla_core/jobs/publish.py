"""A run that ended becomes a dataset: the same files, checks and reader as the demo.

A disk that refuses is tried again, ever more rarely, for as long as the server runs; readings are
safe in the journal, and nobody should have to come back and press a button because a disk was full
for a minute.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Final

from nla_core.data.publish import publish_tables
from nla_core.embed import Embedder
from nla_core.errors import NLAError
from nla_core.jobs.estimate import PUBLISHER, History, Kind
from nla_core.jobs.queue import Queue, pair_key
from nla_core.jobs.request import RunPrompt, RunRequest
from nla_core.jobs.store import Run, RunFolder, RunState, reason_of
from nla_core.prompts import Message
from nla_core.readings import reading_id
from nla_core.rows import Outcome, tables_of

LOG = logging.getLogger(__name__)
FIRST_RETRY_S: Final = 5.0
LAST_RETRY_S: Final = 600.0
CATEGORY: Final = "your prompts"


@dataclass(frozen=True, slots=True)
class _Row:
    """What a row of the dataset says of a visitor's prompt."""

    id: str
    title: str
    messages: tuple[Message, ...]
    category: str = CATEGORY
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, index: int, prompt: RunPrompt) -> _Row:
        plain: tuple[Message, ...] = ({"role": "user", "content": prompt.text or ""},)
        return cls(f"prompt-{index + 1:04d}", prompt.label, prompt.messages or plain)


def publish_run(
    folder: RunFolder, request: RunRequest, pair: dict[str, object], embedder: Embedder
) -> tuple[str, int]:
    """Publish what the journal holds; the version, and how many readings are in it.

    Prompts that were never transcribed are left out; those that failed are rows with their reason.
    Raises NLAError where there is nothing to publish, or the disk refuses.
    """
    kept = folder.read_journal()
    outcomes: list[Outcome] = []
    seen: set[str] = set()
    for index, prompt in enumerate(request.prompts):
        row = _Row.of(index, prompt)
        if index in kept.prompt_failures:
            error = NLAError("The prompt failed", why=kept.prompt_failures[index], fix="Retry it")
            outcomes.append(Outcome(row, request.target.seed, error=error))
            continue
        said = folder.read_said(index)
        if said is None or said.transcript_id in seen:
            continue  # not transcribed yet; or an answer that was begun reads like one that was not
        seen.add(said.transcript_id)
        readings = [r for unit, r in kept.readings.items() if unit.prompt == index]
        outcomes.append(Outcome(row, request.target.seed, said, readings=readings))
    n_readings = sum(len(outcome.readings) for outcome in outcomes)
    if not n_readings:
        raise NLAError(
            "There is nothing to publish", why="no reading was finished", fix="Run it again"
        )
    settings = request.to_json()
    identity = str(pair["pair_id"]), str(pair["revision"])
    tables = tables_of(
        outcomes,
        lambda transcript_id, reading: reading_id(*identity, transcript_id, reading),
        {name: settings[name] for name in ("positions", "samples", "target", "verbalizer")},
    )
    version = publish_tables(
        folder.path,
        tables,
        embed=embedder.embed,
        pair=pair,
        corpus={"name": folder.path.name, "n_prompts": len(outcomes), "files": []},
        settings=_settings(request, len(kept.failures)) | {"embedder": embedder.name},
    )
    return version, n_readings


def _settings(request: RunRequest, n_failed: int) -> dict[str, object]:
    """As a corpus run calls them, so that one reader shows both."""
    return {
        "max_new_tokens": request.target.max_tokens,
        "temperature": request.target.temperature,
        "seed": request.verbalizer.seed,
        "answer_seed": request.target.seed,
        "samples": request.samples,
        "explanation_tokens": request.verbalizer.max_tokens,
        "explanation_temperature": request.verbalizer.temperature,
        "positions": {
            "which": str(request.positions.which),
            "n": request.positions.n,
            "at": list(request.positions.at),
        },
        "failed_positions": n_failed,
    }


def judge_claims(folder: RunFolder, version: str, embedder: Embedder) -> None:
    """Compare's files beside what was published. Raises whatever keeps them from being written."""
    from nla_core.analysis.judging import compare_dataset
    from nla_core.analysis.semantic import EmbedOnce
    from nla_core.analysis.standing import Thresholds
    from nla_core.opened import dataset

    found = dataset(folder.path, version)
    compare_dataset(found, Thresholds.load(), embedder, EmbedOnce(embedder.embed))


class Publisher(threading.Thread):
    """Publish runs that ended, one after another."""

    def __init__(self, queue: Queue, embedder: Embedder, history: History) -> None:
        super().__init__(name="runs-publisher", daemon=True)
        self.queue, self.embedder, self.history = queue, embedder, history
        self._stopping = threading.Event()
        self._not_before: dict[str, float] = {}
        self._wait: dict[str, float] = {}

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            run = self._next()
            if run is not None:
                self._publish(run)

    def _next(self) -> Run | None:
        queue = self.queue
        with queue.changed:
            now = time.monotonic()
            for run_id in queue.publishable:
                if run_id in queue.runs and self._not_before.get(run_id, 0.0) <= now:
                    return queue.runs[run_id]
            queue.changed.wait(0.5)
        return None

    def _publish(self, run: Run) -> None:
        began = time.monotonic()
        try:
            version, count = publish_run(
                self.queue.folder(run.run_id), run.request, dict(run.pair), self.embedder
            )
        except Exception as error:
            if not isinstance(error, NLAError):
                LOG.exception("Publishing %s failed", run.run_id)
            wait = min(LAST_RETRY_S, 2 * self._wait.get(run.run_id, FIRST_RETRY_S / 2))
            self._wait[run.run_id], self._not_before[run.run_id] = wait, began + wait
            with self.queue.changed:
                run.error = f"Not published yet, tried again soon: {reason_of(error)}"
                self.queue.update(run)
            return
        try:
            judge_claims(self.queue.folder(run.run_id), version, self.embedder)
        except Exception:  # Compare says what to do; the readings are there
            LOG.exception("The claims of %s were not judged", run.run_id)
        self._wait.pop(run.run_id, None)
        self.history.learn(pair_key(run), PUBLISHER, Kind.PUBLISH, count, time.monotonic() - began)
        with self.queue.changed:
            self.queue.published(run, version, count)
            whole = run.state is RunState.DONE and not run.failed_list()
        if whole:
            self.queue.folder(run.run_id).forget_vectors()
