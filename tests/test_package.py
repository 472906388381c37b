"""The wheel: it holds what the app needs, and `nla app` answers from an environment of its own."""

from __future__ import annotations

import os
import site
import socket
import subprocess
import sys
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(out), str(ROOT)],
        check=True,
    )
    (made,) = out.glob("nla_explorer-*.whl")
    return made


def test_the_wheel_holds_every_file_that_git_knows(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "nla_core", "precompute", "pages", "app.py", "data/demo", "data/nla"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    packages = ("nla_core/", "precompute/")
    wanted = {p if p.startswith(packages) else f"nla_explorer/{p}" for p in listed if p}
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert wanted - held == set()


@pytest.fixture(scope="module")
def nla(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment that holds the wheel, and sees the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    (own,) = (folder / "lib").glob("python*/site-packages")
    (own / "others.pth").write_text("\n".join(site.getsitepackages()))
    subprocess.run([python, "-m", "pip", "install", "--no-deps", "--quiet", str(wheel)], check=True)
    return folder / "bin" / "nla"


def test_the_command_has_the_verbs(nla: Path, tmp_path: Path) -> None:
    said = subprocess.run([nla, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(verb in said.stdout for verb in ("app", "run", "verify", "train"))


def test_the_installed_app_answers(nla: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NLA_")}
    environment["XDG_DATA_HOME"] = str(tmp_path)
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        [nla, "app", "--port", str(port)], cwd=tmp_path, env=environment, stdout=log, stderr=log
    )
    try:
        address = f"http://127.0.0.1:{port}/api/v1/datasets"
        body = ""
        while not body:
            assert server.poll() is None, (tmp_path / "log").read_text()
            try:
                with urllib.request.urlopen(address, timeout=30) as answer:
                    body = answer.read().decode()
            except OSError:
                time.sleep(0.2)
        assert "demo" in body
    finally:
        server.terminate()
        server.wait()
