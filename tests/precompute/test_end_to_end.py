"""The command itself on a tiny random pair: real target, AV, AR and sentence encoder."""

from __future__ import annotations

import dataclasses
import inspect
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nla_core import explain
from nla_core.data.dataset import Dataset
from nla_core.data.manifest import MANIFEST
from nla_core.embed import MiniLM
from nla_core.schema import Status
from precompute.cli import main
from precompute.run import ShardExplainer
from precompute.workspace import RECEIPT
from tests.precompute import fake
from tests.precompute.conftest import prompt
from tests.precompute.fake import published
from tests.tiny import tiny_pair

ROOT = Path(__file__).parents[2]
PROMPTS = [
    prompt("a-1", "the quick brown fox"),
    prompt("a-2", "日本 🐇 jumps"),
    prompt("a-3", "the lazy dog " * 300),  # more than the 256 tokens the tiny target reads
    prompt(
        "a-4",
        "",
        messages=[
            {"role": "system", "content": "people say that"},
            {"role": "user", "content": "rain falls"},
            {"role": "assistant", "content": "on the old stone"},
            {"role": "user", "content": "bridge and?"},
        ],
    ),
    prompt("a-5", "language models\nhold more"),
]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run of a few seconds, without its --out."""
    root = tmp_path_factory.mktemp("tiny")
    corpus = root / "prompts.jsonl"
    corpus.write_text("".join(json.dumps(p, ensure_ascii=False) + "\n" for p in PROMPTS))
    return [
        *("run", "--nla", str(tiny_pair(root)), "--corpus", str(corpus), "--name", "tiny"),
        *("--max-new-tokens", "5", "--explanation-tokens", "6", "--shard-size", "2"),
        *("--device", "cpu", "--dtype", "float32"),
    ]


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole")
    assert main([*command, "--out", str(out), "--json", str(out / "run.json")]) == 0
    return out


def rows(out: Path) -> dict[str, bytes]:
    """The files that decide the version; its name stands for the rest of the manifest."""
    return {
        path: content
        for path, content in published(out).items()
        if not path.endswith((MANIFEST, "run.json"))
    }


def test_the_dataset_verifies_and_reads(whole: Path) -> None:
    assert main(["verify", str(whole)]) == 0
    dataset = Dataset.open(whole)
    result = json.loads((whole / "run.json").read_text())
    assert result["version"] == dataset.version
    assert result["n_readings"] == dataset.manifest.counts["readings"] > 40
    assert (result["n_prompts"], result["n_errors"]) == (5, 1)
    assert dataset.manifest.pair["pair_id"] == "pair"
    assert dataset.manifest.settings["embedder"] == MiniLM.name
    assert dataset.explanation_vectors().shape[1] == MiniLM.dimension
    listed = dataset.transcripts().set_index("prompt_id")
    assert listed.loc["a-3", "status"] == Status.ERROR
    assert listed["status"].value_counts()[Status.OK] == 4


def test_a_character_over_several_tokens_is_one_chip_and_read_once(whole: Path) -> None:
    dataset = Dataset.open(whole)
    (transcript_id,) = dataset.transcripts(contains="🐇")["transcript_id"]
    tokens = dataset.tokens(transcript_id)
    assert "日本 🐇 jumps" in "".join(tokens["text"])
    assert tokens["chip"].value_counts().max() > 1
    read = tokens.merge(dataset.readings(transcript_id), on="position")
    assert read["chip"].is_unique


def test_the_order_of_a_conversation_is_kept(whole: Path) -> None:
    dataset = Dataset.open(whole)
    (transcript_id,) = dataset.transcripts(contains="rain falls")["transcript_id"]
    tokens = dataset.tokens(transcript_id)
    content = tokens[tokens["section"] == "content"]
    assert content.groupby("turn")["role"].first().tolist()[:4] == [
        "system", "user", "assistant", "user",
    ]  # fmt: skip
    assert "".join(content[content["turn"] == 1]["text"]) == "rain falls"


def test_killed_from_outside_and_run_again_gives_the_same_bytes(
    command: list[str], whole: Path, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "precompute", *command, "--out", str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.rglob(RECEIPT)) and process.poll() is None:
            assert time.monotonic() < deadline, "no shard was finished"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("v-*")), "it was killed before it published"
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert rows(tmp_path) == rows(whole)


def test_computing_and_publishing_in_two_steps(
    command: list[str], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--out", str(tmp_path), "--no-publish"]) == 0
    assert not list(tmp_path.glob("v-*"))
    assert main(["publish", "--out", str(tmp_path)]) == 0
    assert "Published" in capsys.readouterr().out
    assert rows(tmp_path) == rows(whole)


def test_a_folder_without_a_pair_is_bad_input(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [word if "pair" not in word else str(tmp_path) for word in command]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "No NLA pair" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["Token", "Reading"])
def test_the_fakes_rows_are_those_of_the_real_explainer(name: str) -> None:
    real, faked = (dataclasses.fields(getattr(module, name)) for module in (explain, fake))
    assert [(f.name, f.type) for f in real] == [(f.name, f.type) for f in faked]


@pytest.mark.parametrize(
    "method", [name for name in vars(ShardExplainer) if not name.startswith("_")]
)
def test_the_real_explainer_takes_the_calls_that_shards_make(method: str) -> None:
    wanted = inspect.signature(getattr(ShardExplainer, method)).parameters
    for explainer in (explain.Explainer, fake.FakeExplainer):
        taken = inspect.signature(getattr(explainer, method)).parameters
        assert wanted.keys() <= taken.keys(), explainer
