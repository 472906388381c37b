"""Durable files: hash, write, fsync, rename. What a reader finds is whole, or it is not there.

Knows how bytes reach a disk so that a crash, a second process or a full disk leaves what was there
before. Does not know what the bytes mean. The decision a reader would question: directories are
fsynced as well as files; a rename that is only in the page cache is not a rename after a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nla_core.errors import NLAError

STALE_SECONDS = 24 * 3600


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks. Raises OSError if it cannot be read."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """The one text a JSON value has here: sorted keys, no spaces, no NaN. Used for hashes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of ``canonical_json(value)``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def fsync_path(path: Path) -> None:
    """Flush one file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(root: Path) -> None:
    """Flush every file and directory below ``root``, and ``root`` itself."""
    for path in sorted(root.rglob("*"), reverse=True):
        fsync_path(path)
    fsync_path(root)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace ``path`` in one step; a crash leaves the old file or the new one."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def write_json(path: Path, value: Any) -> None:
    """``write_atomic`` of indented JSON with sorted keys, for files that people read too."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text + "\n")


@contextlib.contextmanager
def building(parent: Path) -> Iterator[Path]:
    """An empty directory on the disk of ``parent``, removed on the way out if still there.

    The caller renames it to its final name when it is whole. A process that is killed leaves it
    behind as ``.tmp-*``, which nothing reads and git ignores; a day later the next one clears it.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(".tmp-*"):
        with contextlib.suppress(OSError):  # another process may be clearing it, too
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=parent))
    temporary.chmod(0o755)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def rename_into_place(temporary: Path, final: Path) -> bool:
    """Flush a built directory and give it its name; False if another process was first."""
    fsync_tree(temporary)
    try:
        temporary.rename(final)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    fsync_path(final.parent)
    return True


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals while writing under ``path`` into NLAError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NLAError(
                f"The disk that holds {path} is full",
                why=f"writing stopped with: {error.strerror}; files finished before are kept",
                fix="Free some space and run the same command again; it goes on where it stopped",
            ) from error
        raise NLAError(
            f"{path} cannot be written",
            why=f"the operating system says: {error}",
            fix="Check the path and its permissions, then run the same command again",
        ) from error
