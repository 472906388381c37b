"""A watchlist of concepts: read, checked, matched by example phrases, scored over a dataset."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from nla_core.analysis.audit import AuditColumns
from nla_core.analysis.semantic import Embed, window_ranges
from nla_core.analysis.transcript import visible_of
from nla_core.data.dataset import Dataset
from nla_core.data.files import explained, sha256_json, write_atomic
from nla_core.data.vector_shards import Rows
from nla_core.errors import NLAError
from nla_core.paths import home
from nla_core.schema import DISTRUSTED

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
            fix="Give a UTF-8 JSON file such as nla_core/analysis/concepts.json",
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
        fix="Correct it; nla_core/analysis/concepts.json is a file that is read",
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


@dataclass(frozen=True, slots=True)
class Corpus:
    """A dataset in the order of its readings file; transcripts by id.

    ``vectors`` ``[reading, d]``, ``transcript`` ``[reading]`` (index into ``transcript_ids``),
    ``fve`` and ``trusted`` ``[reading]``; ``window_vectors`` ``[window, d]`` with their owner and
    token positions (inclusive).
    """

    transcript_ids: tuple[str, ...]
    categories: tuple[str, ...]
    vectors: Rows
    texts: tuple[str, ...]
    transcript: np.ndarray
    position: np.ndarray
    sample: np.ndarray
    fve: np.ndarray
    trusted: np.ndarray
    window_vectors: np.ndarray
    window_texts: tuple[str, ...]
    window_owner: np.ndarray
    window_first: np.ndarray
    window_last: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, embed: Embed) -> Corpus:
        """Reads every transcript once and embeds its windows."""
        listed = dataset.transcripts().sort_values("transcript_id", ignore_index=True)
        rows: dict[str, list[object]] = {
            name: [] for name in ("texts", "transcript", "position", "sample", "fve", "trusted")
        }
        windows: list[tuple[int, str, int, int]] = []
        for index, transcript_id in enumerate(listed["transcript_id"]):
            readings = dataset.readings(transcript_id)
            rows["texts"] += readings["explanation"].tolist()
            rows["transcript"] += [index] * len(readings)
            for name in ("position", "sample", "fve"):
                rows[name] += readings[name].tolist()
            rows["trusted"] += [DISTRUSTED.isdisjoint(flags) for flags in readings["flags"]]
            tokens = dataset.tokens(transcript_id)
            visible = visible_of({name: tokens[name].tolist() for name in tokens.columns})
            for start, end in window_ranges(visible):
                span = visible.span(start, end)
                windows.append((index, visible.text[start:end], span.first, span.last))
        texts = tuple(text for _, text, _, _ in windows)
        return cls(
            transcript_ids=tuple(listed["transcript_id"]),
            categories=tuple(listed["category"]),
            vectors=dataset.explanation_vectors(),
            texts=tuple(map(str, rows["texts"])),
            transcript=np.array(rows["transcript"], np.int32),
            position=np.array(rows["position"], np.int32),
            sample=np.array(rows["sample"], np.int32),
            fve=np.array(rows["fve"], np.float32),
            trusted=np.array(rows["trusted"], bool),
            window_vectors=embed(texts),
            window_texts=texts,
            window_owner=np.array([owner for owner, _, _, _ in windows], np.int32),
            window_first=np.array([first for _, _, first, _ in windows], np.int32),
            window_last=np.array([last for _, _, _, last in windows], np.int32),
        )

    def usable(self, fidelity_floor: float | None = None, *, flagged: bool = False) -> np.ndarray:
        """``[reading]`` bool: no distrusted flag (unless ``flagged``) and at least this FVE."""
        return usable(self.fve, self.trusted, fidelity_floor, flagged=flagged)


def usable(
    fve: np.ndarray, trusted: np.ndarray, fidelity_floor: float | None, *, flagged: bool
) -> np.ndarray:
    kept = np.ones(len(fve), bool) if flagged else trusted.copy()
    return kept if fidelity_floor is None else kept & (fve >= fidelity_floor)


@dataclass(frozen=True, slots=True)
class ConceptScores:
    """Scores of a corpus for a list of concepts, and of texts that hold none of them.

    ``readings`` ``[reading, concept]``, ``text`` and ``text_window`` ``[transcript, concept]``:
    the best window's score and its index (-1 for a transcript without words), ``windows``
    ``[transcript]`` their number, ``unrelated`` ``[text, concept]``.
    """

    readings: np.ndarray
    text: np.ndarray
    text_window: np.ndarray
    windows: np.ndarray
    unrelated: np.ndarray

    @classmethod
    def of(cls, corpus: Corpus, matcher: Matcher, embed: Embed) -> ConceptScores:
        needs_texts = any(concept.pattern for concept in matcher.concepts)
        readings = matcher.scores(corpus.vectors, corpus.texts if needs_texts else None)
        windows = matcher.scores(
            corpus.window_vectors, corpus.window_texts if needs_texts else None
        )
        n, k = len(corpus.transcript_ids), len(matcher.concepts)
        text, best = np.full((n, k), -1.0, np.float32), np.full((n, k), -1, np.int64)
        counts = np.bincount(corpus.window_owner, minlength=n)
        ends = np.cumsum(counts)
        for index in np.flatnonzero(counts):
            own = slice(ends[index] - counts[index], ends[index])
            text[index] = windows[own].max(axis=0)
            best[index] = own.start + windows[own].argmax(axis=0)
        neutral = unrelated_texts()
        unrelated = matcher.scores(embed(neutral), neutral if needs_texts else None)
        return cls(readings, text, best, counts, unrelated)

    def columns(self, corpus: Corpus, kept: np.ndarray) -> AuditColumns:
        """What `audit.audit_table` counts; ``kept`` ``[reading]`` bool."""
        return AuditColumns(
            scores=self.readings,
            transcript=corpus.transcript,
            usable=kept,
            text_scores=self.text,
            windows=self.windows,
            categories=np.array(corpus.categories, object),
            unrelated=self.unrelated,
        )
