"""Uploads against a small stand-in for the hub on this machine, and every way to be refused."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

from nla_core.models.sidecar import FILE_NAME
from precompute.cli import main
from tests.tiny import tiny_pair

ROOT = Path(__file__).parents[2]
SPEC = "pypi:tiny-model==1.0#tiny.gguf"


class Hub(ThreadingHTTPServer):
    """Answers what an upload asks; keeps what it was sent. Repositories in ``closed`` refuse."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.tokens: set[str | None] = set()
        self.created: dict[str, str | None] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.closed: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self._body()
        self.server.tokens.add(self.headers.get("Authorization"))
        path = self.path.partition("?")[0].removeprefix("/api/")
        if path == "repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.created[name] = asked.get("visibility")
            return self._answer({"url": f"{self.server.url}/{name}", "name": name})
        if path == "validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        _, user, name, verb, _ = path.split("/")
        if f"{user}/{name}" in self.server.closed:
            return self._answer({"error": "You may not write here"}, status=403)
        if verb == "preupload":
            asked = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
            ]
            return self._answer({"files": modes})
        assert verb == "commit", self.path
        stored = self.server.files.setdefault(f"{user}/{name}", {})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                stored[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        url = f"{self.server.url}/{user}/{name}/commit/{'0' * 40}"
        return self._answer({"success": True, "commitOid": "0" * 40, "commitUrl": url})

    def do_GET(self) -> None:
        self._answer({"id": self.path, "sha": "0" * 40, "siblings": []})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, content: object, *, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pair whose target is a package (already converted), with a test set of the user's own."""
    folder = tiny_pair(tmp_path)
    models = tmp_path / "cache/models"
    models.mkdir(parents=True)
    (tmp_path / "base").rename(models / "tiny-model-1.0-tiny")
    (models / "tiny-model-1.0-tiny/SOURCE_SHA256").write_text("0" * 64)
    for role in ("av", "ar"):
        path = folder / role / FILE_NAME
        document = yaml.safe_load(path.read_text()) | {"base_model": SPEC}
        path.write_text(yaml.safe_dump(document))
    monkeypatch.setenv("NLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return folder


def arguments(pair: Path, out: Path, *more: str) -> list[str]:
    words = ["export", "--nla", str(pair), "--out", str(out), "--format", "reference"]
    return [*words, "--push", "alice/tiny-L2", *more]


def test_both_halves_arrive_with_their_cards(pair: Path, tmp_path: Path, hub: Hub) -> None:
    out, result = tmp_path / "out", tmp_path / "push.json"
    corpus = tmp_path / "corpus.jsonl"
    messages = [{"role": "user", "content": "the quick brown fox " * 9}]
    corpus.write_text(
        json.dumps({"id": "a", "category": "b", "title": "c", "tags": [], "messages": messages})
    )
    assert main(["testset", "--nla", str(pair), "--corpus", str(corpus)]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "precompute", *arguments(pair, out, "--private")]
        + ["--json", str(result)],
        cwd=ROOT,
        env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert hub.created == {"alice/tiny-L2-av": "private", "alice/tiny-L2-ar": "private"}
    assert hub.tokens == {"Bearer hf_secret"}
    assert (out / "pair-av/testset/items.parquet").is_file()
    for role in ("av", "ar"):
        local = out / f"pair-{role}"
        sent = hub.files[f"alice/tiny-L2-{role}"]
        kept = {p.name: p.read_bytes() for p in local.iterdir() if p.is_file()}
        assert sent == kept, "the test set stays at home, all else is sent"
        assert b"natural-language-autoencoder" in sent["README.md"]
    urls = json.loads(result.read_text())["urls"]
    assert urls["alice/tiny-L2-av"] == f"{hub.url}/alice/tiny-L2-av"
    assert "hf_secret" not in done.stdout + done.stderr


def test_without_a_token_the_local_export_is_kept(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    assert main(arguments(pair, tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert "No Hugging Face token" in said
    assert "hf upload alice/tiny-L2-av" in said
    assert (tmp_path / "out/pair-ar/model.safetensors").is_file()


def test_without_a_network_the_local_export_is_kept(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(arguments(pair, tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert "Could not upload" in said
    assert "the local export is kept" in said
    assert (tmp_path / "out/pair-av/model.safetensors").is_file()


def test_a_half_that_was_uploaded_is_named_when_the_other_is_refused(
    pair: Path,
    tmp_path: Path,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.closed.add("alice/tiny-L2-ar")
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    assert main(arguments(pair, tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert "alice/tiny-L2-av was uploaded" in said
    assert "403" in said


@pytest.mark.parametrize("name", ["alice", "alice/tiny-av", "a/b/c", "alice/ti ny"])
def test_names_that_are_none_are_refused_before_any_work(
    pair: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(pair, tmp_path / "out")[:-1], name]) == 2
    assert "USER/NAME" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_path_of_this_machine_is_not_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tiny_pair(tmp_path), tmp_path / "out")) == 2
    assert "path on this machine" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
