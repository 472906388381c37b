"""A tiny pair from recorded test set to figures, readings and report, as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from nla_core.metrics import mse_nrm, scale_to_sqrt_d
from nla_core.models.checkpoints import Resolved
from nla_core.models.pair import REFERENCE_FILE, Reference, find_pair, load_pair
from nla_core.models.reconstructor import HEAD_FILE
from nla_core.models.verbalizer import Verbalization
from nla_core.schema import Finish
from precompute.cli import main
from precompute.eval import verbalize_all
from precompute.evaluation.best_of import best_of, candidates
from precompute.evaluation.floors import TAIL_LENGTHS, bank_floors, opening_ids, tail_errors
from precompute.evaluation.measure import evaluate
from precompute.evaluation.report import render
from precompute.testset import FOLDER, TestSet
from precompute.train.examples import Examples
from precompute.train.record import finish, target_sha256
from tests.tiny import D_MODEL, LAYER, TEXT, tiny_pair

WORDS = TEXT.split()
N_PROMPTS, PER_PROMPT = 8, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pair with its recorded test set; ``bank`` beside it."""
    root = tmp_path_factory.mktemp("eval")
    pair = tiny_pair(root)
    prompts = [
        {
            "id": f"p{i}",
            "category": "even" if i % 2 == 0 else "odd",
            "title": f"t{i}",
            "tags": [],
            "messages": [{"role": "user", "content": " ".join(WORDS[i : i + 18])}],
        }
        for i in range(N_PROMPTS)
    ]
    (root / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)), encoding="utf-8")
    torch.manual_seed(0)
    for split in ("ar", "av"):
        rows = pd.DataFrame({"token_id": [i % 300 for i in range(40)]})
        Examples(rows, torch.randn(40, D_MODEL).half()).save(root / "bank" / split)
    base = Resolved(str(root / "base"), root / "base", None)
    finish(root / "bank", {"target": {"sha256": target_sha256(base)}, "layer": LAYER}, {})
    testset = ["testset", "--nla", str(pair), "--corpus", str(root / "prompts.jsonl")]
    testset += ["--bank", str(root / "bank"), "--per-prompt", str(PER_PROMPT)]
    assert main([*testset, "--device", "cpu", "--dtype", "float32"]) == 0
    return pair


@pytest.fixture(scope="module")
def loaded(folder: Path):
    return load_pair(find_pair(folder), device="cpu", dtype="float32")


def _eval(folder: Path, *more: str) -> list[str]:
    arguments = ["eval", "--nla", str(folder), "--device", "cpu", "--dtype", "float32"]
    return [*arguments, "--explanation-tokens", "10", "--show", "1", *more]


def test_the_set_holds_all_that_is_measured_on(folder: Path, loaded) -> None:
    tests = TestSet.load(folder / FOLDER)
    assert len(tests.rows) == len(tests.hidden) == N_PROMPTS * PER_PROMPT
    assert tests.bank_n == 80
    assert set(tests.floors) == {"last_token", "nearest_1", "nearest_8"}
    assert tuple(sorted(tests.tails)) == TAIL_LENGTHS
    for errors in [*tests.floors.values(), *tests.tails.values()]:
        assert errors.shape == (len(tests.rows),)
        assert bool((errors >= 0).all())
    assert set(tests.rows["role"]) <= {"user", "assistant"}
    row = tests.rows.iloc[0]
    assert len(row["token_ids"]) == row["position"] + 1
    assert row["context"] == loaded.tokenizer.decode(row["token_ids"])
    traces = loaded.target.trace([list(row["token_ids"])])
    assert loaded.tokenizer.decode([int(traces[0].top_ids[-1, 0])]) == row["top_tokens"][0]
    # What an answer really goes on with is what a greedy target finds likeliest.
    answers = tests.rows[(tests.rows["role"] == "assistant") & tests.rows["next_token"].notna()]
    assert len(answers) > 0
    assert all(r.next_token == r.top_tokens[0] for r in answers.itertuples())


def test_re_reading_more_than_there_is_gives_the_vector_itself(loaded) -> None:
    ids = loaded.tokenizer(" ".join(WORDS[:12]))["input_ids"][:12]
    hidden = loaded.target.trace([ids])[0].hidden[-1:]
    errors = tail_errors(loaded.target, [ids], hidden)
    assert float(errors[16]) < 1e-6
    assert float(errors[1]) > 1e-3
    alone = loaded.target.trace([ids[-2:]])[0].hidden[-1:]
    torch.testing.assert_close(errors[2], mse_nrm(alone, hidden))


def test_a_text_begins_with_what_the_tokenizer_puts_there(loaded) -> None:
    assert opening_ids(loaded.tokenizer) == []

    def with_bos(text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [1, 7] if add_special_tokens else [7]}

    assert opening_ids(with_bos) == [1]


