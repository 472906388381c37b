"""Runs and what is kept of them: the run at work, its folder on disk, the list of all runs.

A run's folder holds ``run.json`` (replaced as a whole) and ``.work/`` with a pair of files for each
transcribed prompt and ``journal.jsonl``, which is only ever appended to; the published versions lie
beside them. Readings are appended and fsynced in small groups instead of one file each; a line that
a crash cut short is cut off when the journal is opened again, and costs that reading alone. There
is no index of runs: a folder with a readable record is a run, so a copied or restored folder needs
no import, and a damaged one costs nobody else anything.

What happens in a run is a list of events that only grows: a page asks for what came after the last
one it has seen, and a lost page costs nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from nla_core.data.files import canonical_json, explained, fsync_path, write_atomic, write_json
from nla_core.data.manifest import MANIFEST as MANIFEST_FILE
from nla_core.data.manifest import current_version, read_manifest
from nla_core.errors import NLAError
from nla_core.jobs.request import RUN_PREFIX, RunRequest
from nla_core.readings import UNREADABLE, Reading, Said, Token, Transcript, content_positions

RATE_SECONDS = 30.0
RECORD = "run.json"
WORK = ".work"
JOURNAL = "journal.jsonl"
RECORD_VERSION = 1


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
    """A ``text`` comes before its ``reading``, which has the scores; ``tokens`` come before both.

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
    """A run at a moment. ``place`` is 0 while it is worked on, else the number of runs before it.

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
    """The state of one run. Not thread-safe: change it only under the lock of the queue."""

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
        """Whether no work is left or under way."""
        return not (self.untranscribed or self.pending or self.leased)

    @property
    def owner(self) -> str:
        """The visitor whose turns the run uses."""
        return self.visitors[0] if self.visitors else ""

    def add_transcript(self, index: int, said: Said, units: tuple[Unit, ...]) -> None:
        """Add a transcribed prompt; units without a reading or a failure become pending."""
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
        """Drop all that was made of prompt ``index``, which now has another answer."""
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
        """Queue again everything that can be retried.

        A prompt with a vector that could not be read is transcribed again.
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
        """How many readings there will be; an upper bound until all prompts are transcribed."""
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
    """The reason to show for a failure: all of a refusal, and the kind of anything else."""
    if isinstance(error, NLAError):
        return str(error)
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@dataclass(slots=True)
class Journalled:
    """What a journal holds: the last word on each unit and prompt."""

    readings: dict[Unit, Reading]
    failures: dict[Unit, str]
    prompt_failures: dict[int, str]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """``path`` is the run's folder, named after it. Safe for one writer at a time."""

    path: Path

    # ---- the record ------------------------------------------------------------------------------

    def create(self) -> None:
        """Raises NLAError where the disk refuses."""
        with explained(self.path):
            (self.path / WORK).mkdir(parents=True, exist_ok=True)

    def write_record(self, run: Run) -> None:
        """Replace ``run.json``. Raises NLAError where the disk refuses."""
        with explained(self.path):
            write_json(self.path / RECORD, record_of(run))

    def read_record(self) -> dict[str, Any] | None:
        """The record; None where there is none that this program can read."""
        try:
            data = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
            return data if data["record_version"] == RECORD_VERSION else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def has_news(self) -> bool:
        """Whether there is something to do or to publish, as far as the record says."""
        match self.read_record():
            case {"state": "done"}:
                return False
            case {"state": "cancelled" | "failed", "version": str(), "n_published": n, "counts": c}:
                return bool(c["done"] > n)
            case None:
                return False
        return True

    # ---- transcripts -----------------------------------------------------------------------------

    def write_transcript(self, index: int, transcript: Transcript) -> None:
        """Vectors first: where the text is, the vectors are. Raises NLAError."""
        said = {
            name: getattr(transcript, name)
            for name in ("transcript_id", "messages", "n_answer_tokens", "answer_finish")
        }
        tokens = [asdict(token) for token in transcript.tokens]
        with explained(self.path):
            (self.path / WORK).mkdir(parents=True, exist_ok=True)
            vectors = io.BytesIO()
            np.save(vectors, transcript.hidden.numpy(), allow_pickle=False)
            write_atomic(self._vectors(index), vectors.getvalue())
            write_atomic(self._text(index), canonical_json({**said, "tokens": tokens}))

    def read_said(self, index: int) -> Said | None:
        """What was said of prompt ``index``; None if that is not there, or not whole."""
        try:
            data = json.loads(self._text(index).read_text(encoding="utf-8"))
            tokens = tuple(_token(token) for token in data.pop("tokens"))
            return Said(**{**data, "messages": tuple(data["messages"])}, tokens=tokens)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def read_transcript(self, index: int) -> Transcript | None:
        """The same with its vectors."""
        import torch

        said = self.read_said(index)
        if said is None:
            return None
        try:
            hidden = torch.from_numpy(np.load(self._vectors(index), allow_pickle=False))
        except (OSError, ValueError):
            return None
        if hidden.shape[0] != len(said.tokens):
            return None
        whole = {name: getattr(said, name) for name in Said.__dataclass_fields__}
        return Transcript(**whole, hidden=hidden)

    def forget_vectors(self) -> None:
        """Vectors are the bulk of a run, and nothing that is complete needs them."""
        for path in (self.path / WORK).glob("*.npy"):
            path.unlink(missing_ok=True)

    # ---- the journal -----------------------------------------------------------------------------

    def add_readings(self, made: Iterable[tuple[Unit, Reading]]) -> None:
        """Keep readings. Like all that adds to the journal, raises NLAError if the disk refuses."""
        self._append(
            {"k": "reading", "p": unit.prompt, "at": unit.position, "s": unit.sample,
             "d": asdict(reading)}
            for unit, reading in made
        )  # fmt: skip

    def add_failures(self, units: Iterable[Unit], why: str) -> None:
        self._append(
            {"k": "failure", "p": unit.prompt, "at": unit.position, "s": unit.sample, "why": why}
            for unit in units
        )

    def add_prompt_failure(self, index: int, why: str) -> None:
        self._append([{"k": "prompt", "p": index, "why": why}])

    def forget_failures(self) -> None:
        """Record that all that failed so far is to be tried again."""
        self._append([{"k": "retry", "p": 0}])

    def forget_prompt(self, index: int) -> None:
        """Record that all that was kept of prompt ``index`` so far is of another answer."""
        self._append([{"k": "anew", "p": index}])

    def _append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append lines and flush them to the disk: all of them, or none."""
        text = "".join(canonical_json(line) + "\n" for line in lines).encode()
        path = self.path / WORK / JOURNAL
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as handle:
                before = handle.tell()
                try:
                    handle.write(text)
                    handle.flush()
                    os.fsync(handle.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        os.ftruncate(handle.fileno(), before)
                    raise

    def read_journal(self) -> Journalled:
        """What the journal says; a last line that was cut short is cut off the file."""
        found = Journalled({}, {}, {})
        for line in self._lines():
            unit = Unit(line["p"], line.get("at", 0), line.get("s", 0))
            match line["k"]:
                case "reading":
                    found.readings[unit] = _reading(line["d"])
                    found.failures.pop(unit, None)
                case "failure":
                    found.failures[unit] = line["why"]
                case "prompt":
                    found.prompt_failures[unit.prompt] = line["why"]
                case "retry":
                    found.failures.clear()
                    found.prompt_failures.clear()
                case "anew":
                    for old in [u for u in found.readings if u.prompt == unit.prompt]:
                        del found.readings[old]
                    for old in [u for u in found.failures if u.prompt == unit.prompt]:
                        del found.failures[old]
        return found

    def _lines(self) -> Iterator[dict[str, Any]]:
        path = self.path / WORK / JOURNAL
        try:
            data = path.read_bytes()
        except OSError:
            return
        good = 0
        for line in data.splitlines(keepends=True):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError
                value = json.loads(line)
            except ValueError:
                with path.open("r+b") as handle:
                    handle.truncate(good)
                return
            good += len(line)
            yield value

    def _text(self, index: int) -> Path:
        return self.path / WORK / f"prompt-{index:05d}.json"

    def _vectors(self, index: int) -> Path:
        return self.path / WORK / f"prompt-{index:05d}.npy"


def record_of(run: Run) -> dict[str, Any]:
    """What ``run.json`` holds."""
    return {
        "record_version": RECORD_VERSION,
        "run_id": run.run_id,
        "request": run.request.to_json(),
        "pair": dict(run.pair),
        "visitors": list(run.visitors),
        "created": run.created,
        "started": run.started,
        "finished": run.finished,
        "prompt_tokens": list(run.prompt_tokens),
        "state": run.state,
        "error": run.error,
        "version": run.version,
        "n_published": run.n_published,
        "counts": {
            "total": run.total(),
            "transcribed": len(run.said),
            "done": len(run.readings),
            "failed": len(run.failures) + len(run.prompt_failures),
        },
    }


def remove(folder: Path) -> None:
    """Make a run vanish in one step, then clear what is left. Raises NLAError."""
    with explained(folder):
        doomed = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent)) / folder.name
        try:
            folder.rename(doomed)
        except FileNotFoundError:
            raise NLAError(
                f"There is no run {folder.name}",
                why=f"{folder} does not exist",
                fix="Reload the list of runs",
            ) from None
        finally:
            shutil.rmtree(doomed.parent, ignore_errors=True)
        fsync_path(folder.parent)


def _token(data: Mapping[str, Any]) -> Token:
    return Token(**{**data, **_tuples(data, ("top_tokens", "top_probs"))})


def _reading(data: Mapping[str, Any]) -> Reading:
    return Reading(**{**data, **_tuples(data, ("flags",))})


def _tuples(data: Mapping[str, Any], names: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(data[name]) for name in names}


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One line of the list of runs; times are seconds since 1970."""

    run_id: str
    name: str
    note: str
    state: RunState
    pair: str
    created: float
    finished: float | None
    version: str | None
    n_prompts: int
    done: int
    failed: int
    total: int
    error: str | None


