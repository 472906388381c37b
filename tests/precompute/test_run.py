"""Runs without models: the rows, failing prompts, settings, seeds and workspaces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nla_core.data import vectors
from nla_core.data.dataset import Dataset
from nla_core.data.manifest import CURRENT
from nla_core.data.publish import problems
from nla_core.errors import NLAError
from nla_core.schema import TABLES, Status
from precompute import publish as publish_verb
from precompute.corpus import read_corpus
from precompute.plan import Plan, Settings, Shard, prompt_seeds
from precompute.publish import publish_workspace
from precompute.run import execute, process
from precompute.workspace import Workspace
from tests.precompute.conftest import PROMPTS, WriteCorpus, prompt
from tests.precompute.fake import (
    FATAL,
    NO_DIRECTION,
    FakeExplainer,
    HashEmbedder,
    fake_plan,
    run_fake,
)


def test_the_published_rows(plan: Plan, tmp_path: Path) -> None:
    version = run_fake(plan, tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    assert problems(dataset.directory, dataset.manifest) == []
    assert dataset.version == version
    rows = dataset.transcripts(sort="title").set_index("prompt_id")
    assert list(rows.index) == sorted(p["id"] for p in PROMPTS)
    row = dataset.transcript(rows.loc["p-2", "transcript_id"])
    assert row is not None
    messages = json.loads(row["messages"])
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant"]
    readings = dataset.readings(row["transcript_id"])
    tokens = dataset.tokens(row["transcript_id"])
    assert row["n_readings"] == len(readings) == (tokens["section"] == "content").sum()
    assert row["mean_fve"] == pytest.approx(readings["fve"].mean(), abs=1e-5)
    assert row["flagged_share"] == pytest.approx((readings["flags"].map(len) > 0).mean(), abs=1e-5)
    assert dataset.explanation_vectors().shape == (dataset.manifest.counts["readings"], 16)
    assert dataset.manifest.settings["embedder"] == "hash-16"
    assert dataset.manifest.settings["max_new_tokens"] == 48
    assert dataset.manifest.corpus["n_prompts"] == len(PROMPTS)


def test_a_prompt_that_fails_becomes_a_row_and_spoils_no_other(plan: Plan, tmp_path: Path) -> None:
    run_fake(plan, tmp_path)
    dataset = Dataset.open(tmp_path)
    rows = dataset.transcripts().set_index("prompt_id")
    assert rows.index[rows["status"] == Status.ERROR].tolist() == ["p-4", "p-5"]
    assert "too long" in rows.loc["p-5", "error"]
    assert rows.loc["p-5", "n_tokens"] == 0
    assert rows.loc["p-4", "n_tokens"] > 0, "it was transcribed before it failed"
    assert rows.loc["p-4", "n_readings"] == 0
    assert rows.loc["p-4", "mean_fve"] != rows.loc["p-4", "mean_fve"], "no mean of no readings"
    fine = rows[rows["status"] == Status.OK]
    assert (fine["n_readings"] > 0).all()


def test_a_failing_neighbour_changes_no_reading(plan: Plan, tmp_path: Path) -> None:
    """p-3 shares its shard with p-4, whose vectors cannot be read."""
    (shard,) = [s for s in plan.shards if [p.id for p in s.prompts] == ["p-3", "p-4"]]
    together, n_errors = process(shard, plan.settings, FakeExplainer())
    alone, _ = process(Shard(9, shard.prompts[:1]), plan.settings, FakeExplainer())
    assert n_errors == 1
    assert together["readings"].equals(alone["readings"])


def test_a_prompt_that_fails_the_whole_call_fails_alone(
    tmp_path: Path, write_corpus: WriteCorpus
) -> None:
    texts = ["fine one", f"a {FATAL} one", "fine too"]
    path = write_corpus([prompt(f"p-{i}", text) for i, text in enumerate(texts)])
    run_fake(fake_plan(read_corpus([path])), tmp_path)
    rows = Dataset.open(tmp_path).transcripts().set_index("prompt_id")
    assert rows["status"].tolist() == ["ok", "error", "ok"]
    assert "It is NaN" in rows.loc["p-1", "error"]


def test_tokens_without_a_direction_are_counted_and_told(
    tmp_path: Path, write_corpus: WriteCorpus, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"one {NO_DIRECTION} here", "none here", f"{NO_DIRECTION} twice {NO_DIRECTION}"]
    path = write_corpus([prompt(f"p-{i}", text) for i, text in enumerate(texts)])
    plan = fake_plan(read_corpus([path]), shard_size=2)
    done = execute(plan, tmp_path, FakeExplainer, embedder=HashEmbedder())
    assert done["n_unreadable"] == 3
    assert "3 tokens have no explanation" in capsys.readouterr().err
    fewer = fake_plan(read_corpus([path]), limit=2, shard_size=2)
    done = execute(fewer, tmp_path / "fewer", FakeExplainer, embedder=HashEmbedder())
    assert done["n_unreadable"] == 1


def test_samples_are_all_kept(corpus_file: Path, tmp_path: Path) -> None:
    plan = fake_plan(read_corpus([corpus_file]), samples=3, explanation_temperature=0.7)
    run_fake(plan, tmp_path)
    dataset = Dataset.open(tmp_path)
    readings = dataset.readings(dataset.transcripts(contains="poland")["transcript_id"].iloc[0])
    assert readings["sample"].tolist() == [0, 1, 2] * (len(readings) // 3)


@pytest.mark.parametrize("shard_size", [1, 3, 100])
def test_shards_cover_every_prompt_once(corpus_file: Path, shard_size: int) -> None:
    plan = fake_plan(read_corpus([corpus_file]), shard_size=shard_size)
    ids = [prompt.id for shard in plan.shards for prompt in shard.prompts]
    assert ids == sorted(prompt["id"] for prompt in PROMPTS)
    assert max(len(shard.prompts) for shard in plan.shards) <= shard_size
    assert [shard.index for shard in plan.shards] == list(range(1, len(plan.shards) + 1))


def test_a_prompts_seed_depends_on_neither_shard_nor_limit(corpus_file: Path) -> None:
    corpus = read_corpus([corpus_file])
    found = [
        {
            prompt.id: seed
            for shard in fake_plan(corpus, shard_size=size).shards
            for prompt, seed in zip(shard.prompts, prompt_seeds(shard, 5), strict=True)
        }
        for size in (1, 4)
    ]
    assert found[0] == found[1]
    assert len(set(found[0].values())) == len(PROMPTS)


def test_other_settings_start_another_run(corpus_file: Path, tmp_path: Path) -> None:
    corpus = read_corpus([corpus_file])
    for seed in (0, 1):
        explainer = FakeExplainer()
        run_fake(fake_plan(corpus, seed=seed), tmp_path, explainer)
        assert explainer.n_transcribed == len(PROMPTS)
    assert len(list(tmp_path.glob("v-*"))) == 2


def test_everything_that_can_change_a_row_is_in_the_hash(corpus_file: Path) -> None:
    corpus = read_corpus([corpus_file])
    changed = Settings(2, 0.5, 2, 3, 0.5, 4, 5, 6, "cuda", "bfloat16")
    hashes = {fake_plan(corpus).config_hash}
    for name in Settings.__dataclass_fields__:
        values = {name: getattr(changed, name)}
        if name == "samples":
            values["explanation_temperature"] = 0.5
        hashes.add(fake_plan(corpus, **values).config_hash)
    hashes.add(fake_plan(corpus, limit=3).config_hash)
    corpus_file.write_text(corpus_file.read_text().replace("Poland", "Portugal"))
    hashes.add(fake_plan(read_corpus([corpus_file])).config_hash)
    assert len(hashes) == len(Settings.__dataclass_fields__) + 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"samples": 3}, "explanation temperature is 0"),
        ({"shard_size": 0}, "--shard-size 0"),
        ({"temperature": -1.0}, "--temperature -1"),
        ({"explanation_temperature": float("nan")}, "nan"),
        ({"seed": -1}, "--seed -1"),
        ({"limit": 0}, "--limit 0"),
    ],
)
def test_settings_out_of_range(corpus_file: Path, values: dict[str, int], said: str) -> None:
    with pytest.raises(NLAError, match=said):
        fake_plan(read_corpus([corpus_file]), **values)


def test_an_index_that_cannot_be_built_is_told(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = run_fake(plan, tmp_path)
    monkeypatch.setattr(vectors.open_index, "__defaults__", (1,))  # large from the first reading
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said: list[str] = []
    publish_verb.derive(tmp_path, version, say=said.append)
    assert "faiss is not installed" in said[-1]


def test_publish_refuses_an_unfinished_run(plan: Plan, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path, plan)
    tables, n_errors = process(plan.shards[0], plan.settings, FakeExplainer())
    workspace.commit(plan.shards[0].name, tables, n_errors)
    with pytest.raises(NLAError, match="3 of 4 shards are not finished") as error:
        publish_workspace(workspace, tmp_path, HashEmbedder(), say=lambda _: None)
    assert "shard-00002" in error.value.why
    assert not (tmp_path / CURRENT).exists()


def test_find_a_workspace(plan: Plan, corpus_file: Path, tmp_path: Path) -> None:
    with pytest.raises(NLAError, match="none"):
        Workspace.find(tmp_path, None)
    made = Workspace.create(tmp_path, plan)
    assert Workspace.find(tmp_path, None) == made
    other = Workspace.create(tmp_path, fake_plan(read_corpus([corpus_file]), seed=9))
    with pytest.raises(NLAError, match="not clear which run"):
        Workspace.find(tmp_path, None)
    assert Workspace.find(tmp_path, other.config_hash) == other
    config = made.path / "config.json"
    config.write_text(config.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(NLAError, match="was changed"):
        Workspace.find(tmp_path, made.config_hash)


def test_git_commit_is_a_commit_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = publish_verb.git_commit()
    assert found is None or len(found.removesuffix("-dirty")) >= 7
    monkeypatch.setenv("PATH", "")
    assert publish_verb.git_commit() is None


def test_the_rows_of_the_fake_are_those_of_the_schema(plan: Plan) -> None:
    tables, _ = process(plan.shards[0], plan.settings, FakeExplainer())
    assert {name: table.schema for name, table in tables.items()} == TABLES
