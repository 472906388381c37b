"""The section on throughput says what was measured, with how many threads, and beside what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nla_core.errors import NLAError
from precompute.evaluation.throughput import STAGES, read_record, section

pytestmark = pytest.mark.unit


def throughput_record() -> dict[str, Any]:
    """As `bench train` writes it, for two numbers of threads."""
    stage = {
        "tokens": 640, "gflop": 300.0, "seconds": 10.0, "cpu_seconds": 5.0, "tokens_per_s": 1234.6,
        "tokens_per_cpu_s": 3.26, "gflop_per_s": 30, "share_of_peak": 0.504,
        "share_of_peak_cpu": 0.75,
    }  # fmt: skip
    peak = {"float32": {"gflop_per_s": 60.0, "gflop_per_cpu_s": 80.0}}
    found = {"peak": peak, "stages": dict.fromkeys(STAGES, stage)}
    return {
        "pair_id": "a-pair", "processor": "a|b", "cores": 2, "device": "cpu", "dtype": "float32",
        "torch": "2.13.0", "batch_size": 16, "group": 8, "repeats": 3, "explanation_tokens": 60,
        "load_average": {"before": 1.04, "after": 2.0}, "note": "", "formula": "2 P a position",
        "weights": {"av": {"blocks": 106_200_000, "lora": 9_800_000, "head": 28_300_000}},
        "threads": {"10": found, "2": found, "1": found},
    }  # fmt: skip


def test_stages_are_in_order_with_every_number_of_threads() -> None:
    text = section(throughput_record())
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| supervised step of the AV | 2 | 1,235 | 30 | 50 % | 3.3 | 75 % |" in rows
    threads = [row.split(" | ")[1] for row in rows if row.startswith("| sampling")]
    assert threads == ["1", "2", "10"]
    order = [text.index(name) for name in STAGES.values()]
    assert order == sorted(order)
    assert "| matrix product, float32 | 1 | 60 | 80 |" in rows


def test_the_conditions_are_said() -> None:
    text = section(throughput_record())
    assert "Load average 1.0 before, 2.0 after; what ran beside it: not said." in text
    assert "av P 106.2, A 9.8, H 28.3" in text
    assert "2 P a position" in text
    assert "beside it: a training." in section(throughput_record() | {"note": "a training"})


def test_a_record_comes_back_and_what_lacks_a_stage_is_none(tmp_path: Path) -> None:
    path, record = tmp_path / "t.json", throughput_record()
    path.write_text(json.dumps(record))
    assert read_record(path) == record
    record["threads"]["1"]["stages"] = {"label": record["threads"]["1"]["stages"]["label"]}
    path.write_text(json.dumps(record))
    with pytest.raises(NLAError, match="no record of throughput") as caught:
        read_record(path)
    assert "sft_av" in str(caught.value)
    assert "bench train" in str(caught.value)
