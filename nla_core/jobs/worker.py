"""A thread for each device that takes work and hands in results, and the watchdog that replaces it.

A batch that fails is not searched for the culprit on the spot: what is left of it goes back into
the queue in smaller batches, so that others have their turn in between. A thread cannot be killed
in Python, so one that hangs is left behind: its lease is taken away, it ends at its next step if it
ever gets there, and the new worker loads the models afresh, since those of a hung thread may still
be in use.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from nla_core.errors import Cancelled, NLAError
from nla_core.jobs.estimate import History, Kind
from nla_core.jobs.models import DeviceModels
from nla_core.jobs.publish import Publisher
from nla_core.jobs.queue import Capacity, Explain, Lease, PairKey, Queue, Transcribe
from nla_core.jobs.settings import WorkerSettings
from nla_core.jobs.store import Run, Unit
from nla_core.models.threads import give_back, the_cores

if TYPE_CHECKING:
    from nla_core.explain import Explainer
    from nla_core.models.verbalizer import Verbalization
    from nla_core.readings import Reading, Wanted


LOG = logging.getLogger(__name__)
IDLE_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 0.5
"""How often the watchdog looks at its threads."""
FIRST_CAPACITY: Final = 16
"""Positions taken at once before a pair is loaded and the memory left beside it is known."""
SCORED_TOGETHER: Final = 8


class Worker(threading.Thread):
    """``retire`` asks the thread to end at its next step; another one does what it holds then."""

    def __init__(
        self, queue: Queue, models: DeviceModels, settings: WorkerSettings, history: History
    ) -> None:
        super().__init__(name=f"runs-{models.device}", daemon=True)
        self.queue, self.models, self.settings, self.history = queue, models, settings, history
        self.lease: Lease | None = None
        self.loading_since: float | None = None
        self.loading_beat = 0.0
        self.batch_size = settings.batch_size  # 0: not known before a pair is loaded
        self._retired = threading.Event()
        self._pair: PairKey | None = None
        self._pair_since = 0.0
        self._warm: set[PairKey] = set()

    def retire(self) -> None:
        self._retired.set()
        give_back(self.ident)

    @property
    def retired(self) -> bool:
        return self._retired.is_set()

    def silent_for(self) -> tuple[float, bool]:
        """Seconds since the last sign of life over begun work, and whether a model is loading."""
        lease, now = self.lease, time.monotonic()
        if self.loading_since is not None:
            return now - self.loading_beat, True
        return (now - lease.beat if lease is not None else 0.0), False

    def run(self) -> None:
        """Take and do work until retired. An Exception never ends the thread."""
        _stand_back(self.settings.niceness)
        while not self.retired:
            capacity = Capacity(
                self.batch_size or FIRST_CAPACITY,
                self.settings.first_batch,
                self.settings.transcribe,
            )
            self.lease = self.queue.take(capacity, self._stay_with(), IDLE_SECONDS)
            if self.lease is None:
                self.models.unload_idle()
                continue
            blame = True
            try:
                blame = not self._do(self.lease)
            except Exception:
                LOG.exception("A batch failed")
            # Not in a finally: where the thread is killed, the watchdog sees to its lease.
            self.queue.finish(self.lease, blame=blame)
            self.lease = None

    def _stay_with(self) -> PairKey | None:
        turn_is_over = time.monotonic() - self._pair_since > self.settings.pair_turn_s
        return None if turn_is_over and self.queue.others_wait(self._pair) else self._pair

    def _do(self, lease: Lease) -> bool:
        """Do the work; False if it failed, which makes what has no result yet a suspect."""
        run = lease.work.lead
        with ExitStack() as held:
            try:
                explainer = held.enter_context(self._models(lease.key, run.request.pair))
            except Cancelled:
                return True
            except Exception as error:
                if not isinstance(error, NLAError):
                    LOG.exception("The pair %s cannot be loaded", run.request.pair)
                if not self.retired:  # else another tries
                    self.queue.fail_runs(lease.key, _explained(error, run.request.pair))
                return True
            if lease.key != self._pair:
                self._pair, self._pair_since = lease.key, time.monotonic()
            try:
                if isinstance(lease.work, Transcribe):
                    return self._transcribe(explainer, lease, lease.work)
                return self._explain(explainer, lease, lease.work)
            except Cancelled:
                return True

    @contextmanager
    def _models(self, key: PairKey, name: str) -> Iterator[Explainer]:
        """The pair, for the time of a ``with``; others may use it at the same time."""

        def beat(_: str) -> None:
            self.loading_beat = time.monotonic()

        was_there = self.models.has(key)
        self.loading_beat = self.loading_since = time.monotonic()
        with ExitStack() as held:
            try:
                explainer = held.enter_context(self.models.using(key, name, beat))
                if self.models.is_cpu:
                    held.enter_context(the_cores())
                if not was_there:
                    took = self.models.state(key).load_s
                    self.history.learn(key, self.models.device, Kind.LOAD, 1, took)
                self.batch_size = self.batch_size or self.models.batch_size()
                if not was_there or key not in self._warm:
                    self._warm_up(explainer, key)
                    self._warm.add(key)
            finally:
                self.loading_since = None
                if self.lease is not None:
                    self.lease.beat = time.monotonic()
            yield explainer

    def _warm_up(self, explainer: Explainer, key: PairKey) -> None:
        """Measure the first pace, right after loading."""
        try:
            pace = self.models.pace(explainer)
        except Exception:  # a run will meet it, too, and tell its visitor
            LOG.exception("Warming up %s failed", key[0])
        else:
            self.history.learn(key, self.models.device, Kind.TOKEN, pace, 1.0)

    # ---- the target ------------------------------------------------------------------------------

    def _transcribe(self, explainer: Explainer, lease: Lease, work: Transcribe) -> bool:
        run, asked = work.run, work.run.request
        began = time.monotonic()
        try:
            made = explainer.transcribe(
                [asked.prompts[i].content for i in work.prompts],
                seeds=[asked.target.seed] * len(work.prompts),
                max_new_tokens=asked.target.max_tokens,
                temperature=asked.target.temperature,
                cancelled=lambda: not self.queue.wants(lease, run) or self.retired,
            )
        except Cancelled:
            return True
        except Exception as error:
            if len(work.prompts) > 1:
                LOG.warning("%d prompts failed together: %s", len(work.prompts), error)
                return False
            self.queue.prompt_failed(lease, run, work.prompts[0], error)
            return True
        read = written = 0
        for index, found in zip(work.prompts, made, strict=True):
            if isinstance(found, NLAError):
                self.queue.prompt_failed(lease, run, index, found)
                continue
            chosen = asked.positions.choose(found, explainer.content_positions(found))
            self.queue.transcribed(lease, run, index, found, chosen)
            read += len(found.tokens)
            written += found.n_answer_tokens
        seconds = time.monotonic() - began
        self.history.learn(lease.key, self.models.device, Kind.TRANSCRIBE, read + written, seconds)
        return True

    # ---- the verbalizer --------------------------------------------------------------------------

    def _explain(self, explainer: Explainer, lease: Lease, work: Explain) -> bool:
        from nla_core.models.devices import fitting

        items = list(work.items)
        began = time.monotonic()
        try:
            _, size = fitting(lambda n: self._batch(explainer, lease, n), len(items))
        except Cancelled:
            return True
        except Exception as error:
            left = self.queue.still_leased(lease)
            if len(items) == 1 and left:
                self.queue.unit_failed(lease, *left[0], error)
                return True
            LOG.warning("%d of %d readings failed together: %s", len(left), len(items), error)
            return not left
        if size < len(items):
            self.batch_size = min(self.batch_size, size)
        made = len(items) - len(self.queue.still_leased(lease))
        if made > self.settings.first_batch:
            seconds = time.monotonic() - began
            self.history.learn(lease.key, self.models.device, Kind.READING, made, seconds)
        return True

    def _batch(self, explainer: Explainer, lease: Lease, size: int) -> None:
        """Make up to ``size`` of the readings that have no result yet."""
        items = self.queue.still_leased(lease)[:size]
        if not items:
            return
        wanted, asked = self._wanted(items), items[0][0].request.verbalizer
        group: list[tuple[Run, Unit, Reading]] = []
        together = 1 if len(items) <= self.settings.first_batch else SCORED_TOGETHER

        def on_text(row: int, text: Verbalization) -> None:
            self.queue.add_text(lease, *items[row], text.text, text.finish)

        def still_wanted(row: int) -> bool:
            return self.queue.wants(lease, items[row][0]) and not self.retired

        for row, reading in explainer.explain_each(
            wanted,
            temperature=asked.temperature,
            max_new_tokens=asked.max_tokens,
            batch_size=len(items),
            score_size=min(together, max(1, len(items) // 4)),
            still_wanted=still_wanted,
            cancelled=lambda: not lease.holds or self.retired,
            on_text=on_text,
        ):
            if not (math.isfinite(reading.mse_nrm) and math.isfinite(reading.centred_cosine)):
                self.queue.unit_failed(lease, *items[row], _NO_VECTOR)
                continue
            group.append((*items[row], reading))
            if len(group) >= together:
                self.queue.explained(lease, group)
                group = []
        self.queue.explained(lease, group)

    def _wanted(self, items: Sequence[tuple[Run, Unit]]) -> list[Wanted]:
        from nla_core.readings import Wanted, derive_seed

        wanted = []
        for run, unit in items:
            transcript = self.queue.transcript(run, unit.prompt)
            seed = derive_seed(
                run.request.verbalizer.seed, transcript.transcript_id, unit.position, unit.sample
            )
            wanted.append(Wanted(transcript, unit.position, unit.sample, seed))
        return wanted


_NO_VECTOR: Final = NLAError(
    "The score of this text cannot be computed",
    why="the reconstructor gave a vector with values that are no numbers",
    fix="Try again, or run the pair in float32",
)


def _explained(error: Exception, name: str) -> NLAError:
    if isinstance(error, NLAError):
        return error
    return NLAError(
        f"The pair {name} cannot be loaded",
        why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
        fix="Check it with `python -m precompute doctor`, then retry the run",
    )


def _stand_back(niceness: int) -> None:
    """Lower this thread's priority. On Linux, threads that it starts inherit it."""
    with contextlib.suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