def test_floors_by_hand() -> None:
    bank = torch.eye(4) * 3
    hidden = torch.tensor([[5.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    floors = bank_floors(hidden, [7, 9], bank, [7, 8, 8, 8])
    # The nearest is the vector itself; of eight wanted, the bank has four: their mean.
    torch.testing.assert_close(floors["nearest_1"], torch.zeros(2), atol=1e-6, rtol=0)
    mean_cosine = 0.5
    torch.testing.assert_close(floors["nearest_8"], torch.full((2,), 2 * (1 - mean_cosine)))
    # Token 7 has one vector, the right one; token 9 has none and gets the mean of all.
    torch.testing.assert_close(floors["last_token"], torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0)


def test_eval_writes_figures_readings_and_report(folder: Path, tmp_path: Path) -> None:
    outs = ["--json", str(tmp_path / "eval.json"), "--readings", str(tmp_path / "r" / "r.parquet")]
    outs += ["--report", str(tmp_path / "report"), "--best-of", "3", "--temperature", "0.7"]
    outs += ["--second-ar", str(folder)]
    assert main(_eval(folder, *outs)) == 0
    figures = json.loads((tmp_path / "eval.json").read_text())
    assert figures["ok"] is True
    assert figures["n"] == 24
    assert figures["documents"] == N_PROMPTS
    # The second AR is the first one here: it agrees, on every lane it judges.
    assert figures["second_ar_difference"] == pytest.approx(0, abs=1e-5)
    assert figures["best_of_second_ar_fve"] == pytest.approx(figures["best_of_fve"], abs=1e-5)
    assert figures["best_of_fve"] > figures["best_of_single_fve"]
    assert figures["best_of_n"] == 3
    assert set(figures["controls"]) == {
        "empty", "random_words", "shuffled_words", "another_explanation", "without_quotes",
        "only_quotes",
    }  # fmt: skip
    assert figures["shuffled"] == figures["controls"]["another_explanation"]
    assert figures["fve_ci"]["low"] <= figures["fve"] <= figures["fve_ci"]["high"]
    assert set(figures["tail_k"]) == {"1", "2", "4", "8", "16"}
    assert figures["rank_same_document_chance"] == pytest.approx(1 / PER_PROMPT)
    assert figures["quote_precision_gold"] == 1.0
    assert figures["next_hit_top1_gold"] == 1.0
    for key in ("by_position", "by_category", "by_role"):
        groups = figures[key].values()
        assert sum(g["n"] for g in groups) == 24
        assert sum(g["n"] * g["fve"] for g in groups) / 24 == pytest.approx(figures["fve"])
    assert sum(figures["histogram"]["counts"]) == 24
    assert "rank_at_1_500" not in figures
    assert "500" in figures["left_out"]["rank_at_1_500"]

    readings = pd.read_parquet(tmp_path / "r" / "r.parquet")
    assert len(readings) == 24
    assert readings["fve"].mean() == pytest.approx(figures["fve"], abs=1e-5)
    assert readings["fve_gold"].mean() == pytest.approx(figures["fve_gold"], abs=1e-5)
    assert readings["norm_pct"].between(0, 100).all()
    assert (readings["rank"] == 1).mean() == pytest.approx(figures["rank_at_1"])
    assert set(readings["finish"]) <= {"closed", "cut"}

    written = {p.name: p.read_text() for p in (tmp_path / "report").iterdir()}
    assert written == render(figures)
    for text in written.values():
        assert str(tmp_path) not in text
        assert str(folder.parent) not in text
    assert str(folder.parent) not in (tmp_path / "eval.json").read_text()


def test_a_set_of_an_older_version_says_what_it_lacks(folder: Path, tmp_path: Path, loaded) -> None:
    old = tmp_path / "pair"
    shutil.copytree(folder, old)
    tests = TestSet.load(folder / FOLDER)
    rows = tests.rows.drop(columns=["role", "next_token"])
    rows.to_parquet(old / FOLDER / "items.parquet")
    predicted = torch.randn(24, D_MODEL)  # older sets hold the vectors that a floor predicts
    save_file(
        {"hidden": tests.hidden.half(), "floor.last_token": predicted.half()},
        old / FOLDER / "vectors.safetensors",
        {"bank_n": "80"},
    )
    assert main(_eval(old, "--json", str(tmp_path / "e.json"))) == 0
    figures = json.loads((tmp_path / "e.json").read_text())
    error = float(mse_nrm(predicted.half(), tests.hidden).mean())
    assert figures["last_token"] == pytest.approx(1 - error / loaded.pair.rawvar, abs=1e-4)
    missing = {"by_role", "nearest_1", "nearest_8", "tail_k", "worth_k_tokens", "next_hit_real"}
    assert missing <= set(figures["left_out"])
    assert not missing & set(figures)
    assert "record it again" in figures["left_out"]["tail_k"]


def test_figures_of_known_texts(folder: Path, loaded) -> None:
    """Gold labels as explanations: the loop scores what gold scores, and quotes are true."""
    tests = TestSet.load(folder / FOLDER)
    texts = [
        Verbalization(i, label, Finish.CUT if i < 6 else Finish.CLOSED, 10)
        for i, label in enumerate(tests.rows["label"])
    ]
    figures = evaluate(loaded.pair, tests, texts, loaded.reconstructor).figures
    assert figures["fve"] == figures["fve_gold"]
    assert figures["cut_rate"] == 0.25
    assert figures["mean_tokens"] == 10
    assert figures["quote_precision"] == figures["next_hit_top1"] == 1.0
    assert figures["mean_characters"] == tests.rows["label"].str.len().mean()
    assert "second_ar_fve" not in figures
    reference = Reference.load(folder / REFERENCE_FILE)
    true = scale_to_sqrt_d(tests.hidden)
    by_hand = (true - scale_to_sqrt_d(reference.mean[None])).square().mean()
    assert figures["mean"] == pytest.approx(1 - float(by_hand) / reference.rawvar, abs=1e-5)


def test_texts_without_any_claims_leave_their_figures_out(folder: Path, loaded) -> None:
    tests = TestSet.load(folder / FOLDER).head(6)
    texts = [Verbalization(i, "plain", Finish.CLOSED, 1) for i in range(6)]
    figures = evaluate(loaded.pair, tests, texts, loaded.reconstructor).figures
    assert {"quote_precision", "next_hit_top1", "next_hit_real"} <= set(figures["left_out"])
    assert "quote_precision" not in figures
    assert figures["next_named"] == 0.0
    assert figures["duplicate_rate"] == pytest.approx(5 / 6)


def test_best_of_keeps_each_vectors_best_and_the_second_judges_it() -> None:
    true = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    vectors = {"right": [1.0, 0.0], "up": [0.0, 1.0], "between": [1.0, 1.0]}
    texts = ["between", "right", "right", "between"]
    samples = [Verbalization(i, t, Finish.CLOSED, 1) for i, t in enumerate(texts)]
    rows, seeds = candidates(true, 2)
    assert rows.tolist() == [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    assert seeds == [0, 1, 0, 1]

    def reconstruct(some):
        return torch.tensor([vectors[t] for t in some])

    def second(some):
        return torch.tensor([vectors["up"]] * len(some))

    found = best_of(
        samples, true, n=2, temperature=1.0, rawvar=1.0, reconstruct=reconstruct, second=second
    )
    between = 2 * (1 - 0.5**0.5)
    assert found["best_of_fve"] == pytest.approx(1 - (0 + between) / 2, abs=1e-6)
    assert found["best_of_single_fve"] == pytest.approx(1 - (2 * between + 0 + 2) / 4, abs=1e-6)
    assert found["best_of_second_ar_fve"] == pytest.approx(1 - (2 + 0) / 2, abs=1e-6)
    assert found["best_of_single_second_ar_fve"] == pytest.approx(0.0, abs=1e-6)
    alone = best_of(
        samples, true, n=2, temperature=1.0, rawvar=1.0, reconstruct=reconstruct, second=None
    )
    assert "best_of_second_ar_fve" not in alone


def test_samples_of_best_of_differ_and_repeat(folder: Path, loaded) -> None:
    vectors, seeds = candidates(TestSet.load(folder / FOLDER).hidden[:2], 3)

    def sampled() -> list[str]:
        found = verbalize_all(loaded, vectors, max_new_tokens=8, seeds=seeds, temperature=1.0)
        return [v.text for v in found]

    texts = sampled()
    assert len(set(texts[:3])) > 1
    assert sampled() == texts


def test_an_ar_of_another_layer_is_no_judge(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "ar"
    shutil.copytree(folder / "ar", other)
    sidecar = other / "nla_meta.yaml"
    text = sidecar.read_text()
    assert "extraction_layer_index: 2" in text
    sidecar.write_text(text.replace("extraction_layer_index: 2", "extraction_layer_index: 1"))
    assert main(_eval(folder, "--second-ar", str(other))) == 2
    assert "--second-ar" in capsys.readouterr().err
    assert main(_eval(folder, "--second-ar", str(folder / "av"))) == 2


def test_another_ar_scores_differently(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "ar"
    shutil.copytree(folder / "ar", other)
    torch.manual_seed(1)
    save_file({"weight": torch.randn(D_MODEL, D_MODEL)}, other / HEAD_FILE)
    out = tmp_path / "e.json"
    assert main(_eval(folder, "--second-ar", str(other), "--json", str(out), "--limit", "9")) == 0
    figures = json.loads(out.read_text())
    assert figures["n"] == 9
    difference = figures["fve"] - figures["second_ar_fve"]
    assert abs(difference) > 1e-3
    assert figures["second_ar_difference"] == pytest.approx(difference)


@pytest.mark.parametrize("flag", [["--best-of", "0"], ["--limit", "0"], ["--temperature", "-1"]])
def test_numbers_that_make_no_sense_are_refused(
    folder: Path, flag: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_eval(folder, *flag)) == 2
    assert flag[0] in capsys.readouterr().err
