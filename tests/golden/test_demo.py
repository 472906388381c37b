"""The published demo: its version id and the bytes of its tables.

Links and citations name a version, so neither may change without a new dataset. The hashes are in
`demo.sha256`, as ``sha256sum`` writes them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo"
VERSION = "v-67dafd5f8257"


def test_the_demo_is_the_published_version() -> None:
    assert (DEMO / "CURRENT").read_text(encoding="utf-8").strip() == VERSION
    assert [path.name for path in DEMO.iterdir() if path.is_dir()] == [VERSION]


def test_the_tables_of_the_demo_have_not_changed() -> None:
    lines = Path(__file__).with_name("demo.sha256").read_text(encoding="utf-8").splitlines()
    expected = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert len(expected) == 9
    found = {
        path.relative_to(DEMO).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in DEMO.rglob("*.parquet")
    }
    assert found == expected
