"""A fixed corpus gives the same version, byte for byte, as it did when the hashes were recorded.

A version's id names its rows in links and citations, so a change of the code that makes them must
not change either by accident. Whoever changes rows or their encoding on purpose records anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from precompute.plan import Plan
from tests.precompute.fake import published, run_fake

PYARROW = "26.0.1"
"""Parquet files name the library that wrote them, so the hashes hold for this version alone."""

VERSION = "v-b6ce57ed51fd"
FILES = {
    "readings.parquet": "d58ac2576a1ddf52",
    "tokens.parquet": "84e86b8369c549df",
    "transcripts.parquet": "69c229ce61d26b6b",
    "explanations.f16.npy": "ee6c9f32085dc9ee",
}


@pytest.mark.skipif(pa.__version__ != PYARROW, reason=f"recorded with pyarrow {PYARROW}")
def test_a_run_publishes_the_recorded_version(plan: Plan, tmp_path: Path) -> None:
    plan = replace(plan, software={})
    found = run_fake(plan, tmp_path)
    files = {
        Path(path).name: hashlib.sha256(content).hexdigest()[:16]
        for path, content in published(tmp_path).items()
        if path.endswith((".parquet", ".npy"))
    }
    assert (found, files) == (VERSION, FILES)
