"""The queue: what a free worker does next, handed out under a lease, and results taken in.

Visitors take turns. A turn is one batch: it holds the readings of the visitor whose turn it is,
and where those leave room, others with the same pair and sampling fill it. So a run of a thousand
positions costs the others every second batch and no more. Results are taken only from a lease that
still holds: a thread that was given up may wake at any time, and must not touch a run that somebody
else has gone on with.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nla_core.errors import NLAError
from nla_core.jobs.store import Run, RunFolder, RunState, Unit, reason_of
from nla_core.readings import UNREADABLE, Reading, Transcript

LOG = logging.getLogger(__name__)

PairKey = tuple[str, str]
"""The id and the revision of a pair."""
MAX_STRIKES = 2
KEPT_RUNS = 64
"""Runs that ended and are kept in memory, for pages that are still looking at them."""
_ALL_FAILED = "No reading could be made; the list of failures says why."
_NOTHING_CHOSEN = "There was nothing to read: these settings chose no position of any prompt."


def pair_key(run: Run) -> PairKey:
    return str(run.pair["pair_id"]), str(run.pair["revision"])


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Prompts of one run to be answered and traced."""

    run: Run
    prompts: tuple[int, ...]

    @property
    def lead(self) -> Run:
        return self.run


@dataclass(frozen=True, slots=True)
class Explain:
    """Readings of runs that share a pair and sampling settings."""

    items: tuple[tuple[Run, Unit], ...]

    @property
    def lead(self) -> Run:
        return self.items[0][0]


