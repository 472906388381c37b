"""A watchlist of concepts: read and checked from a file, matched to texts by example phrases.

Knows the form of a concept file and the score of a text: how much nearer it is to the phrases for a
concept than to those against it. Does not know readings or tables. The decision a reader would
question: the score subtracts the phrases *against*. Nearness alone mostly measures how much a text
looks like an explanation; what it is nearer to than a look-alike says more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nla_core.compare.semantic import Embed
from nla_core.errors import NLAError
from nla_core.store.files import sha256_json
from nla_core.store.vector_shards import Rows

SHIPPED = Path(__file__).with_name("concepts.json")
UNRELATED = Path(__file__).with_name("unrelated.json")
SCHEMA = 1
NEAREST = 2
"""Phrases on either side whose mean similarity counts: one may be near by accident."""

AGAINST = 0.5
"""Weight of the phrases against: chosen on the labelled half, where 0 and 1 both do worse."""

LONGEST_PHRASE = 400
PATTERN_SCORE = 1.0
"""Score of a text in which a concept's pattern is found."""
PIECE = 65_536
"""Vectors scored at a time: 100 MB of them in float32."""

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True, slots=True)
class Concept:
    """``threshold`` is the score from which on a text holds the concept, fitted on labelled
    texts for the shipped ones; ``pattern`` is a regular expression that decides by itself."""

    id: str
    name: str
    description: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    threshold: float
    pattern: str | None = None

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "positives": list(self.positives),
            "negatives": list(self.negatives),
            "threshold": self.threshold,
        }
        return data | ({"pattern": self.pattern} if self.pattern else {})


def concepts_key(concepts: Sequence[Concept]) -> str:
    """12 hex digits that change with anything that changes a match."""
    return sha256_json([concept.to_json() for concept in concepts])[:12]


def read_concepts(path: Path = SHIPPED) -> tuple[Concept, ...]:
    """The concepts of a file, in order. Raises NLAError naming line and field of what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NLAError(
            f"The concept file {path} cannot be read",
            why=str(error),
            fix="Give a UTF-8 JSON file such as nla_core/compare/concepts.json",
        ) from error
    return parse_concepts(text, str(path))


def parse_concepts(text: str, name: str = "the concept file") -> tuple[Concept, ...]:
    """`read_concepts` for a text that was uploaded; ``name`` is what errors call it."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise _wrong(name, error.lineno, "the file", f"it is no JSON: {error.msg}") from error
    if not isinstance(data, dict) or not isinstance(data.get("concepts"), list):
        raise _wrong(name, 1, "concepts", "the file has no list of this name")
    if data.get("schema", SCHEMA) != SCHEMA:
        raise _wrong(name, _line(text, '"schema"'), "schema", f"it is not {SCHEMA}")
    found: list[Concept] = []
    lines = _lines_of_entries(text, len(data["concepts"]))
    for entry, line in zip(data["concepts"], lines, strict=True):
        concept = _concept(entry, name, line)
        if concept.id in {other.id for other in found}:
            raise _wrong(name, line, "id", f"{concept.id!r} is used twice")
        found.append(concept)
    return tuple(found)


