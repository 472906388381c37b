"""Expert iteration keeps what the AR gets back from best, and goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from precompute.cli import main
from precompute.train.examples import Examples
from precompute.train.expert import Choice, repetition, select, unfound

pytestmark = pytest.mark.unit


def _expert(toy: Path, out: Path, *more: str, json_to: Path | None = None) -> int:
    result = [] if json_to is None else ["--json", str(json_to)]
    arguments = [
        "train",
        *result,
        "expert",
        "--av",
        str(toy / "av"),
        "--ar",
        str(toy / "ar" / "last"),
    ]
    files = ["--data", str(toy / "data"), "--out", str(out)]
    how = ["--samples", "3", "--explanation-tokens", "16", "--batch-size", "48"]
    return main([*arguments, *files, *how, "--device", "cpu", "--dtype", "float32", *more])


def _chunks(out: Path) -> pd.DataFrame:
    files = sorted((out / "chunks").glob("*.parquet"))
    return pd.concat([pd.read_parquet(f) for f in files], ignore_index=True)


@pytest.fixture(scope="module")
def whole(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("expert") / "whole"
    assert _expert(toy, out, "--repetition", "0", json_to=out.with_suffix(".json")) == 0
    return out


def test_the_best_sample_of_each_vector_is_its_label(toy: Path, whole: Path) -> None:
    samples, kept = _chunks(whole), Examples.load(whole / "av")
    source = Examples.load(toy / "data" / "rl")
    assert len(samples) == 3 * len(source.rows)
    assert (samples["finish"] == "closed").mean() > 0.5
    usable = samples[(samples["finish"] == "closed") & (samples["text"] != "")]
    least = usable.groupby("row")["mse_nrm"].min()
    assert len(kept.rows) == len(least)
    assert kept.rows["mse_nrm"].tolist() == pytest.approx(least.tolist())
    rows = least.index.tolist()
    assert torch.equal(kept.hidden, source.hidden[rows])
    assert kept.rows["teacher_label"].tolist() == source.rows["label"].iloc[rows].tolist()
    texts = set(zip(usable["row"], usable["text"], strict=True))
    assert all(pair in texts for pair in zip(rows, kept.rows["label"], strict=True))


def test_figures_say_that_choosing_helps(whole: Path) -> None:
    figures = json.loads(whole.with_suffix(".json").read_text())
    assert figures["fve_best"] > figures["fve_samples"]
    assert figures["vectors"] == 70


def test_an_interrupted_run_ends_with_the_same_texts(
    toy: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "broken"
    assert _expert(toy, out, "--minutes", "0") == 0
    assert len(_chunks(out)) == 48
    before = {f.name: f.stat().st_mtime_ns for f in (out / "chunks").iterdir()}
    assert _expert(toy, out) == 0
    after = {f.name: f.stat().st_mtime_ns for f in (out / "chunks").iterdir()}
    assert before.items() <= after.items()
    pd.testing.assert_frame_equal(_chunks(out), _chunks(whole))


def test_other_samples_are_chosen_without_sampling_again(toy: Path, whole: Path) -> None:
    times = [f.stat().st_mtime_ns for f in sorted((whole / "chunks").iterdir())]
    assert _expert(toy, whole, "--keep", "all") == 0
    assert [f.stat().st_mtime_ns for f in sorted((whole / "chunks").iterdir())] == times
    best, every = (Examples.load(whole / role) for role in ("av", "ar"))
    assert len(every.rows) > len(best.rows)
    assert len(every.rows) == len(every.hidden)
    assert not every.rows.duplicated(["doc_id", "label"]).any()


def test_the_chosen_texts_can_be_trained_on(toy: Path, whole: Path, tmp_path: Path) -> None:
    for role in ("av", "ar"):
        arguments = ["train", role, "--data", str(whole), "--out", str(tmp_path / role)]
        size = ["--steps", "2", "--batch-size", "8", "--rank", "2", "--layer", "2"]
        where = ["--target", str(toy / "base"), "--device", "cpu", "--dtype", "float32"]
        assert main([*arguments, *size, *where]) == 0


def test_samples_of_another_run_are_refused(
    toy: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "copy")
    assert _expert(toy, tmp_path / "copy", "--temperature", "0.5") == 2
    assert "differs in temperature" in capsys.readouterr().err


def test_both_halves_must_be_named(toy: Path, tmp_path: Path) -> None:
    arguments = ["train", "expert", "--av", str(toy / "av"), "--data", str(toy / "data")]
    assert main([*arguments, "--out", str(tmp_path)]) == 2


def test_cut_and_empty_texts_and_small_gains_are_left_out() -> None:
    table = pd.DataFrame(
        [
            (0, 0, "cut but close", "cut", 0.1),
            (0, 1, "a", "closed", 0.5),
            (0, 2, "b", "closed", 0.3),
            (1, 0, "", "closed", 0.0),
            (1, 1, "c", "closed", 0.40),
            (1, 2, "d", "closed", 0.38),
            (2, 0, "e", "cut", 0.2),
        ],
        columns=["row", "sample", "text", "finish", "mse_nrm"],
    ).assign(context="")
    assert select(table, Choice(repetition=0), 0.5)["text"].tolist() == ["b", "d"]
    # Gains over the group's mean, in FVE: 0.1 / 0.5 = 0.2 and 0.01 / 0.5 = 0.02.
    assert select(table, Choice(margin=0.1, repetition=0), 0.5)["text"].tolist() == ["b"]


def test_of_texts_that_score_alike_the_one_that_says_more_is_kept() -> None:
    assert repetition("a b c") == repetition("") == 0.0
    assert repetition("Next: The / the / THE.") == 0.5
    table = pd.DataFrame(
        [(0, 0, "rain / rain", "closed", 0.30), (0, 1, "rain / snow", "closed", 0.32)],
        columns=["row", "sample", "text", "finish", "mse_nrm"],
    ).assign(context="")
    # The repeated word costs 0.3 * 1/2 of FVE; the better vector is worth 0.02 / 0.5.
    assert select(table, Choice(repetition=0.3), 0.5)["text"].tolist() == ["rain / snow"]
    assert select(table, Choice(repetition=0.0), 0.5)["text"].tolist() == ["rain / rain"]


def test_of_texts_that_score_alike_the_one_that_quotes_what_is_there_is_kept() -> None:
    assert unfound("At rest. No quotation.", "rest") == 0.0
    assert unfound('At "The rain" and "a sun". Next: "sun" / snow.', "after the rain") == 0.5
    table = pd.DataFrame(
        [(0, 0, 'At "a sun".', "closed", 0.30), (0, 1, 'At "the rain".', "closed", 0.35)],
        columns=["row", "sample", "text", "finish", "mse_nrm"],
    ).assign(context="after the rain")
    # The made-up quotation costs 0.2 of FVE; the better vector is worth 0.05 / 0.5.
    assert select(table, Choice(unfound=0.2), 0.5)["text"].tolist() == ['At "the rain".']
    assert select(table, Choice(unfound=0.0), 0.5)["text"].tolist() == ['At "a sun".']