def folders(home: Path) -> Iterator[RunFolder]:
    """Every folder that is named like a run."""
    for path in sorted(home.glob(f"{RUN_PREFIX}*")):
        if path.is_dir():
            yield RunFolder(path)


def stored(home: Path) -> list[StoredRun]:
    """All runs with a readable record, the newest first."""
    found = []
    for folder in folders(home):
        data = folder.read_record()
        try:
            if data is not None:
                found.append(_stored(data))
        except (KeyError, TypeError, ValueError):
            continue
    return sorted(found, key=lambda run: -run.created)


def _stored(data: Mapping[str, Any]) -> StoredRun:
    request, counts = data["request"], data["counts"]
    return StoredRun(
        run_id=data["run_id"],
        name=request["name"],
        note=request["note"],
        state=RunState(data["state"]),
        pair=data["pair"]["pair_id"],
        created=data["created"],
        finished=data["finished"],
        version=data["version"],
        n_prompts=len(request["prompts"]),
        done=counts["done"],
        failed=counts["failed"],
        total=counts["total"],
        error=data["error"],
    )


def load_run(folder: RunFolder) -> Run | None:
    """The run as it was when its process ended; None where there is no record to read.

    What was finished is there, what was under way is to be done again.
    """
    data = folder.read_record()
    try:
        if data is None or data["run_id"] != folder.path.name:
            return None
        run = Run(
            run_id=data["run_id"],
            request=RunRequest.from_json(data["request"]),
            pair=data["pair"],
            visitors=list(data["visitors"]),
            created=data["created"],
            prompt_tokens=tuple(data["prompt_tokens"]),
            state=RunState(data["state"]),
            error=data["error"],
            version=data["version"],
            n_published=data["n_published"],
            started=data["started"],
            finished=data["finished"],
        )
    except (KeyError, TypeError, ValueError, NLAError):
        return None
    kept = folder.read_journal()
    run.prompt_failures = kept.prompt_failures
    for index in range(len(run.request.prompts)):
        _put_back(run, folder, index, kept.readings, kept.failures)
    if run.state is RunState.RUNNING:
        run.state = RunState.QUEUED
    return run


