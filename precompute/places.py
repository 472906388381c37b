"""Where ``--out`` is: a folder, or a store with a folder of this machine to work in.

Knows how the two are told apart and where the folder is by default. Does not know what is written
there. The decision a reader would question: a ``file://`` URL is a folder like any other, since a
folder can do everything a store cannot.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nla_core.data.transfer import Store, is_url
from nla_core.errors import NLAError


@dataclass(frozen=True, slots=True)
class Place:
    """``local`` is where work is done; ``store`` holds its copy, if there is one."""

    local: Path
    store: Store | None

    @property
    def name(self) -> str:
        """The last part of what was written."""
        if self.store is None:
            return self.local.resolve().name
        parts = urlsplit(self.store.url)
        return parts.path.rstrip("/").rpartition("/")[2] or parts.netloc


def add_place_arguments(parser: argparse.ArgumentParser, about: str) -> None:
    """``--out`` and ``--local``."""
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help=f"{about}: a folder, or a URL of an object store such as s3://bucket/prefix",
    )
    parser.add_argument(
        "--local",
        type=Path,
        metavar="DIR",
        help="where --out is a URL: the folder to work in (default: one in the cache)",
    )


def place_of(args: argparse.Namespace) -> Place:
    """What ``--out`` and ``--local`` mean. Raises NLAError for a URL that cannot be opened."""
    from nla_core.models.checkpoints import cache_dir

    out: str = str(args.out)
    if not is_url(out) or urlsplit(out).scheme == "file":
        if args.local is not None:
            raise NLAError(
                f"--local {args.local} means nothing here",
                why=f"--out {out} is a folder, so that is where the work is done",
                fix="Leave --local away",
            )
        return Place(Path(_path_of(out) if is_url(out) else out), None)
    url = out.rstrip("/")
    key = hashlib.sha256(url.encode()).hexdigest()[:12]
    local = args.local or cache_dir() / "stores" / key
    return Place(local, Store(url))


def _path_of(url: str) -> str:
    """The folder of a ``file://`` URL, read as by fsspec: `fetch` finds what `run` wrote."""
    import fsspec

    return str(fsspec.url_to_fs(url)[1])
