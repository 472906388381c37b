"""A pair for another model, built from a config: from text to a transcript in the app."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from streamlit.testing.v1 import AppTest

from nla_core.data.dataset import Dataset
from nla_core.models.pair import find_pair
from precompute.cli import main
from precompute.train.pipeline import plan
from tests.tiny import MARKER, TEXT, tiny_base
from tests.train.conftest import write_corpus

APP = Path(__file__).resolve().parents[2] / "app.py"
WORDS = TEXT.split()
WHERE = {"device": "cpu", "dtype": "float32"}
SFT = {"steps": 12, "batch_size": 8, "rank": 2, "lr": 1e-2, "marker": MARKER, "validate_every": 6}
SAMPLES = {"samples": 3, "explanation_tokens": 12}


def _config(root: Path) -> dict[str, object]:
    data, pair, start = "{out}/data", "{out}/pair", {"av": "{out}/av", "ar": "{out}/ar"}
    sizes = {"ar_windows": 6, "av_windows": 6, "rl_windows": 4, "val_windows": 3, "max_tokens": 48}
    return {
        "target": str(root / "base"),
        "layer": 2,
        "steps": [
            {"data": {"corpus": "{corpus}", "out": data, **sizes, **WHERE}},
            {"ar": {"data": data, "out": "{out}/ar", **SFT, **WHERE}},
            {"av": {"data": data, "out": "{out}/av", "injection_scale": 20, **SFT, **WHERE}},
            {
                "grpo": {
                    **{"data": data, "out": "{out}/rl", **start, "steps": 2, "vectors": 2},
                    **{**SAMPLES, **WHERE},
                }
            },
            {"assemble": {"av": "{out}/rl", "ar": "{out}/rl", "out": pair}},
            {"testset": {"nla": pair, "corpus": "{prompts}", "bank": data, **WHERE}},
            {
                "eval": {
                    **{"nla": pair, "second_ar": "{out}/ar/last", "explanation_tokens": 12},
                    **{"json": pair + "/eval.json", "report": pair + "/report", **WHERE},
                }
            },
            {"export": {"nla": pair, "out": "{out}/exported", "format": "reference"}},
            {
                "eval": {
                    **{"nla": "{out}/exported/pair-av", "explanation_tokens": 12, "show": 0},
                    **{"json": "{out}/exported.json", **WHERE},
                }
            },
        ],
    }


def _prompts(path: Path) -> Path:
    lines = [
        {
            "id": f"p{i}",
            "category": "facts",
            "title": f"Foxes {i}",
            "tags": [],
            "messages": [{"role": "user", "content": " ".join(WORDS[i : i + 12])}],
        }
        for i in range(3)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_config_leads_from_text_to_the_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_base(tmp_path / "base")
    corpus, prompts = write_corpus(tmp_path / "text.jsonl"), _prompts(tmp_path / "prompts.jsonl")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(_config(tmp_path)), encoding="utf-8")
    out = tmp_path / "run"
    steps = plan(str(tmp_path / "mine.yaml"), out=out, corpus=str(corpus), prompts=[str(prompts)])
    for step in steps:
        assert main(list(step.argv)) == 0, step.line

    figures = json.loads((out / "pair" / "eval.json").read_text())
    assert figures["n"] == 12
    assert figures["target"] == "base"
    assert "second_ar_difference" in figures
    assert (out / "pair" / "report" / "report.md").is_file()
    # What was exported is the same pair to whoever reads it: full weights score what LoRA scores.
    exported = json.loads((out / "exported.json").read_text())
    for name in ("fve", "fve_gold", "rawvar", "centred_cosine"):
        assert exported[name] == pytest.approx(figures[name], abs=1e-5)

    run = ["run", "--nla", str(out / "pair"), "--corpus", str(prompts), "--out", str(out / "shown")]
    small = ["--max-new-tokens", "4", "--explanation-tokens", "8", "--dtype", "float32"]
    assert main([*run, *small]) == 0
    dataset = Dataset.open(out / "shown")
    assert dataset.manifest.pair["pair_id"] == find_pair(out / "pair").pair_id
    monkeypatch.setenv("NLA_DATA", str(out / "shown"))
    app = AppTest.from_file(str(APP), default_timeout=60).run()
    assert not app.exception
    shown = "\n".join(element.value for element in app.get("html"))
    assert "Foxes" in shown
    assert "What the model represents here" in shown
