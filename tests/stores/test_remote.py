"""What every store does, and what is said where one does not."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import fsspec
import pytest

from nla_core.data.transfer import Store
from nla_core.errors import NLAError
from tests.stores.conftest import Server, needs_s3


def test_bytes_and_files_come_back(store: Store, tmp_path: Path) -> None:
    assert store.names() == {}
    assert store.read("a/b.txt") is None
    store.write("a/b.txt", b"one")
    store.write("a/b.txt", b"two!")
    assert store.read("a/b.txt") == b"two!"
    file, back = tmp_path / "file", tmp_path / "back"
    file.write_bytes(os.urandom(100_000))
    store.put(file, "a/c/large")
    assert store.get("a/c/large", back)
    assert back.read_bytes() == file.read_bytes()
    assert not store.get("a/c/none", back)
    assert store.names() == {"a/b.txt": 4, "a/c/large": 100_000}
    assert store.names("a/c") == {"a/c/large": 100_000}
    store.delete("a/b.txt")
    store.delete("a/b.txt")
    assert store.names("a") == {"a/c/large": 100_000}


def test_what_is_there_is_not_created(store: Store) -> None:
    assert store.create("lease", b"first")
    assert not store.create("lease", b"second")
    assert store.read("lease") == b"first"


def test_a_store_travels_to_another_process(store: Store) -> None:
    store.write("x", b"1")
    assert pickle.loads(pickle.dumps(store)).read("x") == b"1"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nope://bucket/x", "Protocol not known: nope"),
        ("gs://bucket/x", "pip install gcsfs"),
        ("abfs://bucket/x", "pip install adlfs"),
    ],
)
def test_a_protocol_that_cannot_be_opened(url: str, said: str) -> None:
    with pytest.raises(NLAError, match=said):
        Store(url)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (PermissionError("Access Denied"), "refuses access"),
        (OSError(errno.ENOSPC, "No space left on device"), "There is no space left"),
        (ConnectionResetError("reset"), "cannot be used at the moment"),
        (TimeoutError("slow"), "cannot be used at the moment"),
        (type("NoCredentialsError", (Exception,), {"__module__": "x"})("none"), "no credentials"),
    ],
)
def test_refusals_are_told(error: Exception, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "pipe_file", refuse)
    with pytest.raises(NLAError, match=what):
        Store("memory://refusing").write("a", b"1")


def test_mistakes_of_ours_are_not_told_as_the_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object) -> None:
        raise TypeError("a mistake")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", stumble)
    with pytest.raises(TypeError, match="a mistake"):
        Store("memory://stumbling").read("a")


@needs_s3
def test_a_bucket_that_is_missing_is_not_made(s3: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    store = Store("s3://no-such-bucket/prefix")
    with pytest.raises(NLAError, match="There is no s3 bucket"):
        store.write("a", b"1")
    with pytest.raises(NLAError, match="There is no s3 bucket"):
        store.put(tmp_path / "file", "a")
    assert "no-such-bucket" not in fsspec.filesystem("s3").ls("")


@needs_s3
def test_s3_without_credentials(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = s3.bucket()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(NLAError, match="There are no credentials") as error:
        Store(url).write("a", b"1")
    assert "AWS_ACCESS_KEY_ID" in error.value.fix
