"""Exported pairs: read by software that is not ours, and by ours again, with the same outcome."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from nla_core import metrics
from nla_core.errors import NLAError
from nla_core.models.families import FAMILIES as KNOWN
from nla_core.models.families import keep_blocks
from nla_core.models.pair import LoadedPair, find_pair, load_pair, pair_home
from nla_core.models.reconstructor import HEAD_FILE
from nla_core.models.sidecar import FILE_NAME
from nla_core.models.verbalizer import strip_tags
from precompute.cli import main
from precompute.export import folders, staging
from tests.precompute.conftest import prompt
from tests.precompute.reader import AR, AV
from tests.tiny import D_MODEL, LAYER, tiny_model, tiny_pair

LONG = 14
TEXTS = ["the fox", 'rain {falls} on "the" {{old}} bridge', "日本 🐇", ""]
VECTORS = torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(4)) + 0.2


def edit(folder: Path, **change: object) -> None:
    """Replace top-level keys of a sidecar; nested mappings are merged."""
    path = folder / FILE_NAME
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in change.items():
        document[key] = document[key] | value if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")


def with_adapters(pair: Path, family: str) -> None:
    """Replace the full weights of ``pair`` by random LoRA adapters on the base, and its head."""
    torch.manual_seed(11)
    for role, layers in (("av", 4), ("ar", LAYER + 1)):
        model = tiny_model(family)
        keep_blocks(model, layers)
        targets = list(KNOWN[family].lora_targets)
        model = get_peft_model(
            model, LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False)
        )
        for old in (pair / role).glob("*"):
            if old.name not in (FILE_NAME, HEAD_FILE):
                old.unlink()
        model.save_pretrained(pair / role)
    save_file({"weight": torch.randn(D_MODEL, D_MODEL)}, pair / "ar" / HEAD_FILE)


def export(pair: Path, out: Path, *more: str) -> int:
    return main(["export", "--nla", str(pair), "--out", str(out), "--format", "reference", *more])


def load(folder: Path) -> LoadedPair:
    return load_pair(find_pair(folder), device="cpu", dtype="float32")


def texts_of(loaded: LoadedPair) -> list[str]:
    found = loaded.verbalizer.verbalize(VECTORS, seeds=[0] * len(VECTORS), max_new_tokens=LONG)
    return [v.text for v in sorted(found, key=lambda v: v.row)]


@pytest.fixture(scope="module", params=["llama", "qwen2", "gemma3_text", "gemma3", "gpt2"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(source pair, folder it was exported to), LoRA on the base, no text begun for the AV."""
    root = tmp_path_factory.mktemp(request.param)
    pair = tiny_pair(root, request.param)
    edit(pair / "av", av_prefill="")
    with_adapters(pair, request.param)
    assert export(pair, root / "out") == 0
    return pair, root / "out"


def test_other_software_reads_the_same_texts(both: tuple[Path, Path]) -> None:
    pair, out = both
    av, expected = AV(out / "pair-av"), texts_of(load(pair))
    found = [strip_tags(av.generate(vector, LONG))[0] for vector in VECTORS]
    assert found == expected
    assert len(set(found)) > 1, "vectors must matter"


def test_other_software_rebuilds_the_same_vectors(both: tuple[Path, Path]) -> None:
    pair, out = both
    ar, expected = AR(out / "pair-ar"), load(pair).reconstructor.reconstruct(TEXTS)
    for text, vector in zip(TEXTS, expected, strict=True):
        found = ar.reconstruct(text)
        torch.testing.assert_close(found / found.norm(), vector / vector.norm(), atol=1e-5, rtol=0)
        for original in VECTORS:
            mse = float(metrics.mse_nrm(vector[None], original[None]))
            assert ar.mse(text, original) == pytest.approx(mse, abs=1e-5)
    assert not torch.allclose(expected[0], expected[1], atol=1e-2), "texts must matter"


def test_imported_again_the_scores_are_the_same(both: tuple[Path, Path]) -> None:
    pair, out = both
    before, after = load(pair), load(out / "pair-av")
    assert after.pair.pair_id == before.pair.pair_id
    assert after.pair.rawvar == before.pair.rawvar
    assert torch.equal(after.pair.reference.mean, before.pair.reference.mean)
    assert texts_of(after) == texts_of(before)
    scores = [
        metrics.mse_nrm(loaded.reconstructor.reconstruct(texts_of(loaded)), VECTORS)
        for loaded in (before, after)
    ]
    torch.testing.assert_close(scores[1], scores[0], atol=1e-5, rtol=0)


