"""The command itself, on a tiny random pair, into S3: killed, refused, gone on with, fetched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nla_core.data.manifest import DATABASE
from nla_core.data.transfer import Store
from precompute.cli import main
from precompute.workspace import RECEIPT

# Fixtures of the command into a folder: its words, and what an undisturbed run publishes.
from tests.precompute.test_end_to_end import ROOT, command, rows, whole  # noqa: F401
from tests.stores.conftest import Server, needs_s3


def fetched(url: str, to: Path) -> dict[str, bytes]:
    assert main(["fetch", url, str(to)]) == 0
    assert main(["verify", str(to)]) == 0
    return rows(to)


@needs_s3
def test_killed_and_gone_on_with_on_a_fresh_machine(
    command: list[str],  # noqa: F811
    whole: Path,  # noqa: F811
    s3: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = s3.bucket() + "/runs/tiny"
    out = [*command, "--out", url, "--local"]
    with subprocess.Popen(
        [sys.executable, "-m", "precompute", *out, str(tmp_path / "lost")],
        cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, **s3.environment()},
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 300
        while not any(name.endswith(RECEIPT) for name in Store(url).names()):
            assert process.poll() is None, "it ended before a shard was there"
            assert time.monotonic() < deadline, "no shard was finished"
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        try:
            assert main([*out, str(tmp_path / "second")]) == 2
            assert f"process {process.pid} on" in capsys.readouterr().err
        finally:
            process.send_signal(signal.SIGKILL)
    assert "CURRENT" not in Store(url).names(), "it was killed before it published"
    assert main([*out, str(tmp_path / "fresh")]) == 0
    assert "0 finished before" not in capsys.readouterr().err
    assert rows(tmp_path / "fresh") == rows(whole)
    assert fetched(url, tmp_path / "fetched") == rows(whole)


@needs_s3
def test_ranks_without_a_shared_folder_and_a_publisher(
    command: list[str],  # noqa: F811
    whole: Path,  # noqa: F811
    s3: Server,
    tmp_path: Path,
) -> None:
    url = s3.bucket() + "/tiny"
    for rank in "01":
        words = ["--world-size", "2", "--rank", rank, "--no-publish", "--local"]
        assert main([*command, "--out", url, *words, str(tmp_path / rank)]) == 0
    assert main(["publish", "--out", url, "--local", str(tmp_path / "publisher")]) == 0
    assert fetched(url, tmp_path / "fetched") == rows(whole)


@needs_s3
@pytest.mark.ray
def test_rays_workers_push_their_shards(
    command: list[str],  # noqa: F811
    whole: Path,  # noqa: F811
    s3: Server,
    tmp_path: Path,
) -> None:
    pytest.importorskip("ray")
    url = s3.bucket() + "/tiny"
    words = ["--engine", "ray", "--workers", "1", "--local", str(tmp_path / "local")]
    assert main([*command, "--out", url, *words]) == 0
    assert fetched(url, tmp_path / "fetched") == rows(whole)


def test_a_file_url_is_a_folder(
    command: list[str],  # noqa: F811
    whole: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"file://{tmp_path}/a folder"
    assert main([*command, "--out", url]) == 0
    assert rows(tmp_path / "a folder") == rows(whole)
    assert fetched(url, tmp_path / "fetched") == rows(whole)
    assert main([*command, "--out", url, "--local", str(tmp_path)]) == 2
    assert "--local" in capsys.readouterr().err


def test_a_large_dataset_is_derived_where_it_is_fetched(
    command: list[str],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, small, large = f"file://{tmp_path}/out", tmp_path / "small", tmp_path / "large"
    assert main([*command, "--out", url]) == 0
    assert main(["fetch", url, str(small)]) == 0
    monkeypatch.setattr("precompute.publish.DERIVE_FROM", 1)
    assert main(["fetch", url, str(large)]) == 0
    assert not list(small.glob(f"v-*/{DATABASE}"))
    assert list(large.glob(f"v-*/{DATABASE}"))


def test_what_cannot_be_opened_is_told_before_models_are_loaded(
    command: list[str],  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*command, "--out", "gs://bucket/x", "--local", str(tmp_path / "x")]) == 2
    assert "pip install gcsfs" in capsys.readouterr().err
    assert main(["fetch", "data/demo", str(tmp_path / "x")]) == 2
    assert main(["fetch", "memory://x", str(tmp_path / "x"), "--version", "latest"]) == 2
    assert not (tmp_path / "x").exists()
