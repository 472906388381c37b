"""The verbs `compare`, `audit` and `eval-compare` from the command line, on a small dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import precompute.audit
import precompute.compare
import precompute.eval_compare
from nla_core.data.dataset import Dataset
from precompute.audit import dump
from precompute.cli import main
from precompute.evaluation import standings
from tests.analysis.embedder import DIMENSION, BagOfWords
from tests.helpers import make_dataset

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (precompute.audit, precompute.compare, precompute.eval_compare):
        monkeypatch.setattr(module, "MiniLM", BagOfWords)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "dataset", dimension=DIMENSION)
    return tmp_path / "dataset"


def test_compare_then_audit(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "compare.json"
    assert main(["compare", str(root), "--json", str(out)]) == 0
    compared = json.loads(out.read_text())
    assert compared["claims"] > 100
    assert "claims of" in capsys.readouterr().out
    out = tmp_path / "audit.json"
    assert main(["audit", "--dataset", str(root), "--any-of", "3", "--json", str(out)]) == 0
    audited = json.loads(out.read_text())
    assert audited["label"] == "relative, not calibrated"
    assert audited["any_of"] == 3
    assert audited["version"] == compared["version"]
    assert audited["leaderboard_left_out"] is None
    assert {row["category"] for row in audited["table"]} >= {"all", "facts", "rhyme and planning"}
    assert all(row["floor"] is not None for row in audited["table"] if row["n_transcripts"])
    assert audited["foresight"]["summary"]["n_transcripts"] == 1
    assert "relative, not calibrated" in capsys.readouterr().out


def test_another_watchlist_is_scored_without_leaving_files(root: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text(
        json.dumps(
            {
                "concepts": [
                    {"id": "places", "name": "Places", "description": "Any place.",
                     "positives": ["geography of France", "the height of mountains"],
                     "negatives": [], "threshold": 0.05}
                ]
            }
        )
    )  # fmt: skip
    out = tmp_path / "audit.json"
    arguments = ["audit", "--dataset", str(root), "--concepts", str(mine), "--flagged"]
    assert main([*arguments, "--json", str(out)]) == 0
    audited = json.loads(out.read_text())
    (whole,) = [row for row in audited["table"] if row["category"] == "all"]
    assert whole["explanations"] > 0
    assert audited["leaderboard"] == []
    assert "not been computed" in audited["leaderboard_left_out"]
    assert not list(root.glob("v-*/derived"))


def test_transcripts_are_dumped_a_line_a_reading(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "dump.txt"
    assert main(["audit", "--dataset", str(root), "--dump", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert text == dump(Dataset.open(root))
    assert "# facts-001 | facts | " in text
    lines = [line for line in text.splitlines() if line.startswith("[")]
    assert len(lines) == Dataset.open(root).manifest.counts["readings"]
    assert any("' Paris': " in line for line in lines)
    assert "'\\n': " in text
    assert "facts-001" not in dump(Dataset.open(root), "code")


def test_bad_input_ends_with_two(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "--dataset", str(root), "--any-of", "0"]) == 2
    assert main(["compare", str(tmp_path / "none")]) == 2
    bad = tmp_path / "bad.json"
    bad.write_text('{"concepts": [\n {"id": "x"}\n]}')
    assert main(["audit", "--dataset", str(root), "--concepts", str(bad)]) == 2
    assert "line 2: the field name is wrong" in capsys.readouterr().err


def test_eval_compare_reports_and_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "labels.jsonl"
    lines = standings.LABELS.read_text(encoding="utf-8").splitlines()
    labels.write_text("\n".join(lines[::6]), encoding="utf-8")
    shipped = Path("nla_core/analysis")
    copies = {}
    for name in ("thresholds", "concepts"):
        copies[name] = tmp_path / f"{name}.json"
        copies[name].write_bytes((shipped / f"{name}.json").read_bytes())
    out = tmp_path / "out.json"
    arguments = ["eval-compare", "--thresholds", str(copies["thresholds"])]
    arguments += ["--concepts", str(copies["concepts"]), "--json", str(out), "--fit"]
    arguments += ["--labels", str(labels)]
    assert main(arguments) == 0
    report = json.loads(out.read_text())
    assert report["thresholds"] == json.loads(copies["thresholds"].read_text())
    assert set(report["standings"]) == {
        "said", "foreseen", "unspoken", "quote not found", "unclear",
    }  # fmt: skip
    assert len(report["concepts"]) == 10
    printed = capsys.readouterr().out
    assert "baseline_lexical" in printed
    assert "kappa" in printed
