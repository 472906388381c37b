"""A pair for a tiny model, from text to figures, through the same commands a user runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import readings
from nla_core.errors import NLAError
from nla_core.explain import Explainer
from precompute.cli import main
from precompute.train.corpus import SPLITS, split_of
from precompute.train.examples import Examples
from precompute.train.sources import load_documents
from precompute.train.tasks import ReconstructorTask
from tests.tiny import MARKER, TEXT, tiny_base

WORDS = TEXT.split()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny target, a corpus, and its prepared examples."""
    root = tmp_path_factory.mktemp("train")
    tiny_base(root / "base")
    documents = [
        {
            "doc_id": f"d{i}",
            "source": "even" if i % 2 else "odd",
            "text": " ".join(WORDS[(i * 7 + k * 3) % 30] for k in range(40))
            + "\n\n"
            + " ".join(WORDS[(i * 5 + k) % 30] for k in range(40)),
        }
        for i in range(120)
    ]
    (root / "text.jsonl").write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    assert main(_data(root)) == 0
    return root


def _data(root: Path) -> list[str]:
    arguments = ["train", "data", "--corpus", str(root / "text.jsonl"), "--out", str(root / "data")]
    sizes = ["--ar-windows", "8", "--av-windows", "8", "--val-windows", "4", "--rl-windows", "4"]
    sizes += ["--max-tokens", "48"]
    return [*arguments, *sizes, *_model(root)]


def _model(root: Path) -> list[str]:
    return ["--target", str(root / "base"), "--layer", "2", "--device", "cpu", "--dtype", "float32"]


def _train(root: Path, role: str, out: str, steps: int, *more: str) -> int:
    arguments = ["train", role, "--data", str(root / "data"), "--out", str(root / out)]
    settings = ["--steps", str(steps), "--batch-size", "8", "--rank", "2", "--lr", "1e-2"]
    marker = ["--marker", MARKER, "--injection-scale", "20"]
    return main([*arguments, *settings, *marker, *more, *_model(root)])


def _log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_splits_share_no_document(prepared: Path) -> None:
    documents = load_documents(prepared / "text.jsonl")
    counts = {name: sum(split_of(d.doc_id) == name for d in documents) for name in SPLITS}
    assert sum(counts.values()) == len(documents)
    ids = [set(Examples.load(prepared / "data" / s).rows["doc_id"]) for s in ("ar", "av", "val")]
    assert not ids[0] & ids[1]
    assert not (ids[0] | ids[1]) & ids[2]


def test_examples_pair_a_label_with_its_vector(prepared: Path) -> None:
    examples = Examples.load(prepared / "data" / "ar")
    assert len(examples.rows) == len(examples.hidden) > 20
    assert examples.hidden.dtype == torch.float16
    assert examples.rows["label"].str.contains("Text: ").all()


def test_resumed_run_ends_where_an_undisturbed_one_does(prepared: Path) -> None:
    assert _train(prepared, "av", "whole", 8) == 0
    assert _train(prepared, "av", "broken", 8, "--minutes", "0") == 0
    state = json.loads((prepared / "broken/last/state.json").read_text())
    assert state["step"] == 1
    assert _train(prepared, "av", "broken", 8) == 0
    whole, broken = (
        load_file(prepared / name / "last/adapter_model.safetensors")
        for name in ("whole", "broken")
    )
    for name, tensor in whole.items():
        torch.testing.assert_close(broken[name], tensor)