def test_the_folders_are_plain_and_whole(both: tuple[Path, Path]) -> None:
    _, out = both
    assert sorted(path.name for path in out.iterdir()) == ["pair-ar", "pair-av"]
    wanted = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    wanted |= {"tokenizer_config.json", "chat_template.jinja", "README.md", FILE_NAME}
    wanted |= {"reference.safetensors"}
    for role, more in (("av", set()), ("ar", {HEAD_FILE})):
        folder = out / f"pair-{role}"
        assert wanted | more <= {path.name for path in folder.iterdir()}
        assert not list(folder.glob("adapter*"))
        assert "quantization_config" not in (folder / "config.json").read_text()
        generation = json.loads((folder / "generation_config.json").read_text())
        assert not {"temperature", "top_k", "top_p", "do_sample"} & set(generation)
        assert str(out.parent) not in (folder / "config.json").read_text()
    config = AutoConfig.from_pretrained(out / "pair-ar")
    assert (config.num_hidden_layers, config.hidden_size) == (LAYER + 1, D_MODEL)
    assert load_file(out / "pair-ar" / HEAD_FILE)["weight"].shape == (D_MODEL, D_MODEL)
    with safe_open(out / "pair-ar/model.safetensors", "pt") as weights:
        assert not [key for key in weights.keys() if "vision" in key]  # noqa: SIM118