def dump_concepts(concepts: Sequence[Concept]) -> str:
    """The text of a file that `parse_concepts` reads back."""
    data = {"schema": SCHEMA, "concepts": [concept.to_json() for concept in concepts]}
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _concept(entry: Any, name: str, line: int) -> Concept:
    if not isinstance(entry, Mapping):
        raise _wrong(name, line, "concepts", "an entry is no object")
    allowed = {"id", "name", "description", "positives", "negatives", "threshold", "pattern"}
    if unknown := sorted(set(entry) - allowed):
        raise _wrong(name, line, unknown[0], "there is no such field")
    texts = {field: entry.get(field) for field in ("id", "name", "description")}
    for field, value in texts.items():
        if not isinstance(value, str) or not value.strip():
            raise _wrong(name, line, field, "it has to be a text that is not empty")
    if not _ID.fullmatch(entry["id"]):
        raise _wrong(name, line, "id", f"{entry['id']!r} is not of the form being-tested")
    for field in ("positives", "negatives"):
        phrases = entry.get(field)
        if not isinstance(phrases, list) or not all(
            isinstance(p, str) and p.strip() and len(p) <= LONGEST_PHRASE for p in phrases
        ):
            why = f"it has to be a list of phrases of at most {LONGEST_PHRASE} characters"
            raise _wrong(name, line, field, why)
    if not entry["positives"]:
        raise _wrong(name, line, "positives", "it needs at least one phrase")
    threshold = entry.get("threshold", 0.1)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise _wrong(name, line, "threshold", "it has to be a number")
    if not -1.0 <= threshold <= 1.0:
        raise _wrong(name, line, "threshold", f"{threshold} is not between -1 and 1")
    pattern = entry.get("pattern")
    if pattern is not None:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise _wrong(name, line, "pattern", f"it is no regular expression: {error}") from error
    return Concept(
        id=entry["id"],
        name=entry["name"].strip(),
        description=entry["description"].strip(),
        positives=tuple(entry["positives"]),
        negatives=tuple(entry["negatives"]),
        threshold=float(threshold),
        pattern=pattern or None,
    )


def _wrong(name: str, line: int, field: str, why: str) -> NLAError:
    return NLAError(
        f"{name}, line {line}: the field {field} is wrong",
        why=why,
        fix="Correct it; nla_core/compare/concepts.json is a file that is read",
    )


def _line(text: str, mark: str) -> int:
    at = text.find(mark)
    return text.count("\n", 0, at) + 1 if at >= 0 else 1


def _lines_of_entries(text: str, count: int) -> list[int]:
    """The line on which each entry of ``concepts`` begins; parsed JSON forgets where it was."""
    decoder = json.JSONDecoder()
    at = text.index("[", text.index('"concepts"')) + 1
    lines: list[int] = []
    for _ in range(count):
        while text[at] in " \t\r\n,":
            at += 1
        lines.append(text.count("\n", 0, at) + 1)
        _, at = decoder.raw_decode(text, at)
    return lines


def unrelated_texts() -> list[str]:
    """Texts that hold none of the shipped concepts: what matches here is noise."""
    return list(json.loads(UNRELATED.read_text(encoding="utf-8"))["texts"])


@dataclass(frozen=True, slots=True)
class Matcher:
    """Concepts with their phrases embedded, ready to score any number of texts."""

    concepts: tuple[Concept, ...]
    positives: tuple[np.ndarray, ...]  # each [phrase, d] of norm 1
    negatives: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, concepts: Sequence[Concept], embed: Embed) -> Matcher:
        return cls(
            tuple(concepts),
            tuple(embed(list(concept.positives)) for concept in concepts),
            tuple(embed(list(concept.negatives)) for concept in concepts),
        )

    @property
    def thresholds(self) -> np.ndarray:
        """``[concept]`` float32"""
        return np.array([concept.threshold for concept in self.concepts], np.float32)

    def scores(self, vectors: Rows, texts: Sequence[str] | None = None) -> np.ndarray:
        """``[text, concept]`` float32 for ``[text, d]`` rows of norm 1.

        Rows are read a piece at a time: those of a dataset lie on the disk. With ``texts``, a
        pattern that is found gives ``PATTERN_SCORE``.
        """
        result = np.zeros((len(vectors), len(self.concepts)), np.float32)
        for start in range(0, len(vectors), PIECE):
            piece = slice(start, start + PIECE)
            rows = np.asarray(vectors[piece], np.float32)
            for column, concept in enumerate(self.concepts):
                found = _nearness(rows, self.positives[column])
                if len(self.negatives[column]):
                    found -= AGAINST * _nearness(rows, self.negatives[column])
                if concept.pattern and texts is not None:
                    pattern = re.compile(concept.pattern, re.IGNORECASE)
                    hits = [bool(pattern.search(text)) for text in texts[piece]]
                    found[np.array(hits, bool)] = PATTERN_SCORE
                result[piece, column] = found
        return result


def _nearness(vectors: np.ndarray, phrases: np.ndarray) -> np.ndarray:
    similarities = vectors @ phrases.T
    k = min(NEAREST, similarities.shape[1])
    return np.partition(similarities, -k, axis=1)[:, -k:].mean(axis=1)
