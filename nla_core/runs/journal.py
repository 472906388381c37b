"""One run on disk: what was asked, what was said, and a journal of readings and failures.

Knows the layout ``RUN/run.json`` (replaced as a whole) and ``RUN/.work/`` with a pair of files for
each transcribed prompt and ``journal.jsonl`` (only ever appended to). The published versions lie
beside them. Knows no thread and no model. The decision a reader would question: readings are
appended and fsynced in small groups instead of one file each; a line that a crash cut short is cut
off when the journal is opened again, and costs that reading alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nla_core.errors import NLAError
from nla_core.readings import Reading, Said, Token, Transcript
from nla_core.runs.state import Unit
from nla_core.store.files import canonical_json, explained, fsync_path, write_atomic, write_json

if TYPE_CHECKING:
    from nla_core.runs.state import Run

RECORD = "run.json"
WORK = ".work"
JOURNAL = "journal.jsonl"
RECORD_VERSION = 1


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
            _write_array(self._vectors(index), transcript.hidden.numpy())
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

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append lines and flush them to the disk: all of them, or none.

        Raises NLAError where the disk refuses.
        """
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


def reading_line(unit: Unit, reading: Reading) -> dict[str, Any]:
    return {"k": "reading", "p": unit.prompt, "at": unit.position, "s": unit.sample,
            "d": asdict(reading)}  # fmt: skip


def failure_line(unit: Unit, why: str) -> dict[str, Any]:
    return {"k": "failure", "p": unit.prompt, "at": unit.position, "s": unit.sample, "why": why}


def prompt_line(index: int, why: str) -> dict[str, Any]:
    return {"k": "prompt", "p": index, "why": why}


def anew_line(index: int) -> dict[str, Any]:
    """All that stands before it of prompt ``index`` is of another answer."""
    return {"k": "anew", "p": index}


RETRY_LINE: dict[str, Any] = {"k": "retry", "p": 0}


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


def _write_array(path: Path, values: np.ndarray) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            np.save(handle, values, allow_pickle=False)
            handle.flush()
            os.fsync(handle.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _token(data: Mapping[str, Any]) -> Token:
    return Token(**{**data, **_tuples(data, ("top_tokens", "top_probs"))})


def _reading(data: Mapping[str, Any]) -> Reading:
    return Reading(**{**data, **_tuples(data, ("flags",))})


def _tuples(data: Mapping[str, Any], names: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(data[name]) for name in names}
