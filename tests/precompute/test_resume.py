"""Killing a run at any moment, damaging it, or running it twice at once changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nla_core.data.manifest import CURRENT
from nla_core.errors import NLAError
from precompute.plan import Plan
from precompute.run import execute
from precompute.workspace import RECEIPT, WORK
from tests.precompute.conftest import PROMPTS
from tests.precompute.fake import FakeExplainer, HashEmbedder, published, run_fake

ROOT = Path(__file__).parents[2]


def test_a_second_run_computes_nothing(
    plan: Plan, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    def no_models() -> FakeExplainer:
        raise AssertionError("models were loaded for nothing")

    out = tmp_path / "reference"
    execute(plan, out, no_models, embedder=HashEmbedder())
    assert published(out) == reference


# A process that kills itself, as the kernel would, when it flushes its Nth file or folder: before
# and after each rename, each receipt, each step of publishing.
VICTIM = """
import os, signal, sys
from pathlib import Path
from nla_core.data import files
from precompute import publish as publish_verb
from precompute.corpus import read_corpus
from tests.precompute.fake import fake_plan, run_fake

publish_verb.git_commit = lambda: "test"
out, corpus, moment = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
fsync, calls = os.fsync, 0

def fatal(descriptor):
    global calls
    calls += 1
    if calls == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)

files.os.fsync = fatal
run_fake(fake_plan(read_corpus([corpus]), shard_size=2), out)
print(calls)
"""


def victim(out: Path, corpus: Path, moment: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", VICTIM, str(out), str(corpus), str(moment)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_a_run_killed_at_any_moment_resumes_to_the_same_bytes(
    plan: Plan, corpus_file: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    whole = victim(tmp_path / "whole", corpus_file, 0)
    assert whole.returncode == 0, whole.stderr
    assert published(tmp_path / "whole") == reference
    moments = int(whole.stdout)
    seen = set()
    for moment in [1, 4, 7, 9, 11, moments // 2, moments - 8, moments - 3, moments - 1, moments]:
        out = tmp_path / f"killed-{moment}"
        died = victim(out, corpus_file, moment)
        assert died.returncode == -signal.SIGKILL, died.stderr
        seen.add(sum(1 for _ in out.rglob(RECEIPT)))
        explainer = FakeExplainer()
        run_fake(plan, out, explainer)
        left = {p: b for p, b in published(out).items() if not p.startswith(".tmp-")}
        assert left == reference, f"killed at its flush {moment}"
    assert len(seen) >= 3, "the kills fell into different shards"


def test_what_was_finished_is_not_computed_again(plan: Plan, tmp_path: Path) -> None:
    calls = 0

    def die_at_the_third_shard() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_fake(plan, tmp_path, FakeExplainer(die_at_the_third_shard))
    explainer = FakeExplainer()
    run_fake(plan, tmp_path, explainer)
    assert explainer.n_transcribed == len(PROMPTS) - 4


@pytest.mark.parametrize("damage", ["rows", "receipt", "missing rows", "other config"])
def test_a_damaged_shard_is_computed_again(
    plan: Plan, tmp_path: Path, reference: dict[str, bytes], damage: str
) -> None:
    out = tmp_path / "damaged"
    run_fake(plan, out)
    (work,) = [path for path in (out / WORK).iterdir() if path.is_dir()]
    receipt = work / "shard-00002" / RECEIPT
    data = json.loads(receipt.read_text())
    rows = receipt.parent / data["folder"] / "readings.parquet"
    if damage == "rows":
        content = bytearray(rows.read_bytes())
        content[len(content) // 2] ^= 1
        rows.write_bytes(content)
    elif damage == "receipt":
        receipt.write_text(receipt.read_text()[:50])
    elif damage == "missing rows":
        shutil.rmtree(rows.parent)
    else:
        receipt.write_text(json.dumps({**data, "config_hash": "0" * 12}))
    shutil.rmtree(out / (out / CURRENT).read_text().strip())
    explainer = FakeExplainer()
    run_fake(plan, out, explainer)
    assert explainer.n_transcribed == 2
    assert published(out) == reference


def test_two_workers_on_one_shard_are_harmless(
    plan: Plan, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    """The second worker does the whole run while the first is in the middle of its shard."""
    out = tmp_path / "both"
    calls = 0

    def overtaken() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            run_fake(plan, out)

    run_fake(plan, out, FakeExplainer(overtaken))
    assert calls == 2, "shards that the other one finished are skipped"
    assert published(out) == reference


def test_a_full_disk_keeps_finished_shards(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NLAError, match="is full"):
            run_fake(plan, tmp_path)
    kept = len(list(tmp_path.rglob(RECEIPT)))
    assert 0 < kept < len(plan.shards)
    explainer = FakeExplainer()
    run_fake(plan, tmp_path, explainer)
    assert explainer.n_transcribed == len(PROMPTS) - 2 * kept


def test_the_workspace_is_invisible_to_git(plan: Plan, tmp_path: Path) -> None:
    run_fake(plan, tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    listed = subprocess.run(
        ["git", "-C", str(tmp_path), "status", "--porcelain", "-uall"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert WORK not in listed
    assert CURRENT in listed
