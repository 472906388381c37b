"""Published versions to and from a store: whole for every reader, checked on arrival.

Knows in which order the objects of a version are written, and what is checked before a fetched one
gets its name. Does not know how it was made. The decision a reader would question: a version that
is there is not fetched again, whatever its age; its name is a hash of its content, so the folder
of datasets is its own cache, and asking again costs one small object.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nla_core.errors import NLAError
from nla_core.store.files import building, explained, rename_into_place, write_atomic
from nla_core.store.manifest import (
    CURRENT,
    MANIFEST,
    PARQUET,
    Manifest,
    checked_version,
    file_problems,
    read_manifest,
)
from nla_core.store.remote import Store
from nla_core.store.vector_shards import names_in

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
