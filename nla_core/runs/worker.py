"""One thread with the models of one device: takes work, does it, hands in what comes of it.

Knows how a batch is tried, and what is tried where it fails: less at once where memory is short,
smaller batches where something else goes wrong. Knows no queue, visitor or file. The decision a
reader would question: a batch that fails is not searched for the culprit on the spot. What is left
of it goes back into the queue in smaller batches, so that others have their turn in between.
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
from nla_core.nla.threads import give_back, the_cores
from nla_core.runs.desk import Desk, Lease
from nla_core.runs.estimate import History, Kind
from nla_core.runs.remote_link import WorkerLost
from nla_core.runs.schedule import Capacity, Explain, PairKey, Transcribe
from nla_core.runs.settings import WorkerSettings
from nla_core.runs.shelf import Models, RunExplainer, Shelf
from nla_core.runs.store import Run, Unit

if TYPE_CHECKING:
    from nla_core.explain import Wanted
    from nla_core.nla.verbalizer import Verbalization
    from nla_core.readings import Reading

LOG = logging.getLogger(__name__)
IDLE_SECONDS: Final = 0.5
CPU_BATCH, DEVICE_BATCH = 48, 64
SCORED_TOGETHER: Final = 8


class Worker(threading.Thread):
    """``retire`` asks it to end at the next step; what it holds then is done by another."""

    def __init__(
        self, desk: Desk, shelf: Models, settings: WorkerSettings, history: History
    ) -> None:
        super().__init__(name=f"runs-{shelf.device}", daemon=True)
        self.desk, self.shelf, self.settings, self.history = desk, shelf, settings, history
        self.lease: Lease | None = None
        self.loading_since: float | None = None
        self.loading_beat = 0.0
        self.batch_size = settings.batch_size or (
            CPU_BATCH if shelf.device in ("auto", "cpu") else DEVICE_BATCH
        )
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
        """Seconds since the last sign of life over work in hand, and whether a model is loading."""
        lease, now = self.lease, time.monotonic()
        if self.loading_since is not None:
            return now - self.loading_beat, True
        return (now - lease.beat if lease is not None else 0.0), False

    def run(self) -> None:
        """The thread. Only what is no Exception ends it before it is retired."""
        _stand_back(self.settings.niceness)
        while not self.retired:
            if not self.shelf.reach():
                self._retired.wait(IDLE_SECONDS)
                continue
            capacity = Capacity(
                self.batch_size, self.settings.first_batch, self.settings.transcribe
            )
            self.lease = self.desk.take(
                capacity, self._stay_with(), IDLE_SECONDS, self.shelf.serves
            )
            if self.lease is None:
                self.shelf.unload_idle()
                continue
            blame = True
            try:
                blame = not self._do(self.lease)
            except WorkerLost as error:
                # Begun work may be what killed it; an address that is away says nothing of it.
                self.shelf.lost(error)
                blame = error.at_work
            except Exception:
                LOG.exception("A batch failed")
            # Not in a finally: where the thread is killed, the watchdog sees to its lease.
            self.desk.finish(self.lease, blame=blame)
            self.lease = None

    def _stay_with(self) -> PairKey | None:
        turn_is_over = time.monotonic() - self._pair_since > self.settings.pair_turn_s
        return None if turn_is_over and self.desk.others_wait(self._pair) else self._pair

    def _do(self, lease: Lease) -> bool:
        """Whether it went well; False lays suspicion on what did not come in."""
        run = lease.work.lead
        with ExitStack() as held:
            try:
                explainer = held.enter_context(self._models(lease.key, run.request.pair))
            except Cancelled:
                return True
            except WorkerLost:
                raise
            except Exception as error:
                if not isinstance(error, NLAError):
                    LOG.exception("The pair %s cannot be loaded", run.request.pair)
                if not self.retired:  # else another tries
                    self.desk.fail_runs(lease.key, _explained(error, run.request.pair))
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
    def _models(self, key: PairKey, name: str) -> Iterator[RunExplainer]:
        """The pair for as long as it is worked with; others may be using it, too."""

        def beat(_: str) -> None:
            self.loading_beat = time.monotonic()

        was_there = self.shelf.has(key)
        self.loading_beat = self.loading_since = time.monotonic()
        with ExitStack() as held:
            try:
                explainer = held.enter_context(self.shelf.using(key, name, beat))
                if isinstance(self.shelf, Shelf) and self.shelf.is_cpu:
                    held.enter_context(the_cores())
                if not was_there:
                    took = self.shelf.state(key).load_s
                    self.history.learn(key, self.shelf.device, Kind.LOAD, 1, took)
                if not was_there or key not in self._warm:
                    self._warm_up(explainer, key)
                    self._warm.add(key)
            finally:
                self.loading_since = None
                if self.lease is not None:
                    self.lease.beat = time.monotonic()
            yield explainer

    def _warm_up(self, explainer: RunExplainer, key: PairKey) -> None:
        """A first guess of the pace, right after loading."""
        try:
            pace = self.shelf.pace(explainer)
        except Exception:  # a run will meet it, too, and tell its visitor
            LOG.exception("Warming up %s failed", key[0])
        else:
            self.history.guess(key, self.shelf.device, pace)

    # ---- the target ------------------------------------------------------------------------------

    def _transcribe(self, explainer: RunExplainer, lease: Lease, work: Transcribe) -> bool:
        run, asked = work.run, work.run.request
        began = time.monotonic()
        try:
            made = explainer.transcribe(
                [asked.prompts[i].content for i in work.prompts],
                seeds=[asked.target.seed] * len(work.prompts),
                max_new_tokens=asked.target.max_tokens,
                temperature=asked.target.temperature,
                cancelled=lambda: not self.desk.wants(lease, run) or self.retired,
            )
        except Cancelled:
            return True
        except WorkerLost:
            raise
        except Exception as error:
            if len(work.prompts) > 1:
                LOG.warning("%d prompts failed together: %s", len(work.prompts), error)
                return False
            self.desk.prompt_failed(lease, run, work.prompts[0], error)
            return True
        read = written = 0
        for index, found in zip(work.prompts, made, strict=True):
            if isinstance(found, NLAError):
                self.desk.prompt_failed(lease, run, index, found)
                continue
            chosen = asked.positions.choose(found, explainer.content_positions(found))
            self.desk.transcribed(lease, run, index, found, chosen)
            read += len(found.tokens)
            written += found.n_answer_tokens
        seconds = time.monotonic() - began
        self.history.learn(lease.key, self.shelf.device, Kind.TRANSCRIBE, read + written, seconds)
        return True

    # ---- the verbalizer --------------------------------------------------------------------------

    def _explain(self, explainer: RunExplainer, lease: Lease, work: Explain) -> bool:
        from nla_core.memory import fitting

        items = list(work.items)
        began = time.monotonic()
        try:
            _, size = fitting(lambda n: self._batch(explainer, lease, n), len(items))
        except Cancelled:
            return True
        except WorkerLost:
            raise
        except Exception as error:
            left = self.desk.still_leased(lease)
            if len(items) == 1 and left:
                self.desk.unit_failed(lease, *left[0], error)
                return True
            LOG.warning("%d of %d readings failed together: %s", len(left), len(items), error)
            return not left
        if size < len(items):
            self.batch_size = min(self.batch_size, size)
        made = len(items) - len(self.desk.still_leased(lease))
        if made > self.settings.first_batch:
            seconds = time.monotonic() - began
            self.history.learn(lease.key, self.shelf.device, Kind.READING, made, seconds)
        return True

    def _batch(self, explainer: RunExplainer, lease: Lease, size: int) -> None:
        """Up to ``size`` of the readings that have not come in."""
        items = self.desk.still_leased(lease)[:size]
        if not items:
            return
        wanted, asked = self._wanted(items), items[0][0].request.verbalizer
        group: list[tuple[Run, Unit, Reading]] = []
        together = 1 if len(items) <= self.settings.first_batch else SCORED_TOGETHER
        told = _teller(self.desk, lease, items)

        def still_wanted(row: int) -> bool:
            return self.desk.wants(lease, items[row][0]) and not self.retired

        for row, reading in explainer.explain_each(
            wanted,
            temperature=asked.temperature,
            max_new_tokens=asked.max_tokens,
            batch_size=len(items),
            score_size=min(together, max(1, len(items) // 4)),
            still_wanted=still_wanted,
            cancelled=lambda: not lease.holds or self.retired,
            on_text=told,
        ):
            if not (math.isfinite(reading.mse_nrm) and math.isfinite(reading.centred_cosine)):
                self.desk.unit_failed(lease, *items[row], _NO_VECTOR)
                continue
            group.append((*items[row], reading))
            if len(group) >= together:
                self.desk.explained(lease, group)
                group = []
        self.desk.explained(lease, group)

    def _wanted(self, items: Sequence[tuple[Run, Unit]]) -> list[Wanted]:
        from nla_core.explain import Wanted
        from nla_core.readings import derive_seed

        wanted = []
        for run, unit in items:
            transcript = self.desk.transcript(run, unit.prompt)
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


def _teller(
    desk: Desk, lease: Lease, items: Sequence[tuple[Run, Unit]]
) -> Callable[[int, Verbalization], None]:
    def told(row: int, text: Verbalization) -> None:
        desk.told(lease, *items[row], text.text, text.finish)

    return told


def _explained(error: Exception, name: str) -> NLAError:
    if isinstance(error, NLAError):
        return error
    return NLAError(
        f"The pair {name} cannot be loaded",
        why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
        fix="Check it with `python -m precompute doctor`, then retry the run",
    )


def _stand_back(niceness: int) -> None:
    """On Linux a thread has a niceness of its own, and those it starts inherit it."""
    with contextlib.suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
