"""The numbers of the rule in `standing.py`: read from a file that the fitting command writes.

Knows their names, their file and a hash that says which of them a derived file was made with. Does
not know the rule. The decision a reader would question: thresholds are data beside the code, not
constants in it, so that fitting again changes a JSON file in a reviewable way, and every file
computed with the old ones is seen to be out of date.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nla_core.errors import NLAError
from nla_core.store.files import sha256_json

THRESHOLDS_FILE = Path(__file__).with_name("thresholds.json")

RULE_VERSION = 1
"""Raised when the rule itself changes what it says for the same thresholds."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """All between 0 and 1. ``word_*`` are cosines of single words, ``sentence_*`` mixed scores of
    shared words and meaning, of which ``sentence_mix`` is the weight of the words.
    """

    word_said: float
    word_foreseen: float
    word_unspoken: float
    sentence_mix: float
    sentence_said: float
    sentence_foreseen: float
    sentence_unspoken: float

    @property
    def key(self) -> str:
        """12 hex digits that change with any threshold and with the rule."""
        return sha256_json({"rule": RULE_VERSION, **asdict(self)})[:12]

    @classmethod
    def load(cls, path: Path = THRESHOLDS_FILE) -> Thresholds:
        """Raises NLAError for a file that is missing, lacks a field or holds no share."""
        wanted = [field.name for field in fields(cls)]
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            values = {name: float(data[name]) for name in wanted}
            bad = [name for name, value in values.items() if not 0.0 <= value <= 1.0]
            if bad:
                raise ValueError(f"{bad[0]} is {values[bad[0]]}, not between 0 and 1")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NLAError(
                f"The thresholds in {path} cannot be used",
                why=f"reading them gave: {error!r}",
                fix="Restore the file (git checkout) or fit it again: "
                "`python -m precompute eval-compare --fit`",
            ) from error
        return cls(**values)
