"""Verb ``publish``: finished shards in, a dataset version out.

The git commit is recorded but does not name the version, so that publishing the same rows from
another commit changes nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nla_core.data import fulltext as fts
from nla_core.data import vectors
from nla_core.data.dataset import Dataset
from nla_core.data.manifest import read_manifest
from nla_core.data.publish import publish
from nla_core.data.transfer import Store, push
from nla_core.embed import Embedder, MiniLM
from nla_core.errors import EXIT_OK
from precompute.mirror import find_workspace
from precompute.output import write_result
from precompute.places import add_place_arguments, place_of
from precompute.progress import LOG_SECONDS
from precompute.workspace import Workspace

DERIVE_FROM = vectors.APPROXIMATE_FROM
"""Readings from which on the first visitor would wait too long for what the app derives."""

HELP = (
    "Embed the explanations of a finished run and publish it as a dataset version. Publishing the "
    "same shards again gives the same version; versions are never overwritten."
)
EXAMPLE = "python -m precompute publish --out data/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_place_arguments(parser, "the --out of the run")
    parser.add_argument(
        "--config", metavar="HASH", help="which run, where --out holds more than one"
    )


def main(args: argparse.Namespace) -> int:
    place = place_of(args)
    workspace = find_workspace(place.local, args.config, place.store)
    version = publish_workspace(workspace, place.local, MiniLM(), say=print, store=place.store)
    write_result(args, {"out": str(args.out), "config": workspace.config_hash, "version": version})
    return EXIT_OK


def publish_workspace(
    workspace: Workspace,
    out: Path,
    embedder: Embedder,
    *,
    say: Callable[[str], None],
    store: Store | None = None,
) -> str:
    """Publish all shards of a workspace under ``out``, then in ``store``; return the version.

    Raises NLAError if a shard is missing or the rows do not fit together.
    """
    parts = workspace.parts()
    say("Embedding the explanations and publishing")
    config = workspace.config
    done, said_at = 0, time.monotonic()

    def embed(texts: Sequence[str]) -> np.ndarray:
        nonlocal done, said_at
        vectors = embedder.embed(texts)
        done += len(texts)
        if time.monotonic() - said_at > LOG_SECONDS:
            said_at = time.monotonic()
            say(f"{done:,} explanations embedded")
        return vectors

    version = publish(
        out,
        parts,
        embed=embed,
        pair=config["pair"],
        corpus=config["corpus"],
        settings={**config["settings"], "embedder": embedder.name},
        git_commit=git_commit(),
    )
    say(f"Published {out / version}")
    if store is None:
        derive_large(out, version, say=say)
    else:  # `fetch` derives, where the dataset is opened
        push(out, version, store, say=say)
    return version


def derive_large(out: Path, version: str, *, say: Callable[[str], None]) -> None:
    """`derive` where the first visitor would wait too long otherwise."""
    if read_manifest(out / version).counts["readings"] >= DERIVE_FROM:
        derive(out, version, say=say)


def derive(out: Path, version: str, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Build the files beside a version that the app opens: database, full text, index of vectors.

    The app builds what is missing, too, but of ten million readings that takes an hour, and
    nobody should wait for it in front of a page. An index that could not be built is reported: the
    app then compares all vectors. Raises NLAError for a disk that refuses the others.
    """
    say("Building the database, the full text and the index of vectors")
    dataset = Dataset.open(out, version)
    fts.FullText(dataset).close()
    if note := vectors.open_index(dataset).note:
        say(note)


def git_commit() -> str | None:
    """The commit of the code that runs, ``-dirty`` if it was changed; None outside of git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