def _put_back(
    run: Run,
    folder: RunFolder,
    index: int,
    readings: Mapping[Unit, Any],
    failures: Mapping[Unit, str],
) -> None:
    if index in run.prompt_failures:
        run.events.append(Event("failure", index, reason=run.prompt_failures[index]))
        return
    said = folder.read_said(index)
    if said is None:
        run.untranscribed.append(index)
        return
    chosen = run.request.positions.choose(said, content_positions(said))
    samples = range(run.request.samples)
    units = tuple(Unit(index, position, sample) for position in chosen for sample in samples)
    run.readings.update({unit: readings[unit] for unit in units if unit in readings})
    run.failures.update({unit: failures[unit] for unit in units if unit in failures})
    run.add_transcript(index, said, units)
    for unit in units:
        if unit in run.readings:
            run.events.append(Event("reading", *unit, reading=run.readings[unit]))
        elif unit in failures:
            run.events.append(Event("failure", *unit, reason=failures[unit]))


def export(folder: RunFolder, to: IO[bytes]) -> None:
    """A zip of the run's record and its current version. Raises NLAError if none is published.

    The record says nothing of who asked, not even as a hash.
    """
    version = folder.path / current_version(folder.path)
    record = {**(folder.read_record() or {}), "visitors": []}
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{folder.path.name}/{RECORD}", json.dumps(record, ensure_ascii=False))
        for name in (MANIFEST_FILE, *read_manifest(version).files):
            archive.write(version / name, f"{folder.path.name}/{version.name}/{name}")
        archive.writestr(f"{folder.path.name}/CURRENT", version.name + "\n")


@dataclass(slots=True)
class LivePrompt:
    """``texts`` are explanations whose score has not come; all by (position, sample)."""

    texts: dict[tuple[int, int], str] = field(default_factory=dict)
    readings: dict[tuple[int, int], Reading] = field(default_factory=dict)
    failures: dict[tuple[int, int], str] = field(default_factory=dict)
    failed: str | None = None  # why the whole prompt was not read


def folded(events: Iterable[Event], prompt: int) -> LivePrompt:
    """The state of one prompt after ``events``, which begin with the first one of the run."""
    live = LivePrompt()
    for event in events:
        if event.prompt != prompt:
            continue
        if event.position is None:
            live.failed = event.reason if event.kind == "failure" else None
            continue
        at = (event.position, event.sample)
        if event.kind == "text":
            live.texts[at] = event.explanation
        elif event.kind == "reading" and event.reading is not None:
            live.readings[at] = event.reading
            live.texts.pop(at, None)
            live.failures.pop(at, None)
        elif event.kind == "failure":
            live.failures[at] = event.reason
        elif event.kind == "retry":
            live.texts.pop(at, None)
            live.readings.pop(at, None)
            live.failures.pop(at, None)
    return live
