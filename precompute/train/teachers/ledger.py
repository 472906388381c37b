"""Answers that were paid for, on disk: one line each, never asked for twice.

Knows the file and what a question's key is. Knows nothing of services. The decision a reader would
question: the raw answer is kept, not the label, so that a better clean-up costs nothing; and a line
that a killed process left half-written is dropped, not refused.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nla_core.errors import NLAError
from nla_core.store.files import explained, sha256_json


class Ledger:
    """The answers of one file by key; appending is safe from many threads of one process."""

    def __init__(self, path: Path) -> None:
        """Read what is there. Raises NLAError where a line but the last is damaged."""
        self.path = path
        self._lock = threading.Lock()
        self._answers: dict[str, str] = {}
        self.input_tokens = self.output_tokens = 0
        if path.is_file():
            self._read()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> str | None:
        return self._answers.get(key)

    def add(self, key: str, text: str, input_tokens: int, output_tokens: int) -> None:
        """Keep one answer; it is on disk when this returns."""
        line = json.dumps(
            {
                "key": key,
                "text": text,
                "input_tokens": input_tokens,
                "output_tokens": output_tokens,
            }
        )
        with self._lock, explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            self._take(json.loads(line))

    def _take(self, row: Mapping[str, Any]) -> None:
        self._answers[row["key"]] = row["text"]
        self.input_tokens += int(row["input_tokens"])
        self.output_tokens += int(row["output_tokens"])

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole, _, torn = data.rpartition(b"\n")
        if torn:
            # The next line must not be appended to half of one.
            os.truncate(self.path, len(data) - len(torn))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, LookupError, TypeError) as error:
                raise NLAError(
                    f"{self.path}, line {number} is not an answer",
                    why=f"{type(error).__name__}: {error}",
                    fix="Delete this line; its question is then asked again",
                ) from None


def key_of(**question: Any) -> str:
    """The key of a question: a hash of all that its answer depends on."""
    return sha256_json(question)
