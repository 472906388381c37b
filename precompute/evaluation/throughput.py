"""The report's section on throughput, from the record that ``bench train`` writes.

Knows the form of the record and how a reader is told of it. Measures nothing. The decision a reader
would question: throughput belongs to a machine and not to a pair, so it is no part of what `eval`
measures; a record is made once a machine and handed to any report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nla_core.errors import NLAError
from precompute.evaluation.markdown import table

STAGES = {
    "label": "target's vectors and labels",
    "sft_av": "supervised step of the AV",
    "sft_ar": "supervised step of the AR",
    "sampling": "sampling from the AV",
    "grpo": "step of GRPO",
}
HEADER = (
    "stage",
    "threads",
    "tokens/s",
    "GFLOP/s",
    "share of peak",
    "tokens/s of processor time",
    "share of peak, processor time",
)


def read_record(path: Path) -> dict[str, Any]:
    """The record in ``path``; NLAError where it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        section(found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise NLAError(
            f"{path} is no record of throughput",
            why=f"{type(error).__name__}: {error}",
            fix="Write one: python -m precompute bench train --nla DIR --json FILE",
        ) from None
    return dict(found)


def section(record: Mapping[str, Any]) -> str:
    """Markdown, heading included; LookupError or TypeError where the record lacks something."""
    by_threads = sorted(record["threads"].items(), key=lambda item: int(item[0]))
    peaks = [
        (
            f"matrix product, {dtype}",
            threads,
            f"{peak['gflop_per_s']:,.0f}",
            f"{peak['gflop_per_cpu_s']:,.0f}",
        )
        for threads, found in by_threads
        for dtype, peak in sorted(found["peak"].items())
    ]
    return (
        f"## Throughput\n\n{_conditions(record)}\n\n{table(HEADER, _rows(by_threads))}\n"
        f"{table(('peak', 'threads', 'GFLOP/s', 'GFLOP a second of processor time'), peaks)}\n"
        f"{_explained(record)}"
    )


def _conditions(record: Mapping[str, Any]) -> str:
    load = record["load_average"]
    return (
        f"Measured by `bench train` with `{record['pair_id']}` on {record['cores']} cores "
        f"({record['processor']}), device {record['device']}, {record['dtype']}, torch "
        f"{record['torch']}: {record['batch_size']} examples a step, explanations of at most "
        f"{record['explanation_tokens']} tokens, GRPO in groups of {record['group']}; the "
        f"fastest of {record['repeats']} runs of each stage. Load average "
        f"{load['before']:.1f} before, {load['after']:.1f} after; what ran beside it: "
        f"{record['note'] or 'not said'}."
    )


def _rows(by_threads: Sequence[tuple[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for stage, name in STAGES.items():
        for threads, found in by_threads:
            f = found["stages"][stage]
            rows.append(
                (
                    name,
                    threads,
                    _rate(f["tokens_per_s"]),
                    _rate(f["gflop_per_s"]),
                    f"{100 * f['share_of_peak']:.0f} %",
                    _rate(f["tokens_per_cpu_s"]),
                    f"{100 * f['share_of_peak_cpu']:.0f} %",
                )
            )
    return rows


def _explained(record: Mapping[str, Any]) -> str:
    weights = "; ".join(
        f"{role} P {w['blocks'] / 1e6:.1f}, A {w['lora'] / 1e6:.1f}, H {w['head'] / 1e6:.1f}"
        for role, w in sorted(record["weights"].items())
    )
    return (
        "Tokens are those of texts: read by the target, learned from, or drawn; prompts are not "
        "counted as tokens, but their arithmetic is. Processor time is that of all threads; it "
        "tells what the work costs where the clock also counts waiting for other programs. The "
        "share by processor time compares with the peak by processor time.\n\n"
        f"Operations are counted by weights: {record['formula']}. Millions of weights: {weights}.\n"
    )


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