def test_other_settings_in_the_same_folder_are_refused(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(prepared, "ar", "settings", 2) == 0
    assert _train(prepared, "ar", "settings", 5) == 2
    assert "other settings" in capsys.readouterr().err


def test_an_ar_trained_on_parts_of_labels(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[str] = []
    loss = ReconstructorTask.loss

    def spying(task: ReconstructorTask, hidden: torch.Tensor, labels: list[str]) -> torch.Tensor:
        read.extend(labels)
        return loss(task, hidden, labels)

    monkeypatch.setattr(ReconstructorTask, "loss", spying)
    whole = set(Examples.load(prepared / "data" / "ar").rows["label"])
    assert _train(prepared, "ar", "whole-labels", 3) == 0
    assert set(read) <= whole
    assert "drop_parts" not in (prepared / "whole-labels/last/state.json").read_text()
    read.clear()
    assert _train(prepared, "ar", "parts", 3, "--drop-parts", "0.5", "--minutes", "0") == 0
    assert _train(prepared, "ar", "parts", 3, "--drop-parts", "0.5") == 0
    assert all(read)
    assert len(set(read) - whole) > len(read) / 2
    resumed = list(read)
    read.clear()
    assert _train(prepared, "ar", "parts-again", 3, "--drop-parts", "0.5") == 0
    assert read == resumed
    assert _train(prepared, "ar", "parts", 3, "--drop-parts", "0.4") == 2
    assert "other settings" in capsys.readouterr().err
    assert _train(prepared, "ar", "wrong", 3, "--drop-parts", "1") == 2
    assert "--drop-parts is 1" in capsys.readouterr().err


@pytest.mark.parametrize(("figures", "kept"), [((2.0, 1.0), "last"), ((1.0, 2.0), "earlier")])
def test_the_best_on_validation_is_kept(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, figures: tuple[float, float], kept: str
) -> None:
    values = iter(figures)

    def validate(*_: object) -> dict[str, float]:
        return {"mse_nrm": next(values)}

    monkeypatch.setattr("precompute.train.tasks.ReconstructorTask.validate", validate)
    out = f"best-{kept}"
    assert _train(prepared, "ar", out, 4, "--validate-every", "2") == 0
    best, last = (
        load_file(prepared / out / name / "adapter_model.safetensors") for name in ("best", "last")
    )
    same = all(torch.equal(best[name], tensor) for name, tensor in last.items())
    assert same == (kept == "last")
    assert (prepared / out / "best" / "value_head.safetensors").is_file()


def test_training_lowers_the_loss_and_the_pair_works(prepared: Path) -> None:
    assert _train(prepared, "ar", "ar", 40, "--validate-every", "10") == 0
    assert _train(prepared, "av", "av", 40, "--validate-every", "10") == 0
    logs = {role: _log(prepared / role) for role in ("ar", "av")}
    assert logs["ar"][-1]["mse_nrm"] < logs["ar"][0]["mse_nrm"]
    assert logs["av"][-1]["real"] < logs["av"][0]["real"]

    pair = prepared / "my-pair"
    assert (
        main(
            ["train", "assemble", "--ar", str(prepared / "ar"), "--av", str(prepared / "av")]
            + ["--out", str(pair), "--checkpoint", "best"]
        )
        == 0
    )
    prompts = prepared / "prompts.jsonl"
    prompts.write_text(
        "\n".join(
            json.dumps(
                {
                    "id": f"p{i}",
                    "category": "facts",
                    "title": f"t{i}",
                    "tags": [],
                    "messages": [{"role": "user", "content": " ".join(WORDS[i : i + 15])}],
                }
            )
            for i in range(8)
        ),
        encoding="utf-8",
    )
    testset = ["testset", "--nla", str(pair), "--corpus", str(prompts)]
    assert main([*testset, "--bank", str(prepared / "data"), "--dtype", "float32"]) == 0
    out = prepared / "eval.json"
    run = ["eval", "--nla", str(pair), "--dtype", "float32", "--explanation-tokens", "12"]
    assert main([*run, "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    wanted = {"fve", "fve_gold", "rawvar", "centred_cosine", "rank_at_1", "cut_rate", "distinct_3"}
    assert wanted | {"mean", "last_token", "nearest_1", "shuffled"} <= set(figures)
    assert figures["n"] == 32
    assert figures["target_agreement"] > 0.999
    explainer = Explainer.load(pair, device="cpu", dtype="float32")
    assert explainer.pair.target == str(prepared / "base")

    found = readings.main(
        ["--nla", str(pair), "--vectors", "5", "--dtype", "float32", "--device", "cpu",
         "--explanation-tokens", "8", "--rounds", "1", "--out", str(prepared / "record")]
    )  # fmt: skip
    assert found["figures"]["same_texts_batched"]["value"] == 100
    assert found["figures"]["same_texts_one_by_one"]["value"] == 100
    kept = json.loads((prepared / "record" / "readings-cpu.json").read_text(encoding="utf-8"))
    assert kept["figures"] == found["figures"]
    assert kept["machine"]["packages"]["torch"]


def test_a_split_without_documents_is_refused(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text('{"doc_id": "x", "text": "one"}\n', encoding="utf-8")
    arguments = _data(prepared)
    arguments[arguments.index("--corpus") + 1] = str(tmp_path / "text.jsonl")
    arguments[arguments.index("--out") + 1] = str(tmp_path / "out")
    assert main(arguments) == 2


@pytest.mark.parametrize("line", ["not json", '{"doc_id": 1}', "[]"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"doc_id": "a", "text": "b"}\n' + line, encoding="utf-8")
    with pytest.raises(NLAError, match="line 2"):
        load_documents(path)
