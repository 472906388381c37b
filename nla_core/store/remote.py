"""An object store behind a URL: bytes and files in and out, its refusals in words.

Knows fsspec, and what its stores raise. Does not know what the objects mean. The decision a reader
would question: whatever a store raises that is no mistake of Python's own is told as an NLAError.
Every store brings exceptions of its own, from packages that need not be installed here, so they
are told apart by their names.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from nla_core.errors import NLAError

PACKAGES: Final = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs",
                   "az": "adlfs"}  # fmt: skip
"""What has to be installed for a protocol that fsspec knows; it names the others itself."""

_KEYLESS: Final = ("NoCredential", "PartialCredential", "CredentialRetrieval", "DefaultCredential",
                   "TokenRetrieval", "ProfileNotFound")  # fmt: skip


def is_url(text: str) -> bool:
    """Whether ``text`` names a store and not a folder."""
    return "://" in text


@dataclass(frozen=True, slots=True)
class Store:
    """The objects below one URL, by name relative to it. Pickled, it is opened where it arrives.

    Credentials, endpoints and regions are what the store's own library finds in the environment.
    Every method raises NLAError where the store refuses or cannot be reached.
    """

    url: str

    def __post_init__(self) -> None:
        self._open()

    def names(self, under: str = "") -> dict[str, int]:
        """The objects below the folder ``under``: name to size in bytes."""
        fs, root = self._open()
        with self.told("listing"):
            fs.invalidate_cache()  # what others have put there since counts
            folder = f"{root}/{under}".rstrip("/")
            try:
                found = fs.find(folder, detail=True)
            except FileNotFoundError:
                found = {}
        return {
            name.strip("/").removeprefix(root.strip("/")).lstrip("/"): int(entry["size"])
            for name, entry in found.items()
        }

    def read(self, name: str) -> bytes | None:
        """One small object; None if it is not there."""
        fs, root = self._open()
        with self.told("reading", name):
            try:
                content: bytes = fs.cat_file(f"{root}/{name}")
            except FileNotFoundError:
                return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Replace one small object."""
        fs, root = self._open()
        with self.told("writing", name):
            self._make_folder(fs, f"{root}/{name}")
            fs.pipe_file(f"{root}/{name}", content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object that must not be there; False if it is.

        In one step where the store can do so, as S3 can; elsewhere two that ask at the same moment
        may both be told True.
        """
        fs, root = self._open()
        with self.told("writing", name):
            self._make_folder(fs, f"{root}/{name}")
            try:
                fs.pipe_file(f"{root}/{name}", content, mode="create")
            except FileExistsError:
                return False
        return True

    def delete(self, name: str) -> None:
        """Remove one object, if it is there."""
        fs, root = self._open()
        with self.told("deleting", name), contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{root}/{name}")

    def put(self, file: Path, name: str) -> None:
        """Write a file of any size."""
        fs, root = self._open()
        with self.told("writing", name):
            self._make_folder(fs, f"{root}/{name}")
            fs.put_file(str(file), f"{root}/{name}")

    def get(self, name: str, file: Path) -> bool:
        """Read an object of any size into ``file``; False if it is not there."""
        fs, root = self._open()
        with self.told("reading", name):
            try:
                fs.get_file(f"{root}/{name}", str(file))
            except FileNotFoundError:
                return False
        return True

    def _make_folder(self, fs: Any, path: str) -> None:
        """Where stores have folders. Asked for one, s3fs would make a bucket that is missing."""
        if urlsplit(self.url).scheme not in PACKAGES:
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)

    def _open(self) -> tuple[Any, str]:
        """The file system, one a process and URL, and where the root lies in it."""
        import fsspec

        scheme = urlsplit(self.url).scheme
        try:
            fs, root = fsspec.url_to_fs(self.url)
        except ImportError as error:
            package = PACKAGES.get(scheme)
            raise NLAError(
                f"{self.url} cannot be opened",
                why=f"{scheme}:// needs a package that is not installed ({error})",
                fix=f"Install it: pip install {package}"
                + (" (its pin is in requirements-cloud.txt)" if package == "s3fs" else "")
                if package
                else "Install what it names",
            ) from error
        except ValueError as error:
            raise NLAError(
                f"{self.url} cannot be opened",
                why=f"fsspec says: {error}",
                fix="Write a folder, or a URL such as s3://bucket/prefix or gs://bucket/prefix",
            ) from error
        return fs, str(root).rstrip("/")

    @contextlib.contextmanager
    def told(self, doing: str, name: str = "") -> Iterator[None]:
        """Turn what the store raises into an NLAError; mistakes of this program pass."""
        try:
            yield
        except NLAError:
            raise
        except Exception as error:
            if type(error).__module__ == "builtins" and not isinstance(error, OSError):
                raise
            raise _refusal(self.url, f"{doing} {name}".strip(), error) from error


def _refusal(url: str, doing: str, error: Exception) -> NLAError:
    said = f"{doing} gave {type(error).__name__}: {str(error)[:300]}"
    scheme = urlsplit(url).scheme
    if any(mark in type(error).__name__ for mark in _KEYLESS):
        return NLAError(
            f"There are no credentials for {url}",
            why=said,
            fix="Set them as its library expects: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or "
            "a profile for s3, GOOGLE_APPLICATION_CREDENTIALS for gs",
        )
    if isinstance(error, PermissionError):
        return NLAError(
            f"{url} refuses access",
            why=said,
            fix="Check whose credentials these are and that they may list, read, write and delete "
            "below that prefix",
        )
    if isinstance(error, FileNotFoundError):
        return NLAError(
            f"There is no {scheme} bucket or folder for {url}",
            why=said,
            fix="Check the name, or make the bucket first; buckets are never made by this program",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NLAError(
            f"There is no space left for {url}",
            why=said,
            fix="Free some space, here or there, and run the same command again; what was "
            "finished is kept",
        )
    return NLAError(
        f"{url} cannot be used at the moment",
        why=said,
        fix="What was finished is kept in the local folder. Run the same command again when the "
        "store can be reached; it goes on where it stopped",
    )
