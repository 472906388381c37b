"""All readings and windows of a dataset as vectors, scored for concepts in one pass.

Knows how a dataset becomes the columns that `audit.py` counts. Does not know how they are stored or
shown. The decision a reader would question: the visible text is scored by its windows, the same
twelve words that claims are held against, since a whole transcript has no one meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nla_core.compare.audit import AuditColumns
from nla_core.compare.concepts import Matcher, unrelated_texts
from nla_core.compare.semantic import Embed, window_ranges
from nla_core.compare.transcript import visible_of
from nla_core.schema import DISTRUSTED
from nla_core.store.dataset import Dataset
from nla_core.store.vector_shards import Rows


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
