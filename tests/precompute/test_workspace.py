"""Two drivers on one output folder: refused, unless both are ranks of one world."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nla_core.errors import NLAError
from precompute.workspace import driving

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from precompute.workspace import driving
with driving(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(out: Path, rank: int = 0, world_size: int = 1) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out), str(rank), str(world_size)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def refused(out: Path, rank: int, world_size: int, *told: str) -> None:
    with (
        pytest.raises(NLAError, match="Another run writes") as error,
        driving(out, rank, world_size),
    ):
        pass
    for text in told:
        assert text in error.value.why


def test_a_second_driver_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    first = holder(tmp_path)
    refused(tmp_path, 0, 1, f"process {first.pid} on {os.uname().nodename}", "rank 0 of 1")
    refused(tmp_path, 1, 2, f"process {first.pid}")
    with driving(tmp_path / "elsewhere"):
        pass
    first.kill()  # and leaves its file behind
    first.wait()
    with driving(tmp_path):
        refused(tmp_path, 0, 1, f"process {os.getpid()}")
    with driving(tmp_path):
        pass


def test_ranks_of_one_world_share_a_folder(tmp_path: Path) -> None:
    first = holder(tmp_path, 0, 2)
    try:
        with driving(tmp_path, 1, 2):
            refused(tmp_path, 1, 2, "rank 1 of 2")
            refused(tmp_path, 0, 1, f"process {first.pid}", "rank 1 of 2")
        refused(tmp_path, 0, 2, f"process {first.pid}")
        refused(tmp_path, 2, 3, "rank 0 of 2")
    finally:
        first.kill()
        first.wait()


def test_the_command_refuses(tmp_path: Path) -> None:
    first = holder(tmp_path / "out")
    corpus = next((ROOT / "data/prompts").glob("*.jsonl"))
    done = subprocess.run(
        [sys.executable, "-m", "precompute", "run", "--nla", "data/nla/smollm2-135m-L20",
         "--corpus", str(corpus), "--out", str(tmp_path / "out"), "--limit", "1", "--no-publish"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    first.kill()
    first.wait()
    assert done.returncode == 2, done.stderr
    assert f"process {first.pid}" in done.stderr
