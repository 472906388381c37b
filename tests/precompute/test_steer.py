"""The verb ``steer`` on a tiny pair: every arm is measured and the page reads what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nla_core.steering.presets import presets
from precompute.cli import main
from tests.tiny import tiny_pair

pytestmark = pytest.mark.unit


def preset(name: str, edited: str) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "about": "It shall change.",
        "prompt": "the lazy dog while",
        "original": "the quick brown fox",
        "edited": edited,
        "place": "prompt",
        "every": True,
        "alpha": 4.0,
        "alphas": [1.0, 4.0],
        "words": ["rain", "e"],
        "new_tokens": 4,
        "temperature": 1.0,
    }


def test_presets_are_measured_and_read_back(tmp_path: Path) -> None:
    asked, out = tmp_path / "presets.json", tmp_path / "out" / "measured.json"
    rows = [preset("one", "the old stone bridge"), preset("two", "people say more")]
    asked.write_text(json.dumps({"pair": "pair", "presets": rows}), encoding="utf-8")
    given = ["--nla", str(tiny_pair(tmp_path)), "--presets", str(asked), "--out", str(out)]
    assert main(["steer", *given, "--seeds", "4", "--device", "cpu"]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["tried"], found["seeds"], found["first_seed"]) == (2, 4, 100)
    for row in found["presets"]:
        assert {row[arm]["n"] for arm in ("steered", "random", "baseline", "other_edit")} == {4}
        assert row["other_edit"]["id"] != row["id"]
        assert row["over_random"]["low"] <= row["over_random"]["high"]
        assert set(row["p_next"]) == {"baseline", "steered", "random"}
    assert found["by_id"]["one"]["steered"].endswith(" %")
    first, second = presets(asked, out)
    assert first.measured is not None
    assert second.measured is not None
    assert first.measured.revision == found["revision"]
    assert not first.stale(found["revision"])
    before = out.read_bytes()
    assert main(["steer", *given, "--seeds", "2", "--only", "one", "--device", "cpu"]) == 0
    assert out.read_bytes() == before


def test_nonsense_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["steer", "--only", "no-such-preset"]) == 2
    assert "nothing to measure" in capsys.readouterr().err
    assert main(["steer", "--seeds", "1"]) == 2
    assert "an interval needs 2" in capsys.readouterr().err
