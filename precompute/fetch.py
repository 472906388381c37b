"""Verb ``fetch``: a dataset in an object store becomes one in a folder, for the app to open.

Knows the arguments and what is said at the end. How files come over and are checked is in
`nla_core.data.transfer`. The decision a reader would question: the app opens folders only. A page
that waits for a bucket is slow, and a click that fails because of a network cannot be explained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nla_core.data.manifest import VERSION_FORM
from nla_core.data.transfer import Store, fetch, is_url
from nla_core.errors import EXIT_OK, NLAError
from precompute.output import write_result
from precompute.publish import derive_large

HELP = (
    "Fetch a published dataset from an object store into a folder and check every hash. Nothing is "
    "fetched twice: a version that is there already is kept. Open it with NLA_DATA=DIR."
)
EXAMPLE = "python -m precompute fetch s3://bucket/big data/big"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="the --out of the run, s3://bucket/prefix")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the dataset is to be")
    parser.add_argument("--version", metavar="V", help="a version other than the current one")


def main(args: argparse.Namespace) -> int:
    if not is_url(args.url):
        raise NLAError(
            f"{args.url} is no URL",
            why="fetch reads from an object store; a dataset in a folder can be opened as it is",
            fix="Write a URL such as s3://bucket/prefix, or set NLA_DATA to that folder",
        )
    if args.version is not None and not VERSION_FORM.fullmatch(args.version):
        raise NLAError(
            f"{args.version[:40]} is no version",
            why="a version looks like v-0123456789ab",
            fix="Leave --version out to get the current one",
        )
    version = fetch(Store(args.url.rstrip("/")), args.folder, version=args.version, say=print)
    derive_large(args.folder, version, say=print)  # a store has what was published, no more
    print(f"{args.folder / version} is whole. Open it: NLA_DATA={args.folder} make app")
    write_result(args, {"url": args.url, "out": str(args.folder), "version": version})
    return EXIT_OK
