"""What a verb says: lines for the person who waits, and its result for ``--json OUT``.

Knows where they go. Does not know what is in it: each verb hands over a flat, JSON-able dict. The
decision a reader would question: a file instead of stdout, so that people can read what scrolls by
while a program reads the result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nla_core.data.files import explained, write_json


def say(line: str) -> None:
    """A line for the person who waits, on stderr at once."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def write_result(args: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Write ``result`` to the file that ``--json`` names, if it was given; atomically.

    ``ok`` is true in it unless the verb says otherwise.
    Raises NLAError if the file cannot be written.
    """
    out: Path | None = getattr(args, "json", None)
    if out is not None:
        with explained(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, {"ok": True, **result})
