"""What is promised of the figures in result files, and where a fresh run is worse than a kept one.

Knows which figures are promises and which way is better. Measures nothing, reads no file. The
decision a reader would question: only ratios are compared between runs, never seconds, so that the
check means the same on another machine and on a busy one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TOLERANCE = 0.2
LABELS = {
    "cpu": "a CPU in float32",
    "cpu-bf16": "a CPU that multiplies bfloat16",
    "cuda": "a CUDA GPU",
}
"""What records of models end in, and what that stands for: a ratio compares within one of them."""
Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure at a dotted ``key`` of the record called ``file``, and what it should reach."""

    what: str
    file: str
    key: str
    target: float | None = None
    less_is_better: bool = False
    unit: str = ""
    is_ratio: bool = True
    digits: int = 2

    def of(self, records: Records) -> float | None:
        """The figure; None where it was not measured."""
        value: Any = records.get(self.file)
        for part in self.key.split("/"):
            value = value.get(part) if isinstance(value, Mapping) else None
        return float(value) if isinstance(value, int | float) else None

    def is_met(self, value: float) -> bool | None:
        if self.target is None:
            return None
        return value <= self.target if self.less_is_better else value >= self.target

    def worse(self, fresh: float, kept: float) -> bool:
        """By more than TOLERANCE."""
        if self.less_is_better:
            return fresh > kept * (1 + TOLERANCE)
        return fresh < kept * (1 - TOLERANCE)


def _of_device(device: str) -> list[Promise]:
    where = f", {device}"
    return [
        Promise(
            f"AV against one `generate` a vector{where}",
            f"explain-{device}",
            "ratio_one_by_one",
            40.0 if device == "cuda" else 8.0,
            unit="×",
        ),
        Promise(
            f"AV against one batched `generate`{where}",
            f"explain-{device}",
            "ratio_batched",
            2.0,
            unit="×",
        ),
        *(
            Promise(
                f"{name}, share of its floor{where}",
                f"roofline-{device}",
                f"stages/{stage}/reached",
                target,
            )
            for stage, name, target in (
                ("extract", "target extraction", 0.7),
                ("prefill", "AV prompts", None),
                ("decode", "AV decoding", None),
                ("ar", "AR scoring", 0.7),
                ("reading", "AV and AR of a reading", None),
            )
        ),
        *(
            [
                Promise(
                    f"FVE in bfloat16 less that in float32{where}",
                    f"precision-{device}",
                    "difference",
                    -0.005,
                    is_ratio=False,
                    digits=4,
                ),
                Promise(
                    f"FVE lost in bfloat16 beside float32, at most (95 %){where}",
                    f"precision-{device}",
                    "lost_at_most",
                    0.005,
                    less_is_better=True,
                    is_ratio=False,
                    digits=4,
                ),
            ]
            if device != "cpu"
            else []
        ),
        Promise(
            f"growth of `run` with readings, exponent{where}",
            f"corpus-{device}",
            "exponent",
            1.05,
            less_is_better=True,
        ),
        Promise(
            f"`plan`, largest error of three corpora{where}",
            f"plan-{device}",
            "worst",
            0.25,
            less_is_better=True,
            is_ratio=False,
        ),
        Promise(
            f"Ray's overhead beside the local engine{where}",
            f"engines-{device}",
            "ray_overhead",
            0.10,
            less_is_better=True,
            is_ratio=False,
        ),
        Promise(f"two workers against one{where}", f"engines-{device}", "two_against_one"),
        *(
            Promise(
                f"own prompt of 40 tokens, {what}{where}",
                f"run-{device}",
                key,
                target if device != "cuda" else None,
                less_is_better=True,
                unit=" s",
                is_ratio=False,
            )
            for what, key, target in (
                ("first reading", "first_reading_s", 3.0),
                ("all readings", "all_readings_s", 20.0),
            )
        ),
    ]


PROMISES: tuple[Promise, ...] = (
    *(promise for device in LABELS for promise in _of_device(device)),
    Promise(
        "AV of the shape of a 7B, share of its floor at its best batch, cuda",
        "batches-7b-cuda",
        "best/reached",
        0.5,
    ),
    *(
        Promise(what, "search-2-cores", key, target, less, unit, is_ratio=False)
        for what, key, target, less, unit in (
            ("keyword search, a million readings, 95 %", "keyword_ms/p95", 30.0, True, " ms"),
            ("hybrid search, a million readings, 95 %", "hybrid_ms/p95", 150.0, True, " ms"),
            ("recall among the first ten", "recall_at_10/no filter", 0.97, False, ""),
        )
    ),
    Promise(
        "a published dataset is open, the largest measured",
        "publish-2-cores",
        "largest_open_s",
        3.0,
        less_is_better=True,
        unit=" s",
        is_ratio=False,
    ),
    Promise(
        "growth of the memory of publishing with readings, exponent",
        "publish-2-cores",
        "exponents/publish_own_mb",
        less_is_better=True,
        is_ratio=False,
    ),
    *(
        Promise(
            f"token click, {what}, 95 %",
            file,
            f"sessions/{sessions}/token click/p95_ms",
            target,
            less_is_better=True,
            unit=" ms",
            is_ratio=False,
        )
        for what, file, sessions, target in (
            ("ten sessions", "app-2-cores", 10, 300.0),
            ("ten sessions, a million readings", "app-million-2-cores", 10, 300.0),
            ("while the server reads forty prompts", "app-during-run-2-cores", 1, 500.0),
        )
    ),
)


def regressions(fresh: Records, kept: Records) -> list[str]:
    """Every ratio that is worse than the kept one by more than a fifth, in words."""
    return [
        f"{promise.what}: {now:.2f}, and it was {before:.2f}"
        for promise, now, before in ratios_of_both(fresh, kept)
        if promise.worse(now, before)
    ]


def ratios_of_both(fresh: Records, kept: Records) -> list[tuple[Promise, float, float]]:
    """Every ratio that both have, the fresh one first."""
    return [
        (promise, now, before)
        for promise in PROMISES
        if promise.is_ratio
        and (now := promise.of(fresh)) is not None
        and (before := promise.of(kept)) is not None
    ]
