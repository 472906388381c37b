"""Stores to test with: in memory, in a folder, and S3 as moto serves it on loopback.

moto and s3fs live in an environment of their own (requirements-cloud-dev.txt): they want an older
dateutil than the rest. `make test` runs this folder there, where nothing of it is skipped.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from nla_core.data.transfer import Store

# Fixtures of the runs without models: a corpus, its plan, and what an undisturbed run publishes.
from tests.precompute.conftest import (  # noqa: F401
    _one_commit,
    corpus_file,
    plan,
    reference,
    write_corpus,
)

HAS_S3 = all(importlib.util.find_spec(name) for name in ("s3fs", "moto"))
needs_s3 = pytest.mark.skipif(not HAS_S3, reason="needs s3fs and moto: .venv-cloud has them")


class Server:
    """An S3 server in a process of its own."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            assert self.process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()

    def bucket(self) -> str:
        """A new bucket's URL."""
        name = f"bucket-{secrets.token_hex(4)}"
        fsspec.filesystem("s3").mkdir(name)
        return f"s3://{name}"


@pytest.fixture(scope="session")
def running() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def s3(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    running.use(monkeypatch)
    return running


@pytest.fixture(params=["memory", "file", pytest.param("s3", marks=needs_s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "memory":
        return Store(f"memory://{secrets.token_hex(4)}/prefix")
    if request.param == "file":
        return Store((tmp_path / "bucket").as_uri())
    return Store(request.getfixturevalue("s3").bucket() + "/some/prefix")
