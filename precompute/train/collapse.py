"""Has the policy collapsed? Signals in a batch of its texts, and what they mean in words.

Knows the ways in which an AV that is paid by its AR goes wrong: one template, one text for all,
texts without an end, words that repeat, texts that no longer tell vectors apart, a language that
only the trained AR understands. Knows nothing of training. The decision a reader would question:
every limit also asks for a change since the start of the run, because a warm start on short labels
is already repetitive, and what is healthy depends on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from nla_core.schema import Finish

N = 3
COMMON = 0.5
"""A three-word sequence that more texts than this share is part of a template."""


@dataclass(frozen=True, slots=True)
class Signals:
    """Of one batch of texts, one text a vector; shares in 0..1 but for the last."""

    distinct_3: float  # different three-word sequences among all of them
    duplicate_rate: float  # texts that another vector's text repeats word by word
    cut_rate: float  # texts without a closing tag
    template_share: float  # words that belong to a sequence shared by half of the texts
    rank_at_1: float  # vectors that are the nearest to what the AR makes of their text

    first_ar_fve: float | None = None  # FVE by the AR of the start; None where it was not asked

    def as_dict(self) -> dict[str, float]:
        """What is known, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Limits:
    """Where health ends. The ``kept`` are shares of what the run started with.

    ``change`` is what a signal must have moved since the start: a few texts are no trend.
    """

    duplicate_rate: float = 0.5
    cut_rate: float = 0.3
    template_share: float = 0.6
    distinct_3_kept: float = 0.5
    rank_at_1_kept: float = 0.5
    change: float = 0.1


def signals(texts: Sequence[str], finishes: Sequence[Finish], ranks: Tensor) -> Signals:
    """Of ``n >= 1`` texts and the ranks ``[n]`` (0 = first) of their own vectors."""
    words = [text.split() for text in texts]
    sequences = [{tuple(w[i : i + N]) for i in range(len(w) - N + 1)} for w in words]
    total = sum(max(0, len(w) - N + 1) for w in words)
    held = Counter(s for found in sequences for s in found)
    return Signals(
        distinct_3=len(held) / total if total else 0.0,
        duplicate_rate=1.0 - len(set(texts)) / len(texts),
        cut_rate=sum(f is not Finish.CLOSED for f in finishes) / len(texts),
        template_share=_template_share(words, held),
        rank_at_1=float((ranks == 0).float().mean()),
    )


def _template_share(words: Sequence[Sequence[str]], held: Counter[tuple[str, ...]]) -> float:
    common = {s for s, n in held.items() if n > COMMON * len(words) and n > 1}
    inside = 0
    for text in words:
        places = {
            i + k
            for i in range(len(text) - N + 1)
            if tuple(text[i : i + N]) in common
            for k in range(N)
        }
        inside += len(places)
    return inside / max(1, sum(map(len, words)))


def what_collapsed(now: Signals, start: Signals, limits: Limits) -> list[str]:
    """One sentence a signal that left its limits; empty while the policy is well."""

    def above(share: float, before: float, limit: float) -> bool:
        return share > max(limit, before + limits.change)

    def below(share: float, before: float, kept: float) -> bool:
        return share < min(kept * before, before - limits.change)

    found = []
    if above(now.cut_rate, start.cut_rate, limits.cut_rate):
        found.append(f"{now.cut_rate:.0%} of the texts have no end")
    if above(now.duplicate_rate, start.duplicate_rate, limits.duplicate_rate):
        found.append(f"{now.duplicate_rate:.0%} of the texts repeat another vector's")
    if above(now.template_share, start.template_share, limits.template_share):
        found.append(f"{now.template_share:.0%} of the words belong to one template")
    if below(now.distinct_3, start.distinct_3, limits.distinct_3_kept):
        found.append(
            f"the wording has become uniform: distinct-3 fell from {start.distinct_3:.2f} "
            f"to {now.distinct_3:.2f}"
        )
    if below(now.rank_at_1, start.rank_at_1, limits.rank_at_1_kept):
        found.append(
            f"the texts no longer tell vectors apart: {now.rank_at_1:.0%} find their own, "
            f"{start.rank_at_1:.0%} did at the start"
        )
    then, today = start.first_ar_fve, now.first_ar_fve
    if then is not None and today is not None and today < then - limits.change:
        found.append(
            "AV and AR agree on a language of their own: by the AR of the start, FVE fell from "
            f"{then:.3f} to {today:.3f}"
        )
    return found
