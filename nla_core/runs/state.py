"""One run while it is worked on, and what a page sees of it.

Knows what is done, under way, failed and left of a run, and how that reads at a moment. Knows no
thread, lock or file: the desk guards it, the journal keeps it. The decision a reader would
question: what happens is a list of events that only grows, so that a page asks for what came after
the last one it has seen, and a lost page costs nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from nla_core.errors import NLAError
from nla_core.readings import UNREADABLE, Reading, Said, Transcript
from nla_core.runs.request import RunRequest

RATE_SECONDS = 30.0


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHING = "publishing"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"  # as a whole: its pair cannot be loaded, its journal cannot be written


OPEN_STATES = frozenset({RunState.QUEUED, RunState.RUNNING})
"""States that hold a place in the queue."""


class Unit(NamedTuple):
    """One reading to make, within a run."""

    prompt: int
    position: int
    sample: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a position, or (``position`` None) a whole prompt, has no reading."""

    prompt: int
    position: int | None
    sample: int
    reason: str


@dataclass(frozen=True, slots=True)
class Event:
    """``text`` is heard before its ``reading``, which has the scores; ``tokens`` before both.

    ``explanation`` and ``finish`` belong to texts.
    """

    kind: Literal["tokens", "text", "reading", "failure", "retry"]
    prompt: int
    position: int | None = None
    sample: int = 0
    explanation: str = ""
    finish: str = ""
    reading: Reading | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at a moment. ``place`` is 0 at work and counts the runs before it else.

    ``total`` is known once all prompts are transcribed, and a bound before; ``rate`` is readings a
    second of late. ``n_events`` is where the next poll begins.
    """

    run_id: str
    name: str
    note: str
    state: RunState
    place: int | None
    pair: str
    model: str
    n_prompts: int
    n_transcribed: int
    total: int
    total_is_known: bool
    done: int
    failed: int
    rate: float | None
    seconds_left: float | None
    created: float
    started: float | None
    finished: float | None
    version: str | None
    error: str | None
    n_events: int


@dataclass(slots=True)
class Run:
    """All that is known of one run. Not safe by itself: whoever holds it holds the desk's lock."""

    run_id: str
    request: RunRequest
    pair: Mapping[str, Any]  # Pair.describe()
    visitors: list[str]
    created: float
    prompt_tokens: tuple[int, ...]
    state: RunState = RunState.QUEUED
    error: str | None = None
    version: str | None = None
    n_published: int = 0  # readings of that version
    started: float | None = None
    finished: float | None = None
    said: dict[int, Said] = field(default_factory=dict)
    transcripts: dict[int, Transcript] = field(default_factory=dict)
    untranscribed: deque[int] = field(default_factory=deque)
    alone: set[int] = field(default_factory=set)  # prompts to be transcribed by themselves
    pending: deque[Unit] = field(default_factory=deque)
    units: dict[int, tuple[Unit, ...]] = field(default_factory=dict)
    readings: dict[Unit, Reading] = field(default_factory=dict)
    failures: dict[Unit, str] = field(default_factory=dict)
    prompt_failures: dict[int, str] = field(default_factory=dict)
    together: dict[Unit, int] = field(default_factory=dict)  # largest batch for a suspect
    strikes: dict[Unit | int, int] = field(default_factory=dict)
    leased: set[Unit | int] = field(default_factory=set)  # units, and prompts by index
    events: list[Event] = field(default_factory=list)
    marks: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    @property
    def has_work(self) -> bool:
        return self.is_open and bool(self.untranscribed or self.pending)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do or under way."""
        return not (self.untranscribed or self.pending or self.leased)

    @property
    def payer(self) -> str:
        """The visitor on whose turn it is worked on."""
        return self.visitors[0] if self.visitors else ""

    def add_transcript(self, index: int, said: Said, units: tuple[Unit, ...]) -> None:
        """The prompt was read; what it has no readings or failures of is to be done."""
        self.said[index] = said
        self.units[index] = units
        self.events.append(Event("tokens", index))
        known = {*self.readings, *self.failures, *self.pending, *self.leased}
        unreadable = said.unreadable
        for unit in units:
            if unit in known:
                continue
            if self._is_beyond(unit):
                count = len(said.tokens)
                self.add_failure(unit, f"The answer ended before it: there are {count} tokens.")
            elif unit.position in unreadable:
                self.add_failure(unit, UNREADABLE)
            else:
                self.pending.append(unit)

    def add_text(self, unit: Unit, explanation: str, finish: str) -> None:
        self.events.append(Event("text", *unit, explanation=explanation, finish=finish))

    def add_reading(self, unit: Unit, reading: Reading) -> None:
        self.readings[unit] = reading
        self.events.append(Event("reading", *unit, reading=reading))
        self.mark()

    def add_failure(self, unit: Unit, reason: str) -> None:
        self.failures[unit] = reason
        self.events.append(Event("failure", *unit, reason=reason))
        self.mark()

    def add_prompt_failure(self, index: int, reason: str) -> None:
        self.prompt_failures[index] = reason
        self.events.append(Event("failure", index, reason=reason))

    def forget(self, index: int) -> None:
        """What was made of prompt ``index`` is of another answer; all of it is done again."""
        for unit in self.units.pop(index, ()):
            self.readings.pop(unit, None)
            self.failures.pop(unit, None)
            self.leased.discard(unit)
            self.events.append(Event("retry", *unit))
        self.pending = deque(unit for unit in self.pending if unit.prompt != index)

    def is_read(self, index: int) -> bool:
        """Whether prompt ``index`` has nothing left to explain."""
        waiting = any(unit.prompt == index for unit in self.pending)
        return not waiting and all(unit not in self.leased for unit in self.units.get(index, ()))

    def forgivable(self) -> tuple[list[int], list[Unit]]:
        """Prompts and positions that failed and can be tried again."""
        units = [unit for unit in self.failures if not self._is_beyond(unit)]
        return sorted(self.prompt_failures), sorted(units)

    def forgive(self) -> None:
        """Everything that can be tried again is to be done again.

        A prompt with a vector that could not be read is given to the target once more.
        """
        prompts, units = self.forgivable()
        unreadable = {i: self.said[i].unreadable for i in {unit.prompt for unit in units}}
        lost = {unit.prompt for unit in units if unit.position in unreadable[unit.prompt]}
        self.untranscribed.extend([*prompts, *sorted(lost)])
        self.pending.extend(unit for unit in units if unit.prompt not in lost)
        self.events += [Event("retry", prompt) for prompt in prompts]
        self.events += [Event("retry", *unit) for unit in units]
        for unit in units:
            del self.failures[unit]
        for known in (self.prompt_failures, self.together, self.strikes):
            known.clear()
        self.alone.update(prompts)

    def _is_beyond(self, unit: Unit) -> bool:
        return unit.position >= len(self.said[unit.prompt].tokens)

    def failed_list(self) -> list[Failure]:
        whole = [Failure(i, None, 0, why) for i, why in sorted(self.prompt_failures.items())]
        return whole + [Failure(*unit, why) for unit, why in sorted(self.failures.items())]

    def mark(self) -> None:
        now = time.monotonic()
        self.marks.append((now, len(self.readings) + len(self.failures)))
        while len(self.marks) > 2 and now - self.marks[0][0] > RATE_SECONDS:
            self.marks.popleft()

    def rate(self) -> float | None:
        """Readings a second over the last half minute; None before there are two of them."""
        if len(self.marks) < 2 or self.marks[-1][0] <= self.marks[0][0]:
            return None
        (first, before), (last, after) = self.marks[0], self.marks[-1]
        return (after - before) / (last - first)

    def total(self) -> int:
        """How many readings there will be; a bound where prompts are not transcribed yet."""
        asked = self.request
        known = sum(len(units) for units in self.units.values())
        open_prompts = {*self.untranscribed, *(i for i in self.leased if isinstance(i, int))}
        return known + sum(
            asked.positions.most(self.prompt_tokens[i], asked.target.max_tokens) * asked.samples
            for i in open_prompts
            if i not in self.units
        )

    def snapshot(self, *, place: int | None, model: str) -> Snapshot:
        done, failed, total = len(self.readings), len(self.failures), self.total()
        rate = self.rate() if self.is_open else None
        left = max(0, total - done - failed)
        return Snapshot(
            run_id=self.run_id,
            name=self.request.name,
            note=self.request.note,
            state=self.state,
            place=place,
            pair=str(self.pair["pair_id"]),
            model=model,
            n_prompts=len(self.request.prompts),
            n_transcribed=len(self.said),
            total=total,
            total_is_known=len(self.units.keys() | self.prompt_failures) == len(self.prompt_tokens),
            done=done,
            failed=failed + len(self.prompt_failures),
            rate=rate,
            seconds_left=left / rate if rate else None,
            created=self.created,
            started=self.started,
            finished=self.finished,
            version=self.version,
            error=self.error,
            n_events=len(self.events),
        )


def reason_of(error: BaseException) -> str:
    """What is told of a failure: all of a refusal, and the kind of anything else."""
    if isinstance(error, NLAError):
        return str(error)
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
