"""How long work with a pair will take: a measured batch, scaled by tokens and readings.

One way to say it for everybody: `Rates.estimate` gives a range, and the Run page, the API and the
verb ``plan`` show that range. The rates come from what this machine has done (`History`, kept in a
small JSON file), from a batch measured now (`measure`), or, on a pair's first run, from the first
decode steps after it was loaded (`tokens_per_second`). Where none of these exist, the estimate is
not known yet, and says so. A measurement under today's load is a better guess than a formula about
the hardware.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from nla_core.data.files import explained, write_json
from nla_core.errors import NLAError
from nla_core.jobs.queue import PairKey

if TYPE_CHECKING:
    from nla_core.explain import Explainer
    from nla_core.readings import Reading, Transcript

LOG = logging.getLogger(__name__)

Basis = Literal["past runs", "a batch", "warm-up", "nothing"]
SPREAD: Final[dict[Basis, float]] = {"past runs": 0.4, "a batch": 0.3, "warm-up": 0.7}
"""Half of the range, as a share of the estimate."""
WEIGHT: Final = 0.3
"""Of the newest measurement in the moving average."""
TYPICAL_TOKENS: Final = 40
"""Length of an explanation where none was seen."""
SAVE_SECONDS: Final = 5.0
WARM_ROWS: Final = 4
WARM_STEPS: Final = (2, 8)
"""The first pass warms what the second measures."""
PUBLISHER: Final = "publisher"
"""The device name of work that needs no model."""


class Kind(StrEnum):
    """What is measured: a load, a token of a transcript, a reading, a reading published."""

    LOAD = "load"
    TRANSCRIBE = "transcribe"
    READING = "reading"
    PUBLISH = "publish"
    TOKEN = "token"  # of an explanation, measured right after loading


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds, and their range; all None where nothing was measured yet."""

    seconds: float | None
    low: float | None
    high: float | None
    basis: Basis


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds a token of a transcript, a reading, a published reading and a load."""

    basis: Basis
    token: float
    reading: float
    publish: float = 0.0
    load: float = 0.0

    def estimate(
        self, *, tokens: int, readings: int, loaded: bool, readings_ahead: int = 0
    ) -> Estimate:
        """For so many tokens and readings, behind ``readings_ahead`` of other runs."""
        seconds = (
            (readings + readings_ahead) * self.reading
            + tokens * self.token
            + readings * self.publish
            + (0.0 if loaded else self.load)
        )
        spread = SPREAD[self.basis]
        return Estimate(seconds, seconds * (1 - spread), seconds * (1 + spread), self.basis)


@dataclass(frozen=True, slots=True)
class Batch:
    """A measured batch: its rates, and what it gave for the prompts at ``places``."""

    rates: Rates
    places: tuple[int, ...]
    transcripts: tuple[Transcript, ...]
    readings: tuple[tuple[Reading, ...], ...]

    @property
    def tokens(self) -> int:
        return sum(len(transcript.tokens) for transcript in self.transcripts)


def measure(
    explainer: Explainer,
    prompts: Sequence[Any],
    seeds: Sequence[int],
    *,
    answer: dict[str, Any],
    explanation: dict[str, Any],
) -> Batch:
    """Transcribe ``prompts`` and explain all of their tokens, by the clock.

    ``answer`` and ``explanation`` are the options of `Explainer.transcribe` and
    `Explainer.explain`. Raises NLAError where no prompt gives a reading.
    """
    tokens_per_second(explainer)  # pays what a process pays once
    began = time.monotonic()
    made = explainer.transcribe(prompts, seeds=seeds, **answer)
    traced = time.monotonic()
    kept = [(i, one) for i, one in enumerate(made) if not isinstance(one, NLAError)]
    whole = [one for _, one in kept]
    positions = [explainer.content_positions(one) for one in whole]
    readings: list[list[Reading]] = [[] for _ in whole]
    for index, reading in explainer.explain(whole, positions, **explanation):
        readings[index].append(reading)
    ended = time.monotonic()
    n_tokens, n_readings = sum(len(one.tokens) for one in whole), sum(map(len, readings))
    if not n_readings:
        errors = [one for one in made if isinstance(one, NLAError)]
        raise NLAError(
            "The prompts that were tried gave no readings",
            why=str(errors[0]) if errors else "none of them has content",
            fix="Correct the corpus, or look at its first prompts with `run --limit`",
        )
    rates = Rates("a batch", (traced - began) / n_tokens, (ended - traced) / n_readings)
    return Batch(rates, tuple(i for i, _ in kept), tuple(whole), tuple(map(tuple, readings)))


def tokens_per_second(explainer: Explainer) -> float:
    """Tokens that the verbalizer writes a second; also warms the reconstructor.

    Vectors are random: the cost of a step does not depend on them. Raises what the models raise.
    """
    import torch

    vectors = torch.randn(WARM_ROWS, explainer.pair.d_model)
    written, seconds = 0, 1.0
    for steps in WARM_STEPS:
        began = time.monotonic()
        texts = explainer.loaded.verbalizer.verbalize(
            vectors, seeds=[0] * len(vectors), max_new_tokens=steps
        )
        written = sum(text.n_tokens for text in texts)
        seconds = time.monotonic() - began
    explainer.loaded.reconstructor.reconstruct(["a text"])
    return written / seconds


class History:
    """Moving averages by pair and device; safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._saved = 0.0
        self._seconds = _read(path)

    def learn(self, key: PairKey, device: str, kind: Kind, amount: float, seconds: float) -> None:
        """Record that ``amount`` of ``kind`` took ``seconds``."""
        if amount <= 0 or seconds <= 0:
            return
        with self._lock:
            known = self._seconds.setdefault(_name(key, device), {})
            new, old = seconds / amount, known.get(kind)
            known[kind] = new if old is None else (1 - WEIGHT) * old + WEIGHT * new
        self.save(at_most_every=SAVE_SECONDS)

    def rates(self, key: PairKey, device: str, explanation_tokens: int) -> Rates | None:
        """What was measured of this pair on this device; None where nothing was."""
        with self._lock:
            known = dict(self._seconds.get(_name(key, device), {}))
            known |= self._seconds.get(_name(key, PUBLISHER), {})
        rest = (known.get(Kind.PUBLISH, 0.0), known.get(Kind.LOAD, 0.0))
        token, reading = known.get(Kind.TRANSCRIBE, 0.0), known.get(Kind.READING)
        if reading is not None:
            return Rates("past runs", token, reading, *rest)
        if Kind.TOKEN not in known:
            return None
        steps = min(TYPICAL_TOKENS, explanation_tokens)
        return Rates("warm-up", token, known[Kind.TOKEN] * steps, *rest)

    def save(self, *, at_most_every: float = 0.0) -> None:
        """Write the file; a failure is logged, since no run should end over an estimate."""
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
