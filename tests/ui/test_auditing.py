"""Which concepts the Audit page leaves out for a pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nla_core.ui import about
from nla_core.ui.auditing import unusable

PAIR = {"pair_id": "tiny"}


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(about, "PROJECT", tmp_path)
    folder = tmp_path / "data/nla/tiny"
    folder.mkdir(parents=True)
    return folder / "eval.json"


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        ({"concept_auc": {"rhyme": 0.74, "deceit": 0.75, "fear": 0.91}}, {"rhyme"}),
        ({"concept_auc": {"rhyme": None, "deceit": "?"}}, set()),
        ({"concept_auc": [0.1]}, set()),
        ({"fve": 0.5}, set()),
    ],
)
def test_concepts_with_a_small_area_are_not_usable(
    report: Path, found: dict[str, Any], missed: set[str]
) -> None:
    report.write_text(json.dumps(found), encoding="utf-8")
    assert unusable(PAIR) == missed


def test_a_pair_without_a_report_leaves_nothing_out(report: Path) -> None:
    assert unusable(PAIR) == frozenset()
    assert unusable({}) == frozenset()