def test_the_loading_report_is_clean(
    both: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoModelForCausalLM

    for role in ("av", "ar"):
        _, info = AutoModelForCausalLM.from_pretrained(
            both[1] / f"pair-{role}", output_loading_info=True
        )
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    return tiny_pair(tmp_path)


def test_full_weights_a_base_without_chat_and_shards(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base/chat_template.jinja").unlink()
    edit(pair / "av", av_prefill="")
    for role in ("av", "ar"):
        edit(pair / role, tokens={"critic_suffix_ids": []})
    edit(pair / "ar", prompt_templates={"ar": "Summary: {explanation}"})
    monkeypatch.setattr(folders.save_model, "__kwdefaults__", {"shard_size": "40KB"})
    before, expected = load(pair), texts_of(load(pair))
    assert export(pair, tmp_path / "out") == 0
    av, ar = (tmp_path / "out" / f"pair-{role}" for role in ("av", "ar"))
    assert len(list(av.glob("model-*-of-*.safetensors"))) > 1
    assert "critic_suffix_ids" not in (ar / FILE_NAME).read_text()
    assert [strip_tags(AV(av).generate(v, LONG))[0] for v in VECTORS] == expected
    assert texts_of(load(av)) == expected
    torch.testing.assert_close(
        AR(ar).reconstruct("a fox"), before.reconstructor.reconstruct(["a fox"])[0],
        atol=1e-4, rtol=1e-5,
    )  # fmt: skip


def test_braces_and_other_names_of_the_vector_are_made_portable(pair: Path, tmp_path: Path) -> None:
    edit(pair / "av", av_prefill="", prompt_templates={"av": "{a} } <concept>{vector}</concept>"})
    edit(pair / "ar", prompt_templates={"ar": "{ {x}: <text>{explanation}</text> <summary>"})
    assert export(pair, tmp_path / "out") == 0
    av, ar = (tmp_path / "out" / f"pair-{role}" for role in ("av", "ar"))
    written = yaml.safe_load((av / FILE_NAME).read_text())["prompt_templates"]
    assert written["av"] == "{{a}} }} <concept>{injection_char}</concept>"
    assert written["ar"] == "{{ {{x}}: <text>{explanation}</text> <summary>"
    expected = load(pair)
    assert [strip_tags(AV(av).generate(v, LONG))[0] for v in VECTORS] == texts_of(expected)
    assert texts_of(load(av)) == texts_of(expected)
    vectors = expected.reconstructor.reconstruct(TEXTS)
    torch.testing.assert_close(load(av).reconstructor.reconstruct(TEXTS), vectors)
    torch.testing.assert_close(AR(ar).reconstruct(TEXTS[1]), vectors[1], atol=1e-4, rtol=1e-5)


def test_an_av_that_needs_its_answer_begun_is_said_to(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "export.json"
    assert export(pair, tmp_path / "out", "--json", str(result)) == 0
    assert json.loads(result.read_text())["writes_prefill"] == 0.0  # random weights
    assert "by itself for 0%" in capsys.readouterr().out
    assert "Begin its answer with" in (tmp_path / "out/pair-av/README.md").read_text()
    assert texts_of(load(tmp_path / "out/pair-av")) == texts_of(load(pair))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smaller_formats(pair: Path, tmp_path: Path, dtype: str) -> None:
    assert export(pair, tmp_path / "out", "--dtype", dtype) == 0
    weights = load_file(tmp_path / "out/pair-av/model.safetensors")
    assert {w.dtype for w in weights.values()} == {getattr(torch, dtype)}
    assert load(tmp_path / "out/pair-av").pair.layer == LAYER


def test_weights_too_large_for_a_format_are_refused(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pair / "av/model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][0] = 1e6
    save_file(weights, path, metadata={"format": "pt"})
    assert export(pair, tmp_path / "out", "--dtype", "float16") == 2
    assert "too large for torch.float16" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_raw_vectors_are_refused(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(pair / "av", extraction={"injection_scale": "raw"})
    assert export(pair, tmp_path / "out") == 2
    assert "raw vectors" in capsys.readouterr().err


def test_the_card_holds_what_was_measured_and_nothing_else(pair: Path, tmp_path: Path) -> None:
    assert export(pair, tmp_path / "bare") == 0
    for role in ("av", "ar"):
        assert "No measurement" in (tmp_path / f"bare/pair-{role}/README.md").read_text()
    figures = {"fve": 0.4567, "n": 12, "revision": find_pair(pair).revision}
    (pair / "eval.json").write_text(json.dumps(figures))
    (pair / "README.md").write_text("# My pair\n\nMade with care.\n```\n# no heading\n```\n")
    assert export(pair, tmp_path / "out") == 0
    card = (tmp_path / "out/pair-av/README.md").read_text()
    assert "| FVE of the whole loop (AV text, AR vector) | 0.457 |" in card
    assert "rank" not in card
    assert "## My pair\n\nMade with care.\n```\n# no heading\n```" in card
    again = tmp_path / "again"
    assert export(tmp_path / "out/pair-av", again) == 0
    text = (again / "pair-av/README.md").read_text()
    assert text.count("Made with care.") == 1
    assert "0.457" in text
    assert "not the one exported here" in text


def test_an_export_is_replaced_only_by_force_and_nothing_else_is(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export(pair, out) == 0
    (out / "pair-av/mine.txt").write_text("x")
    assert export(pair, out) == 2
    assert "--force" in capsys.readouterr().err
    assert (out / "pair-av/mine.txt").exists()
    assert export(pair, out, "--force") == 0
    assert not (out / "pair-av/mine.txt").exists()
    assert sorted(path.name for path in out.iterdir()) == ["pair-ar", "pair-av"]
    (out / "pair-ar" / FILE_NAME).unlink()
    assert export(pair, out, "--force") == 2
    assert "no exported pair" in capsys.readouterr().err
    assert export(out / "pair-av", out, "--force") == 2


def test_a_pair_is_not_exported_onto_itself(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(pair, tmp_path / "out") == 0
    assert export(tmp_path / "out/pair-av", tmp_path / "out", "--force") == 2
    assert "holds the pair itself" in capsys.readouterr().err
    assert AV(tmp_path / "out/pair-av").d_model == D_MODEL


def test_a_failure_in_the_middle_leaves_the_earlier_export(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert export(pair, out) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    real = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.name == "pair-ar":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(NLAError, match="is full"):
        stage_empty(out)
    monkeypatch.undo()
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def stage_empty(out: Path) -> None:
    names = ["pair-av", "pair-ar"]
    with staging.staged(out, names) as temporary:
        for name in names:
            (temporary / name).mkdir()


@pytest.mark.parametrize("limit", [500, 20_000, 90_000])
def test_files_that_cannot_be_finished_leave_nothing(
    pair: Path, tmp_path: Path, limit: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operating system stops writing in config.json, the tokenizer or the weights."""
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        code = export(pair, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    assert "nothing of it was left there" in capsys.readouterr().err
    assert not out.exists()


def test_too_little_space_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NLAError, match="too little space") as caught:
        staging.check_space(tmp_path, 10**18)
    assert "1000000000.0 GB" in caught.value.why


def test_export_testset_eval(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export(pair, out) == 0
    (out / "pair-av/reference.safetensors").unlink()  # as published pairs come
    for role in ("av", "ar"):
        edit(out / f"pair-{role}", base_model=None, base_sha256=None)
    edit(out / "pair-av", role="actor")
    edit(out / "pair-ar", role="critic")
    with pytest.raises(NLAError, match="No reference statistics") as caught:
        find_pair(out / "pair-av")
    assert "precompute testset" in caught.value.fix
    corpus = tmp_path / "prompts.jsonl"
    prompts = [prompt(f"p-{i}", "the quick brown fox jumps over the lazy " * 3) for i in range(3)]
    corpus.write_text("".join(json.dumps(p) + "\n" for p in prompts))
    # The target is found by --target, the pair by its name without a half.
    record = ["testset", "--nla", str(out / "pair"), "--corpus", str(corpus), "--dtype", "float32"]
    assert main(record) == 2
    assert "--target" in capsys.readouterr().err
    target = ["--target", str(tmp_path / "base")]
    assert main([*record, *target]) == 0
    assert pair_home(out / "pair") == pair_home(out / "pair-ar") == out / "pair-av"
    assert (out / "pair-av/testset/vectors.safetensors").is_file()
    measure = ["eval", "--nla", str(out / "pair-av"), "--dtype", "float32"]
    measure += ["--explanation-tokens", "6", "--json", str(tmp_path / "eval.json")]
    assert main(measure) == 2
    assert "--target" in capsys.readouterr().err
    assert main([*measure, *target]) == 0
    figures = json.loads((tmp_path / "eval.json").read_text())
    assert figures["target_agreement"] > 0.999
    assert figures["n"] > 4
    assert main(["testset", "--nla", "someone/pair-av", "--corpus", str(corpus)]) == 2


def test_the_folder_above_twins_names_them(pair: Path, tmp_path: Path) -> None:
    assert export(pair, tmp_path / "out") == 0
    with pytest.raises(NLAError, match="pair-av"):
        find_pair(tmp_path / "out")
