"""What a good small pair should reach, and by how much one falls short.

Knows the bar of each figure. Knows nothing of how figures are measured or written. The decision a
reader would question: the bars stand in code and not in a document, so that every report is held to
the same ones and says itself what it misses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """``at_least`` tells the direction; ``share`` figures are shown in percent."""

    figure: str
    name: str
    bar: float
    at_least: bool = True
    share: bool = False


GOALS: Sequence[Goal] = (
    Goal("fve", "FVE of the whole loop", 0.50),
    Goal("rank_at_1_500", "own vector first among 500", 0.60, share=True),
    Goal("cut_rate", "texts cut by the length limit", 0.02, at_least=False, share=True),
    Goal("distinct_3", "distinct-3", 0.50),
    Goal("shuffled", "FVE with another item's explanation", -0.50, at_least=False),
    Goal("quote_precision", "quotations that stand in the context", 0.60, share=True),
    Goal("second_ar_difference", "own AR's FVE above a second AR's", 0.05, at_least=False),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``short_by`` is how far ``value`` lies on the wrong side, 0 where it is met.

    Both are None where the figure was not measured.
    """

    goal: Goal
    value: float | None
    short_by: float | None


def verdicts(figures: Mapping[str, Any]) -> list[Verdict]:
    """One verdict a goal, in their order."""
    result = []
    for goal in GOALS:
        value = figures.get(goal.figure)
        if value is None:
            result.append(Verdict(goal, None, None))
        else:
            short = goal.bar - value if goal.at_least else value - goal.bar
            result.append(Verdict(goal, float(value), max(0.0, short)))
    return result
