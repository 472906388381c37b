"""Versions to and from an object store behind a URL, checked on arrival."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Final
from urllib.parse import urlsplit
from nla_core.errors import NLAError
from collections.abc import Callable
from nla_core.data.files import building
from nla_core.data.files import explained
from nla_core.data.files import rename_into_place
from nla_core.data.files import write_atomic
from nla_core.data.manifest import CURRENT
from nla_core.data.manifest import MANIFEST
from nla_core.data.manifest import PARQUET
from nla_core.data.manifest import Manifest
from nla_core.data.manifest import checked_version
from nla_core.data.manifest import file_problems
from nla_core.data.manifest import read_manifest
from nla_core.data.vector_shards import names_in

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


Say = Callable[[str], None]


def push(root: Path, version: str, store: Store, *, say: Say) -> None:
    """Write a published version: its files, then its manifest, then the pointer to it.

    Objects that are there in their size are not sent again once the manifest is, since it was sent
    after them. A reader finds the version before or this one, at any moment. Raises NLAError.
    """
    directory = root / version
    manifest = read_manifest(directory)
    there = store.names(version)
    complete = f"{version}/{MANIFEST}" in there
    for name, entry in sorted(manifest.files.items()):
        target = f"{version}/{name}"
        if not complete or there.get(target) != entry.bytes:
            store.put(directory / name, target)
    store.put(directory / MANIFEST, f"{version}/{MANIFEST}")
    store.write(CURRENT, f"{version}\n".encode())
    say(f"Published {store.url.rstrip('/')}/{version}")


def fetch(store: Store, root: Path, *, version: str | None = None, say: Say) -> str:
    """The current version of a dataset in a store, or the named one, as a dataset at ``root``.

    Every file is held against its hash before the version gets its name; ``root/CURRENT`` then
    names it. Returns the version. Raises NLAError for a store without a dataset, one that holds
    something else than its manifest says, or a disk that refuses.
    """
    version = version or _current(store)
    final = root / version
    with explained(root):
        root.mkdir(parents=True, exist_ok=True)
        if _is_whole(final):
            say(f"{final} is there already")
        else:
            _fetch_version(store, version, final, say)
        write_atomic(root / CURRENT, version + "\n")
    return version


def _is_whole(final: Path) -> bool:
    """Whether the version is there; what is damaged is fetched again, its manifest included."""
    try:
        return final.is_dir() and not file_problems(final, read_manifest(final), hashes=False)
    except NLAError:
        return False


def _fetch_version(store: Store, version: str, final: Path, say: Say) -> None:
    with building(final.parent) as temporary:
        directory = temporary / version  # a manifest is held against the name of its folder
        directory.mkdir()
        if not store.get(f"{version}/{MANIFEST}", directory / MANIFEST):
            raise NLAError(
                f"{store.url} has no version {version}",
                why=f"there is no {version}/{MANIFEST}",
                fix="Leave the version out to get the current one",
            )
        manifest = read_manifest(directory)
        names = _plain_names(manifest, store)
        total = sum(manifest.files[name].bytes for name in names)
        say(f"Fetching {version}: {len(names)} files, {total / 1e6:,.1f} MB")
        for name in names:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            store.get(f"{version}/{name}", directory / name)
        if found := file_problems(directory, manifest, hashes=True):
            raise NLAError(
                f"{store.url} does not hold what the manifest of {version} says",
                why="; ".join(found),
                fix="Delete these objects and publish again from where it was made "
                "(`python -m precompute publish`). Nothing was changed here",
            )
        if not rename_into_place(directory, final):
            _mend(directory, final, temporary)


def _mend(directory: Path, final: Path, scratch: Path) -> None:
    """Something has the name already: another fetch was first, or what is there is damaged."""
    if not _is_whole(final) or file_problems(final, read_manifest(directory), hashes=True):
        final.rename(scratch / "damaged")
        rename_into_place(directory, final)


def _plain_names(manifest: Manifest, store: Store) -> list[str]:
    """The files of a manifest from elsewhere: tables and vectors, which hashes vouch for.

    NLAError for any other: it might land outside its folder, or be a database or an index that
    the app would open instead of deriving its own.
    """
    names = sorted(manifest.files)
    known = {*PARQUET.values(), *names_in(names)}
    if strange := [name for name in names if name not in known]:
        raise NLAError(
            f"The manifest in {store.url} is none of ours",
            why=f"it names the file {strange[0]!r}",
            fix="Fetch a dataset that `python -m precompute run` has published",
        )
    return names


def _current(store: Store) -> str:
    content = store.read(CURRENT)
    if content is None:
        raise NLAError(
            f"There is no dataset at {store.url}",
            why=f"it has no {CURRENT}, which is written last when a run is published",
            fix="Check the URL, or wait until the run that writes there is done",
        )
    return checked_version(
        content.decode("utf-8", "replace").strip(),
        f"{CURRENT} in {store.url}",
        fix="Publish again from where it was made (`python -m precompute publish`)",
    )
