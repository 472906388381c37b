"""``python -m precompute VERB``: the verbs, and what every one of them has in common.

Knows names, one line about each, exit codes and how errors are told. Does not know what a verb
does: that is a module with ``HELP``, ``EXAMPLE``, ``add_arguments(parser)`` and ``main(args) ->
int``. The decision a reader would question: only the module of the verb at hand is imported, so
that ``--help`` and ``verify`` do not wait for torch.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import shlex
import sys
import textwrap
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nla_core.errors import EXIT_BAD_INPUT, Cancelled, NLAError
from precompute.output import write_result

PROGRAM = "python -m precompute"
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Verb:
    """``about`` is its line in the overview; the module says the rest."""

    name: str
    module: str
    about: str


VERBS = (
    Verb("app", "precompute.serve", "serve the explorer on this machine"),
    Verb("run", "precompute.run", "explain every token of a corpus and publish the dataset"),
    Verb("plan", "precompute.cost", "say what a run would take: time, memory, disk, price"),
    Verb("transcripts", "precompute.transcripts", "conversations from elsewhere as a corpus"),
    Verb("publish", "precompute.publish", "publish the finished shards of a run"),
    Verb("fetch", "precompute.fetch", "fetch a published dataset from an object store"),
    Verb("compare", "precompute.compare", "hold every explanation against the visible text"),
    Verb("verify", "precompute.verify", "check a published dataset, byte for byte"),
    Verb("testset", "precompute.testset", "record the held-out vectors a pair is measured on"),
    Verb("eval", "precompute.eval", "measure a pair on held-out vectors, beside its floors"),
    Verb("eval-compare", "precompute.eval_compare", "measure standings and concepts on labels"),
    Verb("audit", "precompute.audit", "count concepts over a dataset; dump transcripts as text"),
    Verb("doctor", "precompute.doctor", "check that a pair fits its target, and say what does not"),
    Verb("steer", "precompute.steer", "measure the steering presets on held-out seeds"),
    Verb("export", "precompute.export.cli", "write a pair as the published ones are laid out"),
    Verb("train", "precompute.train.cli", "train a pair: labels, activations, AR, AV"),
)


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The parser of all verbs, with the arguments of ``verb`` only."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Work that is done once, ahead of the app: datasets and pairs.",
        epilog="Exit codes: 0 fine, 1 the check failed, 2 bad input. "
        f"`{PROGRAM} VERB --help` shows an example of each.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for entry in VERBS:
        child = verbs.add_parser(
            entry.name,
            help=entry.about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            conflict_handler="resolve",  # a verb may describe --json in its own words
        )
        if entry.name == verb:
            module = importlib.import_module(entry.module)
            child.description = textwrap.fill(module.HELP, 90)
            child.epilog = f"example:\n  {module.EXAMPLE}"
            child.set_defaults(main=module.main)
            child.add_argument(
                "--json", type=Path, metavar="OUT", help="write the result to OUT as JSON"
            )
            module.add_arguments(child)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; argparse's own refusals exit with 2 as well."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser(next((word for word in argv if not word.startswith("-")), None))
    args = parser.parse_args(argv)
    try:
        return int(args.main(args))
    except NLAError as error:
        return _refuse(args, error)
    except (KeyboardInterrupt, Cancelled):
        print(
            "\nInterrupted. What was finished is kept; run the same command again to go on:\n"
            f"  {PROGRAM} {shlex.join(argv)}",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _refuse(args, _disk_full(error))
        traceback.print_exc()
        print(
            "\nThis is a mistake in NLA Explorer, not in what you gave it. Please report it with "
            "the lines above. What was finished is kept.",
            file=sys.stderr,
        )
        return EXIT_BUG


def _refuse(args: argparse.Namespace, error: NLAError) -> int:
    print(f"Error: {error}", file=sys.stderr)
    try:
        write_result(
            args,
            {"ok": False, "error": {"what": error.what, "why": error.why, "fix": error.fix}},
        )
    except NLAError as second:
        print(f"Error: {second}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _disk_full(error: OSError) -> NLAError:
    return NLAError(
        "The disk is full",
        why=f"writing {error.filename or 'a file'} stopped with: {error.strerror}",
        fix="Free some space and run the same command again; what was finished is kept",
    )
