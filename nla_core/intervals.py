"""Intervals of shares: how much of what was counted may be chance.

Knows Wilson's interval of one share and Newcombe's of the difference of two. Knows nothing of what
was counted. The decision a reader would question: Newcombe's method takes the two shares for
independent; where both were drawn with the same seeds they are alike if anything, and the interval
is then too wide rather than too narrow.
"""

from __future__ import annotations

from math import sqrt

Z95 = 1.96


def wilson(hits: float, n: int, z: float = Z95) -> tuple[float, float]:
    """The 95 % Wilson interval of a share; (0, 1) without any trial."""
    if n == 0:
        return 0.0, 1.0
    share, spread = hits / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def newcombe(hits: float, n: int, other_hits: float, other_n: int) -> tuple[float, float]:
    """The 95 % interval of ``hits / n`` minus ``other_hits / other_n`` (Newcombe 1998, method 10).

    (-1, 1) where one of them has no trial.
    """
    if n == 0 or other_n == 0:
        return -1.0, 1.0
    one, other = hits / n, other_hits / other_n
    low, high = wilson(hits, n)
    other_low, other_high = wilson(other_hits, other_n)
    difference = one - other
    return (
        difference - sqrt((one - low) ** 2 + (other_high - other) ** 2),
        difference + sqrt((high - one) ** 2 + (other - other_low) ** 2),
    )
