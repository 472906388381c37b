"""Verb ``verify``: is a published dataset what its manifest says?

Knows how the findings are told. What must hold is in `nla_core.data.publish`. The decision a
reader would question: a damaged dataset is a failed check (exit 1), a missing one is bad input
(exit 2); a script that guards a release wants to tell them apart.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nla_core.data.manifest import current_version, read_manifest
from nla_core.data.publish import problems
from nla_core.errors import EXIT_CHECK_FAILED, EXIT_OK, NLAError
from precompute.output import write_result

HELP = (
    "Check a published dataset: the hash of every file, row counts, columns, order, that every "
    "reading belongs to a token and a transcript, numbers, and that vectors match readings."
)
EXAMPLE = "python -m precompute verify data/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, metavar="DIR", help="the dataset, e.g. data/demo")
    parser.add_argument("--version", metavar="V", help="a version other than the current one")


def main(args: argparse.Namespace) -> int:
    version = args.version or current_version(args.dataset)
    directory = args.dataset / version
    if args.version and not directory.is_dir():
        raise NLAError(
            f"{args.dataset} has no version {version}",
            why=f"there is no folder {directory}",
            fix="Leave --version out to check the current one",
        )
    counts: dict[str, int] = {}
    try:
        manifest = read_manifest(directory)
        found = problems(directory, manifest)
        counts = dict(manifest.counts)
    except NLAError as error:  # the manifest itself is what is wrong
        found = [str(error)]
    for line in found:
        print(f"FAILED {line}")
    if not found:
        listed = ", ".join(f"{rows:,} {name}" for name, rows in sorted(counts.items()))
        print(f"OK {directory}: {listed}")
    write_result(
        args,
        {
            "ok": not found,
            "dataset": str(args.dataset),
            "version": version,
            "counts": counts,
            "problems": found,
        },
    )
    return EXIT_CHECK_FAILED if found else EXIT_OK
