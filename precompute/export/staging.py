"""Folders that appear together or not at all.

Knows how several folders are built aside and given their names at the end, and how earlier ones are
replaced. Knows nothing of models. The decision a reader would question: with ``force`` only folders
that hold a sidecar are replaced, so that a mistyped path cannot cost anything but an older export.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError

from nla_core.data.files import building, fsync_path, fsync_tree
from nla_core.errors import NLAError
from nla_core.models.sidecar import FILE_NAME

FULL = ("No space left", "code: 28", "StorageFull", "Disk quota", "code: 122")


def check_free(out: Path, names: Sequence[str], *, force: bool) -> None:
    """Refuse names under ``out`` that are taken, unless they are exports that may be replaced."""
    for final in (out / name for name in names):
        if not final.exists():
            continue
        if not force:
            raise NLAError(
                f"{final} exists already",
                why="An export is never written over another one by itself",
                fix="Choose another --out, or replace it with --force",
            )
        if not (final / FILE_NAME).is_file():
            raise NLAError(
                f"{final} is no exported pair, so --force does not replace it",
                why=f"It holds no {FILE_NAME}",
                fix="Choose another --out, or move it away yourself",
            )


def check_space(out: Path, needed: int) -> None:
    """Refuse before hours of merging what the disk of ``out`` cannot hold (bytes)."""
    free = shutil.disk_usage(out).free
    if needed > free:
        raise NLAError(
            f"The disk that holds {out} has too little space for this export",
            why=f"It needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            fix="Free some space, choose another --out, or a smaller --dtype",
        )


@contextlib.contextmanager
def staged(out: Path, names: Sequence[str]) -> Iterator[Path]:
    """A folder to build ``names`` in; they move to ``out`` when the block ends well.

    After any failure ``out`` holds what it held before. Raises NLAError for a full or unwritable
    disk.
    """
    fresh = not out.exists()
    try:
        with _explained(out), building(out) as temporary:
            yield temporary
            for name in names:
                for file in filter(Path.is_file, (temporary / name).rglob("*")):
                    file.chmod(0o644)  # weights are written for their owner alone
                fsync_tree(temporary / name)
            _move(temporary, out, names)
            fsync_path(out)
    except BaseException:
        if fresh:
            with contextlib.suppress(OSError):  # not empty: someone else writes there, too
                out.rmdir()
        raise


def _move(temporary: Path, out: Path, names: Sequence[str]) -> None:
    done: list[tuple[Path, Path]] = []
    try:
        for name in names:
            if (out / name).exists():
                (out / name).rename(temporary / f"old-{name}")
                done.append((temporary / f"old-{name}", out / name))
            (temporary / name).rename(out / name)
            done.append((out / name, temporary / name))
    except BaseException:
        for now, before in reversed(done):
            now.rename(before)
        raise


@contextlib.contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        if any(sign in str(error) for sign in FULL):
            raise NLAError(
                f"The disk that holds {out} is full",
                why=f"Writing the export stopped with: {error}; nothing of it was left there",
                fix="Free some space, choose another --out, or a smaller --dtype",
            ) from error
        raise NLAError(
            f"The export to {out} could not be written",
            why=f"{type(error).__name__}: {error}; nothing of it was left there",
            fix="Check the path and its permissions, then run the same command again",
        ) from error
