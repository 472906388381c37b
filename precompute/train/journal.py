"""What a run on samples leaves to read: one JSON line a step, and samples beside their contexts.

Knows two files and how they are cut back when a run goes on from an earlier checkpoint. Knows
nothing of training. The decision a reader would question: lines after the checkpoint are dropped on
resume, because those steps are made again and would otherwise stand there twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nla_core.data.files import write_atomic

LOG, SAMPLES = "log.jsonl", "samples.txt"
HEADER = "==== step "
CONTEXT_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Shown:
    """One vector's samples, ready to be read; ``texts`` with their FVE, best first."""

    context: str
    label: str
    texts: Sequence[tuple[float, str]]


class Journal:
    """``out/log.jsonl`` and ``out/samples.txt``."""

    def __init__(self, out: Path, *, resumed_at: int | None) -> None:
        self.log, self.samples = out / LOG, out / SAMPLES
        step = -1 if resumed_at is None else resumed_at
        kept = [line for line in self.lines() if line["step"] <= step]
        write_atomic(self.log, "".join(json.dumps(line) + "\n" for line in kept))
        text = self.samples.read_text(encoding="utf-8") if self.samples.is_file() else ""
        blocks = [b for b in text.split(HEADER) if b and int(b.split(None, 1)[0]) <= step]
        write_atomic(self.samples, "".join(HEADER + block for block in blocks))

    def lines(self) -> list[dict[str, Any]]:
        if not self.log.is_file():
            return []
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def write(self, line: Mapping[str, Any]) -> None:
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(dict(line)) + "\n")

    def show(self, step: int, shown: Sequence[Shown]) -> None:
        """Append samples; whatever they hold, a block's first line is the only header."""
        parts = [f"{HEADER}{step}\n"]
        for item in shown:
            parts.append(f"context: …{_plain(item.context[-CONTEXT_CHARACTERS:])}\n")
            parts.append(f"label:   {_plain(item.label)}\n")
            parts += [f"{fve:+.2f}    {_plain(text)}\n" for fve, text in item.texts]
            parts.append("\n")
        with self.samples.open("a", encoding="utf-8") as stream:
            stream.write("".join(parts))


def _plain(text: str) -> str:
    return " ".join(text.replace(HEADER, "").split("\n"))
