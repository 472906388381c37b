"""How a GRPO run is doing, on vectors that it never learns from.

Knows the greedy texts of a fixed set of vectors, what the two ARs make of them, and when that is
reason to stop. Knows nothing of steps and files. The decision a reader would question: greedy, one
text a vector, and the same vectors throughout, so that two validations differ by the weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nla_core.metrics import mse_nrm, rank_of_own
from precompute.train.collapse import Limits, Signals, signals, what_collapsed
from precompute.train.grpo import Grpo
from precompute.train.sampling import Sampling

PREFIX = "val_"


@dataclass(frozen=True, slots=True)
class Validation:
    """FVE by the AR as it is, by that of the start, and of texts held against other vectors."""

    fve: float
    fve_first_ar: float
    fve_shuffled: float
    tokens: float  # a text, on average
    signals: Signals

    def as_dict(self) -> dict[str, float]:
        """Flat, each name with PREFIX, for a line of the log."""
        own = {name: getattr(self, name) for name in _OWN}
        return {PREFIX + name: value for name, value in (own | self.signals.as_dict()).items()}

    @classmethod
    def from_dict(cls, line: Mapping[str, float]) -> Validation:
        """The inverse of ``as_dict``; other entries are ignored."""
        names = Signals.__dataclass_fields__
        of_signals = Signals(**{name: line[PREFIX + name] for name in names})
        return cls(**{name: line[PREFIX + name] for name in _OWN}, signals=of_signals)

    def collapsed(self, start: Validation, limits: Limits) -> list[str]:
        """One sentence a sign of collapse since ``start``; empty while all is well."""
        found = what_collapsed(self.signals, start.signals, limits)
        if self.fve_first_ar < start.fve_first_ar - limits.private_fve:
            found.append(
                "AV and AR agree on a language of their own: by the AR of the start, FVE fell from "
                f"{start.fve_first_ar:.3f} to {self.fve_first_ar:.3f}"
            )
        return found


_OWN = ("fve", "fve_first_ar", "fve_shuffled", "tokens")


def validate(grpo: Grpo, hidden: Tensor, max_new_tokens: int) -> Validation:
    """Of ``hidden`` ``[n, d]``, raw vectors; greedy."""
    greedy = Sampling(group=1, temperature=0.0, max_new_tokens=max_new_tokens)
    samples = grpo.draw(hidden, range(len(hidden)), greedy, 0)
    texts = [s.text for s in samples]
    true = hidden.float()
    now, first = (grpo.read(by, texts) for by in (grpo.judge.read, grpo.judge.read_as_first))
    shuffled = now.roll(max(1, len(true) // 2), 0)
    return Validation(
        fve=grpo.fve(mse_nrm(now, true)),
        fve_first_ar=grpo.fve(mse_nrm(first, true)),
        fve_shuffled=grpo.fve(mse_nrm(shuffled, true)),
        tokens=sum(len(s.token_ids) for s in samples) / len(samples),
        signals=signals(
            texts,
            [s.finish for s in samples],
            rank_of_own(now, true, grpo.reference.mean),
        ),
    )
