"""What a free worker does next: visitors take turns, and batches are full.

A turn is one batch. It holds the readings of the visitor whose turn it is; where those leave room,
others with the same pair and sampling fill it. So a run of a thousand positions costs the others
every second batch and no more.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nla_core.runs.store import Run, RunState, Unit

PairKey = tuple[str, str]
"""The id and the revision of a pair."""


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
        waiting = dict.fromkeys(run.payer for run in runs)
        self._turns = deque(v for v in self._turns if v in waiting)
        self._turns.extend(v for v in waiting if v not in self._turns)
        return list(self._turns)

    def next(
        self, runs: Sequence[Run], capacity: Capacity, loaded: PairKey | None = None
    ) -> Work | None:
        """Work of the visitor whose turn it is, filled up with that of others.

        ``runs`` are those with work, oldest first. ``loaded`` is the pair to stay with, where one
        of its runs has work.
        """
        turns = self.order(runs)
        if loaded is not None:
            runs = [run for run in runs if pair_key(run) == loaded] or list(runs)
            turns = [visitor for visitor in turns if any(run.payer == visitor for run in runs)]
        if not turns:
            return None
        lead = next(run for run in runs if run.payer == turns[0])
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
            like.append((run is not lead, rounds[run.payer], turns.index(run.payer), at))
            rounds[run.payer] += 1
    room = capacity.batch
    if rounds.keys() == {lead.payer} and not lead.readings:
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
        turn = rounds.get(run.payer, 0)
        rounds[run.payer] = turn + 1
        if run.state is RunState.RUNNING:
            found[run.run_id] = 0
        else:
            waiting.append((turn, at, run.run_id))
    found.update((run_id, place) for place, (_, _, run_id) in enumerate(sorted(waiting), start=1))
    return found