Work = Transcribe | Explain


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a worker takes at once. ``first_batch`` is for a run that has nothing to show yet."""

    batch: int
    first_batch: int
    transcribe: int


class Rotation:
    """Visitors in the order of their turns. Not safe by itself; whoever holds it holds a lock."""

    def __init__(self) -> None:
        self._turns: deque[str] = deque()

    def order(self, runs: Iterable[Run]) -> list[str]:
        """Visitors with work, the next one first; who is new comes last."""
        waiting = dict.fromkeys(run.owner for run in runs)
        self._turns = deque(v for v in self._turns if v in waiting)
        self._turns.extend(v for v in waiting if v not in self._turns)
        return list(self._turns)

    def next(
        self, runs: Sequence[Run], capacity: Capacity, loaded: PairKey | None = None
    ) -> Work | None:
        """Return work of the visitor whose turn it is, filled up with that of others.

        ``runs`` are those with work, oldest first. ``loaded`` is the pair to stay with, where one
        of its runs has work.
        """
        turns = self.order(runs)
        if loaded is not None:
            runs = [run for run in runs if pair_key(run) == loaded] or list(runs)
            turns = [visitor for visitor in turns if any(run.owner == visitor for run in runs)]
        if not turns:
            return None
        lead = next(run for run in runs if run.owner == turns[0])
        self._turns.remove(turns[0])
        self._turns.append(turns[0])
        if lead.untranscribed and (not lead.pending or self._wants_more(lead, capacity)):
            return _transcribe(lead, capacity)
        return Explain(tuple(_fill(lead, runs, turns, capacity)))

    @staticmethod
    def _wants_more(run: Run, capacity: Capacity) -> bool:
        """Whether a run that has something to show cannot fill a batch by itself."""
        return bool(run.readings) and len(run.pending) < capacity.batch


def _transcribe(run: Run, capacity: Capacity) -> Transcribe:
    first = run.untranscribed.popleft()
    taken = [first]
    if first not in run.alone:
        while (
            run.untranscribed
            and len(taken) < capacity.transcribe
            and run.untranscribed[0] not in run.alone
        ):
            taken.append(run.untranscribed.popleft())
    return Transcribe(run, tuple(taken))


def _fill(
    lead: Run, runs: Sequence[Run], turns: Sequence[str], capacity: Capacity
) -> Iterable[tuple[Run, Unit]]:
    """Units of ``lead``, then of runs like it, taken off their queues.

    Each visitor's first run comes before anybody's second one.
    """
    sampling = (lead.request.verbalizer.temperature, lead.request.verbalizer.max_tokens)
    like: list[tuple[bool, int, int, int]] = []
    rounds: Counter[str] = Counter()
    for at, run in enumerate(runs):
        asked = run.request.verbalizer
        same = (asked.temperature, asked.max_tokens) == sampling
        if run.pending and same and pair_key(run) == pair_key(lead):
            like.append((run is not lead, rounds[run.owner], turns.index(run.owner), at))
            rounds[run.owner] += 1
    room = capacity.batch
    if rounds.keys() == {lead.owner} and not lead.readings:
        room = min(room, capacity.first_batch)
    taken = 0
    for *_, at in sorted(like):
        run = runs[at]
        while run.pending and taken < room:
            # A suspect brings its own, smaller limit; it waits where the batch is over it.
            limit = run.together.get(run.pending[0], capacity.batch)
            if taken >= limit:
                break
            room = min(room, limit)
            yield run, run.pending.popleft()
            taken += 1


def places(runs: Sequence[Run]) -> dict[str, int]:
    """Place in the queue by run id: 0 is at work, 1 the next to begin.

    ``runs`` are the open ones, oldest first: a visitor's second run stands behind everybody's
    first.
    """
    rounds: dict[str, int] = {}
    waiting: list[tuple[int, int, str]] = []
    found: dict[str, int] = {}
    for at, run in enumerate(runs):
        turn = rounds.get(run.owner, 0)
        rounds[run.owner] = turn + 1
        if run.state is RunState.RUNNING:
            found[run.run_id] = 0
        else:
            waiting.append((turn, at, run.run_id))
    found.update((run_id, place) for place, (_, _, run_id) in enumerate(sorted(waiting), start=1))
    return found


@dataclass(slots=True, eq=False)
class Lease:
    """Work that one worker holds. ``holds`` turns false when it is taken away."""

    work: Work
    holds: bool = True
    beat: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> PairKey:
        return pair_key(self.work.lead)


class Queue:
    """Runs by id, guarded by one lock; every method may be called from any thread."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.changed = threading.Condition(threading.RLock())
        self.runs: dict[str, Run] = {}
        self.publishable: list[str] = []
        self._rotation = Rotation()
        self._leases: set[Lease] = set()

    def folder(self, run_id: str) -> RunFolder:
        return RunFolder(self.home / run_id)

    def open_runs(self) -> list[Run]:
        with self.changed:
            return sorted((r for r in self.runs.values() if r.is_open), key=lambda r: r.created)

    # ---- work out --------------------------------------------------------------------------------

    def take(
        self,
        capacity: Capacity,
        loaded: PairKey | None,
        wait_s: float,
    ) -> Lease | None:
        """The next work, under a lease; None if there is none within ``wait_s``."""
        with self.changed:
            work = self._next(capacity, loaded)
            if work is None:
                self.changed.wait(wait_s)
                work = self._next(capacity, loaded)
            if work is None:
                return None
            lease = Lease(work)
            self._leases.add(lease)
            for run, token in _tokens(work):
                run.leased.add(token)
                self._begin(run)
            return lease

    def others_wait(self, loaded: PairKey | None) -> bool:
        """Whether a run of another pair has work."""
        with self.changed:
            return any(run.has_work and pair_key(run) != loaded for run in self.runs.values())

    def _next(self, capacity: Capacity, loaded: PairKey | None) -> Work | None:
        working = [run for run in self.open_runs() if run.has_work]
        return self._rotation.next(working, capacity, loaded)

    def _begin(self, run: Run) -> None:
        if run.state is RunState.QUEUED:
            run.state = RunState.RUNNING
            run.started = run.started or time.time()
            self._record(run)

    # ---- results in ------------------------------------------------------------------------------

    def wants(self, lease: Lease, run: Run) -> bool:
        """Renew the lease; return whether to go on with this run."""
        lease.beat = time.monotonic()
        return lease.holds and run.is_open

    def transcribed(
        self, lease: Lease, run: Run, index: int, transcript: Transcript, chosen: Sequence[int]
    ) -> None:
        """Prompt ``index`` was read; ``chosen`` positions of it are to be explained.

        It may have been read before. Where its answer is another one now, nothing of it counts.
        """
        units = tuple(
            Unit(index, position, sample)
            for position in chosen
            for sample in range(run.request.samples)
        )
        with _Results(self, lease, run, {index}) as taken:
            if taken:
                folder, before = self.folder(run.run_id), run.said.get(index)
                if before is not None and before.transcript_id != transcript.transcript_id:
                    folder.forget_prompt(index)
                    run.forget(index)
                folder.write_transcript(index, transcript)
                run.transcripts[index] = transcript
                unreadable = transcript.unreadable
                lost = [unit for unit in units if unit.position in unreadable]
                if lost:
                    folder.add_failures(lost, UNREADABLE)
                run.add_transcript(index, transcript, units)

    def prompt_failed(self, lease: Lease, run: Run, index: int, error: BaseException) -> None:
        with _Results(self, lease, run, {index}) as taken:
            if taken:
                why = reason_of(error)
                self.folder(run.run_id).add_prompt_failure(index, why)
                run.add_prompt_failure(index, why)

    def add_text(self, lease: Lease, run: Run, unit: Unit, text: str, finish: str) -> None:
        """A text is finished; its score comes later."""
        with self.changed:
            lease.beat = time.monotonic()
            if lease.holds and unit in run.leased:
                run.add_text(unit, text, finish)
                self.changed.notify_all()

    def explained(self, lease: Lease, made: Iterable[tuple[Run, Unit, Reading]]) -> None:
        """Add readings with their scores, a group at a time."""
        by_run: dict[str, list[tuple[Unit, Reading]]] = {}
        for run, unit, reading in made:
            by_run.setdefault(run.run_id, []).append((unit, reading))
        for run_id, group in by_run.items():
            run = self.runs[run_id]
            with _Results(self, lease, run, {unit for unit, _ in group}) as taken:
                fresh = [(unit, reading) for unit, reading in group if unit in taken]
                if fresh:
                    self.folder(run_id).add_readings(fresh)
                for unit, reading in fresh:
                    run.add_reading(unit, reading)

    def unit_failed(self, lease: Lease, run: Run, unit: Unit, error: BaseException) -> None:
        with _Results(self, lease, run, {unit}) as taken:
            if taken:
                self._fail_units(run, [unit], reason_of(error))

    def still_leased(self, lease: Lease) -> list[tuple[Run, Unit]]:
        """The readings of a lease that have no result yet."""
        with self.changed:
            if not lease.holds or not isinstance(lease.work, Explain):
                return []
            return [(run, unit) for run, unit in lease.work.items if unit in run.leased]

    def finish(self, lease: Lease, *, blame: bool = False) -> None:
        """End a lease; work without a result is queued again.

        With ``blame`` the worker failed on it: suspects then go into ever smaller batches, and a
        suspect that failed alone ``MAX_STRIKES`` times is given up.
        """
        with self.changed:
            if not lease.holds:
                return
            lease.holds = False
            self._leases.discard(lease)
            left = [(run, token) for run, token in _tokens(lease.work) if token in run.leased]
            for run, token in reversed(left):
                run.leased.discard(token)
                try:
                    if blame and self._strike(run, token, len(left)):
                        continue
                except NLAError as error:
                    self._fail_run(run, error)
                if isinstance(token, Unit):
                    run.pending.appendleft(token)
                else:
                    run.untranscribed.appendleft(token)
            for run in {id(run): run for run, _ in _tokens(lease.work)}.values():
                self._update(run)
            self.changed.notify_all()

    def transcript(self, run: Run, index: int) -> Transcript:
        """With its vectors, from memory or from the disk. Raises NLAError where both lack it."""
        with self.changed:
            found = run.transcripts.get(index)
        found = found or self.folder(run.run_id).read_transcript(index)
        if found is None:
            raise NLAError(
                f"The vectors of prompt {index + 1} are gone",
                why=f"the files under {self.home / run.run_id} are missing or damaged",
                fix="Delete the run and start it again",
            )
        with self.changed:
            run.transcripts[index] = found
        return found

    def published(self, run: Run, version: str, n_readings: int) -> None:
        """Record that a version with this many readings was published."""
        with self.changed:
            run.version, run.n_published, run.error = version, n_readings, None
            if run.run_id in self.publishable:
                self.publishable.remove(run.run_id)
            if run.state is RunState.PUBLISHING:
                run.state, run.finished = RunState.DONE, time.time()
            self._record(run)
            self._update(run)
            self._evict()
            self.changed.notify_all()

    def fail_runs(self, key: PairKey, error: NLAError) -> None:
        """Fail all open runs of a pair with a reason; finished readings are kept."""
        with self.changed:
            for run in self.open_runs():
                if pair_key(run) == key:
                    self._fail_run(run, error)
            self.changed.notify_all()

    # ---- states ----------------------------------------------------------------------------------

    def update(self, run: Run) -> None:
        """Derive the next state of a run; call it after a change from outside."""
        with self.changed:
            self._update(run)
            self.changed.notify_all()

    def record(self, run: Run) -> None:
        """Write the record; raises NLAError where the disk refuses."""
        with self.changed:
            self.folder(run.run_id).write_record(run)

    def _fail_units(self, run: Run, units: Sequence[Unit], why: str) -> None:
        if units:
            self.folder(run.run_id).add_failures(units, why)
        for unit in units:
            run.add_failure(unit, why)

    def _strike(self, run: Run, token: Unit | int, together: int) -> bool:
        """Count a failed attempt; return whether the suspect is given up."""
        if isinstance(token, Unit):
            run.together[token] = max(1, min(run.together.get(token, together), together) // 2)
        else:
            run.alone.add(token)
        if together > 1:
            return False
        run.strikes[token] = run.strikes.get(token, 0) + 1
        if run.strikes[token] < MAX_STRIKES:
            return False
        why = f"The worker broke off over it {run.strikes[token]} times."
        if isinstance(token, Unit):
            self._fail_units(run, [token], why)
        else:
            self.folder(run.run_id).add_prompt_failure(token, why)
            run.add_prompt_failure(token, why)
        return True

    def _update(self, run: Run) -> None:
        """Derive the next state from what is done: publish, fail, or go on."""
        if run.is_open and run.is_complete:
            if run.readings:
                run.state = RunState.PUBLISHING
            else:
                run.state = RunState.FAILED
                run.finished = time.time()
                run.error = _ALL_FAILED if run.failed_list() else _NOTHING_CHOSEN
            self._record(run)
        news = run.state is RunState.PUBLISHING or len(run.readings) > run.n_published
        ended = not run.is_open and not run.leased and run.state is not RunState.DONE
        if ended and run.readings and news and run.run_id not in self.publishable:
            self.publishable.append(run.run_id)
        for index in [i for i in run.transcripts if run.is_read(i)]:
            del run.transcripts[index]  # the disk still has it

    def _fail_run(self, run: Run, error: NLAError) -> None:
        LOG.warning("%s failed: %s", run.run_id, error)
        run.state, run.error, run.finished = RunState.FAILED, str(error), time.time()
        self._record(run)
        self._update(run)

    def _evict(self) -> None:
        """Drop runs that ended long ago from memory; the disk still has them."""
        ended = [
            r for r in self.runs.values() if not r.is_open and r.run_id not in self.publishable
        ]
        ended.sort(key=lambda run: run.finished or 0.0)
        for run in ended[:-KEPT_RUNS]:
            if not run.leased:
                del self.runs[run.run_id]

    def _record(self, run: Run) -> None:
        """Write the record; log a failure, since the journal is what a run goes on from."""
        try:
            self.folder(run.run_id).write_record(run)
        except NLAError as error:
            LOG.warning("%s", error)


class _Results:
    """Take in results of one run under the lock; yields the tokens that the lease still holds.

    A disk error fails the run, not the worker.
    """

    def __init__(self, queue: Queue, lease: Lease, run: Run, tokens: Iterable[Unit | int]) -> None:
        self.queue, self.lease, self.run, self.tokens = queue, lease, run, set(tokens)

    def __enter__(self) -> set[Unit | int]:
        self.queue.changed.acquire()
        self.lease.beat = time.monotonic()
        return self.tokens & self.run.leased if self.lease.holds else set()

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        try:
            if self.lease.holds and error is None:
                self.run.leased -= self.tokens
            refused = isinstance(error, NLAError)
            if refused and self.run.is_open:
                self.queue._fail_run(self.run, error)  # type: ignore[arg-type]
            self.queue._update(self.run)
            self.queue.changed.notify_all()
            return refused
        finally:
            self.queue.changed.release()


def _tokens(work: Work) -> list[tuple[Run, Unit | int]]:
    if isinstance(work, Transcribe):
        return [(work.run, index) for index in work.prompts]
    return list(work.items)
