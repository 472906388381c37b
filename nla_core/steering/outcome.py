"""What came of an experiment: chances of words, texts, rates with intervals; as JSON and as rows.

Knows arithmetic on what was measured. Knows no model and no page. The decision a reader would
question: each seed has a random direction of its own, so that the control is the average random
push and does not hang on one lucky or unlucky draw.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nla_core.intervals import newcombe, wilson
from nla_core.steering.experiment import Arm, Experiment


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How near the vector rebuilt from a text is to the true one."""

    fve: float
    cosine: float
    centred_cosine: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known before anything is generated. ``norm`` is ‖h‖ of the token that was read;
    ``along`` the cosine of the direction and h; ``tokens`` how each named word is cut."""

    revision: str
    norm: float
    along: float
    original: Fidelity
    edited: Fidelity
    n_edits: int
    n_prompt_tokens: int
    positions: tuple[int, ...]
    tokens: tuple[tuple[str, ...], ...]
    prompt: str


@dataclass(frozen=True, slots=True)
class Chance:
    """The probability of a named word right after the prompt; ``seed`` is that of the random
    direction, None for the others."""

    arm: Arm
    alpha: float
    seed: int | None
    word: str
    p: float


@dataclass(frozen=True, slots=True)
class Continuation:
    """One text; ``hits`` are the named words that stand in it."""

    arm: Arm
    alpha: float
    seed: int
    text: str
    hits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rate:
    """In how many texts of an arm a named word stands, with a 95 % interval of the share."""

    hits: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.hits / self.n if self.n else float("nan")


@dataclass(frozen=True, slots=True)
class Contrast:
    """The steered rate minus another, with a 95 % interval."""

    difference: float
    low: float
    high: float

    @property
    def beats(self) -> bool:
        """The interval lies above zero."""
        return self.low > 0


@dataclass(frozen=True, slots=True)
class Band:
    """Probability of any named word: the mean and the middle 95 % over directions."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """``continuations`` grows while the experiment runs."""

    experiment: Experiment
    facts: Facts
    chances: tuple[Chance, ...] = ()
    continuations: tuple[Continuation, ...] = ()

    @property
    def complete(self) -> bool:
        return len(self.continuations) == self.experiment.n_continuations

    def texts(self, arm: Arm, alpha: float = 0.0) -> list[Continuation]:
        """Of an arm at an α (the baseline has 0), in the order of the seeds."""
        found = [c for c in self.continuations if c.arm == arm and c.alpha == alpha]
        return sorted(found, key=lambda c: c.seed)

    def rate(self, arm: Arm, alpha: float = 0.0) -> Rate:
        found = self.texts(arm, alpha)
        hits = sum(bool(c.hits) for c in found)
        return Rate(hits, len(found), *wilson(hits, len(found)))

    def contrast(self, alpha: float, other: Arm = Arm.RANDOM) -> Contrast:
        """The steered rate at ``alpha`` against the random one there, or the baseline."""
        one = self.rate(Arm.STEERED, alpha)
        against = self.rate(other, 0.0 if other == Arm.BASELINE else alpha)
        low, high = newcombe(one.hits, one.n, against.hits, against.n)
        return Contrast(one.share - against.share, low, high)

    def band(self, arm: Arm, alpha: float = 0.0, word: str | None = None) -> Band | None:
        """Of one word, or of any of them; None where nothing was measured."""
        wanted = self.disjoint if word is None else (word,)
        by_direction: dict[int | None, float] = {}
        for chance in self.chances:
            if chance.arm == arm and chance.alpha == alpha and chance.word in wanted:
                by_direction[chance.seed] = by_direction.get(chance.seed, 0.0) + chance.p
        if not by_direction:
            return None
        values = np.array(list(by_direction.values()))
        low, high = np.quantile(values, (0.025, 0.975))
        return Band(float(values.mean()), float(low), float(high))

    @property
    def disjoint(self) -> tuple[str, ...]:
        """The named words that do not begin with another one's tokens: their chances add up."""
        tokens = dict(zip(self.experiment.words, self.facts.tokens, strict=True))
        return tuple(
            word
            for word, own in tokens.items()
            if not any(own[: len(t)] == t for other, t in tokens.items() if other != word)
        )

    def as_json(self) -> dict[str, Any]:
        """Everything: the experiment, what was measured, and the rates."""
        return {
            "experiment": self.experiment.as_json(),
            "facts": asdict(self.facts),
            "complete": self.complete,
            "rates": list(self.summary()),
            "chances": [asdict(chance) for chance in self.chances],
            "continuations": [asdict(text) for text in self.continuations],
        }

    def summary(self) -> Iterable[dict[str, Any]]:
        """One row for the baseline and two for each α: rate, interval, probability."""
        arms = [(Arm.BASELINE, 0.0)]
        arms += [(a, x) for x in self.experiment.alphas for a in (Arm.STEERED, Arm.RANDOM)]
        for arm, alpha in arms:
            rate, band = self.rate(arm, alpha), self.band(arm, alpha)
            yield {
                "arm": str(arm),
                "alpha": alpha,
                "n": rate.n,
                "hits": rate.hits,
                "rate": rate.share if rate.n else None,
                "low": rate.low,
                "high": rate.high,
                "p_next": None if band is None else band.mean,
            }