class Watchdog(threading.Thread):
    """One worker a device, and one publisher: always there until ``stop``.

    ``models_of`` gives a device's models, ``renewed`` the same afresh, without those that a thread
    that hangs may still use.
    """

    def __init__(
        self,
        queue: Queue,
        settings: WorkerSettings,
        models_of: Callable[[str], DeviceModels],
        renewed: Callable[[str], DeviceModels],
        make_worker: Callable[[DeviceModels], Worker],
        make_publisher: Callable[[], Publisher],
    ) -> None:
        super().__init__(name="runs-watchdog", daemon=True)
        self.queue, self.settings = queue, settings
        self._renewed, self._make_worker = renewed, make_worker
        self._make_publisher = make_publisher
        self._stopping = threading.Event()
        self.workers = [make_worker(models_of(name)) for name in settings.device_names]
        self.publisher = make_publisher()
        self.n_replaced = 0

    def run(self) -> None:
        for thread in (*self.workers, self.publisher):
            thread.start()
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:
                LOG.exception("The watchdog failed once")

    def look(self) -> None:
        """Replace threads that are dead or silent."""
        for slot, worker in enumerate(self.workers):
            silent, loading = worker.silent_for()
            limit = self.settings.load_s if loading else self.settings.stall_s
            if not worker.is_alive():
                LOG.error("The worker of %s died and is replaced", worker.models.device)
                self._replace(slot, worker, worker.models)
            elif silent > limit:
                LOG.error("The worker of %s gave no sign for %.0f s", worker.models.device, silent)
                self._replace(slot, worker, self._renewed(worker.models.device))
        if not self.publisher.is_alive():
            LOG.error("The publisher died and is replaced")
            self.publisher = self._make_publisher()
            self.publisher.start()

    def stop(self, timeout_s: float) -> None:
        """Ask all threads to end, and wait for them; what they held is done at the next start."""
        self._stopping.set()
        for worker in self.workers:
            worker.retire()
        self.publisher.stop()
        with self.queue.changed:
            self.queue.changed.notify_all()
        for thread in (self, *self.workers, self.publisher):
            if thread.is_alive():
                thread.join(timeout_s)

    def _replace(self, slot: int, worker: Worker, models: DeviceModels) -> None:
        worker.retire()
        self.workers[slot] = self._make_worker(models)
        self.workers[slot].batch_size = worker.batch_size
        if worker.lease is not None:
            self.queue.finish(worker.lease, blame=True)
        self.n_replaced += 1
        self.workers[slot].start()
