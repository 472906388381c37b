"""How long a run will take, learned from the runs this machine has done.

Knows seconds a unit of each kind of work, by pair and device, and keeps them in a small JSON file.
Knows no run and no model. The decision a reader would question: moving averages instead of a model
of the hardware; what was measured here last week under this load is a better guess than any
formula, and where nothing was measured, the worker's first steps after loading are.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from nla_core.errors import NLAError
from nla_core.runs.queue import PairKey
from nla_core.store.files import explained, write_json

LOG = logging.getLogger(__name__)
WEIGHT: Final = 0.3
"""Of the newest measurement in the average."""
SPREAD: Final = 0.4
GUESS_SPREAD: Final = 0.7
TYPICAL_TOKENS: Final = 40
"""Length of an explanation where none was seen."""
SAVE_SECONDS: Final = 5.0
PUBLISHER: Final = "publisher"
"""What stands for a device where no model works."""


class Kind(StrEnum):
    """What is counted: one load, tokens of a transcript, readings, readings."""

    LOAD = "load"
    TRANSCRIBE = "transcribe"
    READING = "reading"
    PUBLISH = "publish"
    TOKEN = "token"  # of an explanation, measured right after loading


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds, and a range; all None where this machine has never loaded the pair."""

    seconds: float | None
    low: float | None
    high: float | None
    basis: Literal["past runs", "warm-up", "nothing"]


class History:
    """Averages by pair and device; safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._saved = 0.0
        self._seconds = _read(path)

    def learn(self, key: PairKey, device: str, kind: Kind, amount: float, seconds: float) -> None:
        """``amount`` of ``kind`` took ``seconds``."""
        if amount <= 0 or seconds <= 0:
            return
        with self._lock:
            known = self._seconds.setdefault(_name(key, device), {})
            new, old = seconds / amount, known.get(kind)
            known[kind] = new if old is None else (1 - WEIGHT) * old + WEIGHT * new
        self.save(at_most_every=SAVE_SECONDS)

    def guess(self, key: PairKey, device: str, tokens_a_second: float) -> None:
        """The pace of the first steps after loading."""
        self.learn(key, device, Kind.TOKEN, tokens_a_second, 1.0)

    def estimate(
        self,
        key: PairKey,
        device: str,
        *,
        tokens: int,
        readings: int,
        explanation_tokens: int,
        loaded: bool,
        readings_ahead: int = 0,
    ) -> Estimate:
        """For ``tokens`` of transcripts and ``readings`` of them, behind ``readings_ahead``."""
        with self._lock:
            known = dict(self._seconds.get(_name(key, device), {}))
            known |= self._seconds.get(_name(key, PUBLISHER), {})
        a_reading = known.get(Kind.READING)
        basis: Literal["past runs", "warm-up", "nothing"] = "past runs"
        if a_reading is None:
            if Kind.TOKEN not in known:
                return Estimate(None, None, None, "nothing")
            basis = "warm-up"
            a_reading = known[Kind.TOKEN] * min(TYPICAL_TOKENS, explanation_tokens)
        seconds = (
            (readings + readings_ahead) * a_reading
            + tokens * known.get(Kind.TRANSCRIBE, 0.0)
            + readings * known.get(Kind.PUBLISH, 0.0)
            + (0.0 if loaded else known.get(Kind.LOAD, 0.0))
        )
        spread = SPREAD if basis == "past runs" else GUESS_SPREAD
        return Estimate(seconds, seconds * (1 - spread), seconds * (1 + spread), basis)

    def save(self, *, at_most_every: float = 0.0) -> None:
        """A history that cannot be written costs an estimate, and is not worth a run."""
        with self._lock:
            if time.monotonic() - self._saved < at_most_every:
                return
            self._saved = time.monotonic()
            data = {name: dict(kinds) for name, kinds in self._seconds.items()}
        try:
            with explained(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.path, data)
        except NLAError as error:
            LOG.warning("%s", error)


def _read(path: Path) -> dict[str, dict[str, float]]:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {str(kind): float(value) for kind, value in kinds.items()}
            for name, kinds in data.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _name(key: PairKey, device: str) -> str:
    return f"{key[0]}@{key[1]} on {device}"
