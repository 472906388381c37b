"""What people keep of their own: an edited watchlist, and verdicts on matches.

Knows where both lie (``data/own``, which no repository carries) and how they are written whole.
Does not know how a concept is matched. The decision a reader would question: verdicts are lines
that are only ever added, the last one on a reading counts; so two windows cannot lose each other's
work, and taking a verdict back is one more line.
"""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, get_args

from nla_core.compare.concepts import (
    SHIPPED,
    Concept,
    dump_concepts,
    parse_concepts,
    read_concepts,
)
from nla_core.errors import NLAError
from nla_core.paths import home
from nla_core.store.files import explained, write_atomic

OWN_VARIABLE: Final = "NLA_OWN"
"""Folder of what people keep of their own; ``data/own`` without it."""

Verdict = Literal["confirmed", "rejected", "open"]
"""``open`` takes an earlier verdict back."""

_LOCK: Final = threading.Lock()


def own_folder() -> Path:
    return Path(os.environ.get(OWN_VARIABLE) or home() / "own")


def watchlist() -> tuple[tuple[Concept, ...], bool]:
    """The concepts in use, and whether they are people's own. Raises NLAError for a broken file."""
    path = own_folder() / "concepts.json"
    return (read_concepts(path), True) if path.is_file() else (read_concepts(SHIPPED), False)


def keep(text: str) -> tuple[Concept, ...]:
    """Check a watchlist and keep it as people's own; what was kept before stays if it is broken.

    Raises NLAError that names the line and the field.
    """
    concepts = parse_concepts(text, "the watchlist")
    folder = own_folder()
    with _LOCK, explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "concepts.json", dump_concepts(concepts))
    return concepts


def forget() -> None:
    """Back to the shipped watchlist."""
    with _LOCK, explained(own_folder()):
        (own_folder() / "concepts.json").unlink(missing_ok=True)


def judge(dataset: str, concept: str, reading_id: str, verdict: Verdict) -> None:
    """Keep one verdict. Raises NLAError where the disk refuses."""
    if verdict not in get_args(Verdict):
        raise NLAError(
            f"There is no verdict {str(verdict)[:20]!r}",
            why="a match is confirmed, rejected or open",
            fix="Use one of these",
        )
    line = json.dumps(
        {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "dataset": dataset,
            "concept": concept,
            "reading_id": reading_id,
            "verdict": verdict,
        }
    )
    path = own_folder() / "verdicts.jsonl"
    with _LOCK, explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as handle:
            handle.write(line + "\n")
            handle.flush()
            os.fsync(handle.fileno())


def verdicts(dataset: str, concept: str) -> dict[str, Verdict]:
    """The verdicts that count, by reading. A line that a crash cut short is passed over."""
    path = own_folder() / "verdicts.jsonl"
    found: dict[str, Verdict] = {}
    if not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            mine = row["dataset"] == dataset and row["concept"] == concept
            reading, verdict = str(row["reading_id"]), row["verdict"]
        except (ValueError, KeyError, TypeError):
            continue
        if mine and verdict in get_args(Verdict):
            found[reading] = verdict
    return {reading: verdict for reading, verdict in found.items() if verdict != "open"}
