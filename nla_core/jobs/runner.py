"""On-demand runs: submitted, watched, cancelled, kept over a restart.

A run's id follows from what was asked, so the same request by two visitors is one run with two
owners; it ends early only when both have cancelled it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from nla_core.data.files import explained
from nla_core.embed import Embedder
from nla_core.errors import NLAError
from nla_core.jobs import store
from nla_core.jobs.estimate import Estimate, History
from nla_core.jobs.models import DeviceModels, LoadState, ModelCache, ModelState, Pairs
from nla_core.jobs.publish import Publisher
from nla_core.jobs.queue import PairKey, Queue, pair_key, places
from nla_core.jobs.request import RunRequest, check_queue, check_request
from nla_core.jobs.settings import Limits, WorkerSettings
from nla_core.jobs.store import Event, Failure, Run, RunState, Snapshot, StoredRun
from nla_core.jobs.worker import Watchdog, Worker
from nla_core.readings import Said

HISTORY = "history.json"
LOCK = ".lock"
STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Submitted:
    """``is_new`` is false where the readings are there, or are being made."""

    run_id: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Delta:
    """What happened since the last poll. With ``again``, forget what was seen before."""

    events: tuple[Event, ...]
    next: int
    again: bool


class JobRunner:
    """The queue of one folder of runs, and its threads. Every method is safe from any thread.

    ``model_cache`` has the models of its workers and of everything else in this process.
    """

    def __init__(
        self,
        home: Path,
        *,
        pairs: Pairs,
        embedder: Embedder,
        limits: Limits | None = None,
        settings: WorkerSettings | None = None,
        model_cache: ModelCache | None = None,
    ) -> None:
        self.home, self.pairs = home, pairs
        self.limits, self.settings = limits or Limits(), settings or WorkerSettings()
        self.history = History(home / HISTORY)
        self._queue = Queue(home)
        self.model_cache = model_cache or ModelCache(pairs, self.settings)
        self._embedder = embedder
        self._lock = FileLock(home / LOCK, thread_local=False)
        self._watchdog: Watchdog | None = None

    # ---- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up what is on the disk and begin. Raises NLAError if another process has."""
        with explained(self.home):
            self.home.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise NLAError(
                f"Another process works on the runs in {self.home}",
                why=f"it holds {self.home / LOCK}",
                fix="Use that one, or give this one a folder of its own in NLA_RUNS",
            ) from None
        for folder in store.folders(self.home):
            run = store.load_run(folder) if folder.has_news() else None
            if run is not None:
                self._queue.runs[run.run_id] = run
                self._queue.update(run)
        self._watchdog = Watchdog(
            self._queue,
            self.settings,
            self._models_of,
            lambda device: self._models_of(device, anew=True),
            self._worker,
            self._publisher,
        )
        self._watchdog.start()

    def stop(self) -> None:
        """End all threads; the queue goes on where it was at the next start."""
        if self._watchdog is not None:
            self._watchdog.stop(STOP_SECONDS)
            self._watchdog = None
        self.history.save()
        self._lock.release()

    def __enter__(self) -> JobRunner:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- asking ----------------------------------------------------------------------------------

    def submit(self, request: RunRequest, visitor: str) -> Submitted:
        """Queue a run, take up one that was cut short, or find the one that answers it.

        Raises NLAError for what is over a limit or cannot be read, before anything is stored.
        """
        pair = self.pairs.get(request.pair)
        tokens = self.pairs.tokens(request.pair)
        lengths = check_request(request, self.limits, tokens.count, tokens.context)
        run_id = request.run_id(pair.describe())
        with self._queue.changed:
            run = self._find(run_id)
            if run is not None:
                return Submitted(run_id, self._take_up(run, visitor))
            n_stored = sum(1 for _ in store.folders(self.home))
            check_queue(visitor, self._queue.open_runs(), n_stored, self.limits)
            run = Run(run_id, request.named(), pair.describe(), [visitor], time.time(), lengths)
            run.untranscribed.extend(range(len(request.prompts)))
            self._queue.folder(run_id).create()
            self._queue.record(run)
            self._queue.runs[run_id] = run
            self._queue.update(run)
        return Submitted(run_id, True)

    def estimate(self, request: RunRequest) -> Estimate:
        """How long it would take now, with what is queued before it. Raises as ``submit``."""
        pair = self.pairs.get(request.pair)
        tokens = self.pairs.tokens(request.pair)
        lengths = check_request(request, self.limits, tokens.count, tokens.context)
        key: PairKey = (pair.pair_id, pair.revision)
        new = request.target.max_tokens
        with self._queue.changed:
            ahead = sum(
                max(0, run.total() - len(run.readings) - len(run.failures))
                for run in self._queue.open_runs()
            )
        rates = self.history.rates(
            key, self.settings.device_names[0], request.verbalizer.max_tokens
        )
        if rates is None:
            return Estimate(None, None, None, "nothing")
        return rates.estimate(
            tokens=sum(lengths) + new * len(lengths),
            readings=sum(request.positions.most(n, new) for n in lengths) * request.samples,
            loaded=self._model(key).state is LoadState.READY,
            readings_ahead=ahead // max(1, len(self.settings.device_names)),
        )

    # ---- watching --------------------------------------------------------------------------------

    def snapshot(self, run_id: str) -> Snapshot:
        """The run at this moment. Raises NLAError for one that is not there."""
        with self._queue.changed:
            run = self._known(run_id)
            return self._snapshot(run, places(self._queue.open_runs()))

    def request(self, run_id: str) -> RunRequest:
        """What was asked. Raises NLAError for a run that is not there."""
        with self._queue.changed:
            return self._known(run_id).request

    def queue(self) -> list[Snapshot]:
        """Runs that wait or are at work, oldest first."""
        with self._queue.changed:
            runs = self._queue.open_runs()
            at = places(runs)
            return [self._snapshot(run, at) for run in runs]

    def events(self, run_id: str, since: int = 0) -> Delta:
        """What happened after the first ``since`` events. Raises NLAError for an unknown run."""
        with self._queue.changed:
            run = self._known(run_id)
            again = since > len(run.events)  # the server was started anew in between
            found = tuple(run.events[0 if again else since :])
            return Delta(found, len(run.events), again)

    def revision(self, run_id: str) -> tuple[object, ...]:
        """A value that changes whenever the run does, and is cheap to compare.

        Raises NLAError for an unknown run."""
        with self._queue.changed:
            run = self._known(run_id)
            named = run.request.name, run.request.note
            return (run.state, run.version, run.error, len(run.events), *named)

    def said(self, run_id: str, prompt: int) -> Said | None:
        """The tokens of a prompt and its answer; None while it was not transcribed."""
        with self._queue.changed:
            return self._known(run_id).said.get(prompt)

    def failures(self, run_id: str) -> list[Failure]:
        with self._queue.changed:
            return self._known(run_id).failed_list()

    def models(self, pair: str) -> dict[str, ModelState]:
        """The state of a pair's models, by device."""
        found = self.pairs.get(pair)
        key = (found.pair_id, found.revision)
        workers = self._watchdog.workers if self._watchdog else []
        return {worker.models.device: worker.models.state(key) for worker in workers}

    def wait(self, run_id: str, timeout_s: float) -> Snapshot:
        """Wait until the run is published or has ended otherwise, or ``timeout_s`` is over."""
        end = time.monotonic() + timeout_s
        with self._queue.changed:
            while True:
                run = self._known(run_id)
                over = not run.is_open and run_id not in self._queue.publishable and not run.leased
                if over or (left := end - time.monotonic()) <= 0:
                    return self.snapshot(run_id)
                self._queue.changed.wait(min(left, 0.5))

    # ---- changing --------------------------------------------------------------------------------

    def cancel(self, run_id: str, visitor: str | None = None) -> None:
        """Stop a run; what is finished is published. It goes on while other visitors want it."""
        with self._queue.changed:
            run = self._known(run_id)
            if not run.is_open:
                return
            if visitor is not None and visitor in run.visitors and len(run.visitors) > 1:
                run.visitors.remove(visitor)
            else:
                run.state, run.finished = RunState.CANCELLED, time.time()
            self._queue.record(run)
            self._queue.update(run)

    def retry(self, run_id: str, visitor: str) -> int:
        """Queue again what failed and what a cancelled run had left; return how much that is.

        Raises NLAError where the queue is full.
        """
        with self._queue.changed:
            run = self._known(run_id)
            if run.is_open:
                return 0
            prompts, units = run.forgivable()
            again = len(prompts) + len(units)
            left = again + len(run.pending) + len(run.untranscribed)
            if not left:
                return 0
            check_queue(visitor, self._queue.open_runs(), None, self.limits)
            if again:
                self._queue.folder(run_id).forget_failures()
                run.forgive()
            self._queue_again(run, visitor)
            return left

    def rename(self, run_id: str, *, name: str, note: str) -> None:
        """Raises NLAError for a name or note that is too long."""
        with self._queue.changed:
            run = self._known(run_id)
            run.request = replace(run.request, name=name, note=note)
            self._queue.record(run)

    def delete(self, run_id: str) -> None:
        """Raises NLAError for one that is at work."""
        with self._queue.changed:
            run = self._known(run_id)
            if run.is_open or run.leased or run.state is RunState.PUBLISHING:
                raise NLAError(
                    f"{run_id} is {run.state}",
                    why="a run that is worked on cannot be deleted",
                    fix="Cancel it first, and wait until what is finished is published",
                )
            if run_id in self._queue.publishable:
                self._queue.publishable.remove(run_id)
            self._queue.runs.pop(run_id, None)
            store.remove(self.home / run_id)

    def stored(self) -> list[StoredRun]:
        """All runs on the disk, the newest first."""
        return store.stored(self.home)

    def export(self, run_id: str, to: IO[bytes]) -> None:
        """A zip of what is published of it. Raises NLAError where that is nothing."""
        with self._queue.changed:
            self._known(run_id)
        store.export(self._queue.folder(run_id), to)

    # ---- inside ----------------------------------------------------------------------------------

    def _find(self, run_id: str) -> Run | None:
        run = self._queue.runs.get(run_id) or store.load_run(self._queue.folder(run_id))
        if run is not None:
            self._queue.runs[run_id] = run
        return run

    def _known(self, run_id: str) -> Run:
        well_formed = run_id == Path(run_id).name
        run = self._find(run_id) if well_formed else None
        if run is None:
            raise NLAError(
                f"There is no run “{run_id[:60]}” here",
                why="it was deleted, or belongs to another server",
                fix="Start it again, or choose one from the list of runs",
            )
        return run

    def _take_up(self, run: Run, visitor: str) -> bool:
        """Add a visitor to the run of a request; return whether the run starts again."""
        if run.is_open:
            if visitor not in run.visitors:
                check_queue(visitor, self._queue.open_runs()[:-1], None, self.limits)
                run.visitors.append(visitor)
                self._queue.record(run)
            return False
        if run.state in (RunState.DONE, RunState.PUBLISHING):
            return False
        check_queue(visitor, self._queue.open_runs(), None, self.limits)
        self._queue_again(run, visitor)
        return True

    def _queue_again(self, run: Run, visitor: str) -> None:
        run.state, run.error, run.finished, run.visitors = RunState.QUEUED, None, None, [visitor]
        run.created = time.time()
        self._queue.record(run)
        self._queue.update(run)

    def _snapshot(self, run: Run, at: dict[str, int]) -> Snapshot:
        state = self._model(pair_key(run))
        model = f"{state.state}: {state.note}" if state.note else str(state.state)
        return run.snapshot(place=at.get(run.run_id), model=model)

    def _model(self, key: PairKey) -> ModelState:
        """Of the device that is furthest."""
        workers: Sequence[Worker] = self._watchdog.workers if self._watchdog else []
        states = [worker.models.state(key) for worker in workers]
        best = (LoadState.READY, LoadState.LOADING, LoadState.FAILED, LoadState.ABSENT)
        return min(states, key=lambda s: best.index(s.state), default=ModelState(LoadState.ABSENT))

    def _models_of(self, device: str, *, anew: bool = False) -> DeviceModels:
        return self.model_cache.renewed(device) if anew else self.model_cache.of(device)

    def _worker(self, models: DeviceModels) -> Worker:
        return Worker(self._queue, models, self.settings, self.history)

    def _publisher(self) -> Publisher:
        return Publisher(self._queue, self._embedder, self.history)
