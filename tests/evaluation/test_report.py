"""The report is made of the figures alone, and says what was not measured."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from xml.etree import ElementTree

import pytest

from nla_core.errors import NLAError
from precompute.evaluation.plots import Bar, bars, curve, histogram
from precompute.evaluation.report import DEFINITIONS, render, write_report
from precompute.evaluation.targets import GOALS, verdicts

FIGURES = {
    "pair_id": "a-pair", "revision": "0123456789ab", "target": "a-target", "layer": 2, "n": 600,
    "documents": 150, "rawvar": 0.5, "reference_n": 600, "explanation_tokens": 80,
    "fve": 0.55, "fve_gold": 0.7, "fve_ci": {"low": 0.5, "high": 0.6}, "mse_nrm": 0.225,
    "fve_gold_ci": {"low": 0.65, "high": 0.75}, "centred_cosine": 0.8,
    "rank_at_1": 0.5, "rank_at_1_500": 0.52, "rank_median_500": 1,
    "rank_same_document": 0.9, "rank_same_document_chance": 0.25,
    "mean": -0.16, "last_token": 0.25, "nearest_1": 0.4, "nearest_8": 0.59, "bank_n": 36952,
    "controls": {
        "empty": -0.5, "random_words": -0.4, "shuffled_words": 0.1, "another_explanation": -0.6,
        "without_quotes": 0.2, "only_quotes": 0.3,
    },
    "shuffled": -0.6, "empty": -0.5,
    "by_position": {"20-31": {"n": 200, "fve": 0.6, "fve_gold": 0.7},
                    "32-63": {"n": 400, "fve": 0.5, "fve_gold": 0.7}},
    "by_category": {"a|b <c>": {"n": 600, "fve": 0.55, "fve_gold": 0.7}},
    "histogram": {"edges": [-1.0, 0.0, 1.0], "counts": [50, 550]},
    "tail_k": {"1": -1.0, "2": 0.1, "4": 0.4, "8": 0.6, "16": 0.8},
    "worth_k_tokens": 7.0, "worth_k_tokens_gold": 16.0,
    "cut_rate": 0.01, "distinct_3": 0.7, "duplicate_rate": 0.0, "mean_tokens": 31.4,
    "mean_characters": 99.0, "quotes_n": 500, "quotes_all_n": 900, "quote_precision": 0.61,
    "quote_precision_gold": 1.0, "quote_precision_another": 0.03, "quote_precision_all": 0.7,
    "next_named": 1.0, "next_hit_top1": 0.5, "next_hit_top5": 0.4,
    "left_out": {"second_ar_fve": "no second AR was given"},
}  # fmt: skip


def test_goals_are_judged_in_their_direction() -> None:
    found = {v.goal.figure: v for v in verdicts(FIGURES)}
    assert len(found) == len(GOALS) == 7
    assert found["fve"].short_by == 0.0
    assert found["rank_at_1_500"].short_by == pytest.approx(0.08)
    assert found["cut_rate"].short_by == found["shuffled"].short_by == 0.0
    assert found["second_ar_difference"].value is None
    worse = verdicts(FIGURES | {"shuffled": -0.3, "second_ar_difference": 0.11})
    short = {v.goal.figure: v.short_by for v in worse}
    assert short["shuffled"] == pytest.approx(0.2)
    assert short["second_ar_difference"] == pytest.approx(0.06)


def test_the_report_names_what_falls_short_and_what_is_missing() -> None:
    text = render(FIGURES)["report.md"]
    assert "| own vector first among 500 | 52.0 % | ≥ 60.0 % | no, short by 8.0 points |" in text
    assert "| own AR's FVE above a second AR's | not measured |" in text
    assert "5 of 6 goals that were measured are met; 1 not measured." in text
    assert "| `second_ar_fve` | no second AR was given |" in text
    assert "gold labels as much as 16 tokens or more" in text
    assert DEFINITIONS in text
    assert "## A second reconstructor" not in text
    assert "## Best of" not in text


def test_optional_parts_appear_when_measured() -> None:
    more = {
        "second_ar_fve": 0.5, "second_ar_difference": 0.05, "second_ar_fve_gold": 0.66,
        "second_ar_difference_gold": 0.04, "best_of_n": 4, "best_of_temperature": 1.0,
        "best_of_fve": 0.6, "best_of_single_fve": 0.4, "best_of_second_ar_fve": 0.52,
        "best_of_single_second_ar_fve": 0.38,
    }  # fmt: skip
    text = render(FIGURES | more)["report.md"]
    assert "| explanations | 0.550 | 0.500 | 0.050 |" in text
    assert "| the best by the own AR | 0.600 | 0.520 |" in text


def test_every_figure_survives_json() -> None:
    assert render(json.loads(json.dumps(FIGURES))) == render(deepcopy(FIGURES))


def test_pictures_are_linked_well_formed_and_described() -> None:
    files = render(FIGURES)
    text = files.pop("report.md")
    assert set(re.findall(r'<img src="([^"]+)"', text)) == set(files)
    for content in files.values():
        root = ElementTree.fromstring(content)
        texts = [node.text for node in root.iter() if node.text]
        assert root.find("{http://www.w3.org/2000/svg}desc").text
        assert "nan" not in " ".join(texts)
        assert "prefers-color-scheme:dark" in content
    assert "a|b <c> (600)" in [
        node.text for node in ElementTree.fromstring(files["by_category.svg"]).iter()
    ]
    assert "| a\\|b <c> | 600 |" in text


def test_a_report_without_tails_has_no_curve() -> None:
    figures = {k: v for k, v in FIGURES.items() if k not in ("tail_k", "worth_k_tokens")}
    files = render(figures)
    assert "tail.svg" not in files
    assert "tail.svg" not in files["report.md"]


def test_bars_are_as_long_as_their_values() -> None:
    svg = ElementTree.fromstring(bars("t", "d", [Bar("a", 0.2), Bar("b", 0.4), Bar("c", -0.2)]))
    widths = {node.get("class"): [] for node in svg.iter() if node.get("class") in ("bar", "below")}
    for node in svg.iter():
        if node.get("class") in widths:
            widths[node.get("class")].append(float(node.get("width")))
    assert widths["bar"][1] == pytest.approx(2 * widths["bar"][0], abs=0.2)
    assert widths["below"] == pytest.approx([widths["bar"][0]], abs=0.2)


def test_pictures_of_odd_figures_can_be_drawn() -> None:
    for svg in (
        bars("t", "d", [Bar("only", 0.0)]),
        bars("t", "d", [Bar("far off", -8.3, 0.5)], "gold"),
        curve("t", "d", {4: 0.1}, 0.1, "x", None),
        curve("t", "d", {1: -9.0, 16: 0.9}, 0.5, "x", 12.0),
        histogram("t", "d", [-1.0, 1.0], [0], 0.0),
    ):
        ElementTree.fromstring(svg)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NLAError, match="cannot be written"):
        write_report(FIGURES, tmp_path / "file")
    write_report(FIGURES, tmp_path / "new" / "report")
    assert (tmp_path / "new" / "report" / "report.md").is_file()
