"""One transcript as the page needs it: chips, readings by position, and who stands beside whom.

Knows how tokens that share a character become one chip, and which chips a reader may step to. Does
not know colours, components or where rows come from. The decision a reader would question: it is
built once from the frames and is immutable, so every session shares one copy and a click costs a
dictionary look-up.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from nla_core.analysis.visible import joined
from nla_core.schema import Section, Status


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """One row of ``schema.TOKENS``; see there for units."""

    position: int
    chip: int
    text: str
    role: str
    section: str
    turn: int
    norm: float
    norm_pct: float
    surprisal: float | None
    top_tokens: tuple[str, ...]
    top_probs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ReadingFacts:
    """One row of ``schema.READINGS``; see there for units."""

    reading_id: str
    position: int
    sample: int
    explanation: str
    finish: str
    mse_nrm: float
    cosine: float
    centred_cosine: float
    fve: float
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chip:
    """What is drawn as one piece: a token, or the tokens whose bytes make up one character.

    ``position`` is the token that stands for it: the last one with a reading (only there is the
    character complete), else the last one.
    """

    index: int
    text: str
    turn: int
    role: str
    markup: bool
    positions: tuple[int, ...]
    position: int


@dataclass(frozen=True)
class TranscriptView:
    transcript_id: str
    prompt_id: str
    title: str
    category: str
    tags: tuple[str, ...]
    status: str
    error: str | None
    messages: tuple[tuple[str, str], ...]  # (role, content), for transcripts without tokens
    n_answer_tokens: int
    answer_finish: str
    tokens: tuple[TokenFacts, ...]  # tokens[i].position == i
    chips: tuple[Chip, ...]
    readings: Mapping[int, tuple[ReadingFacts, ...]]  # by position, then by sample

    @classmethod
    def of(cls, row: pd.Series, tokens: pd.DataFrame, readings: pd.DataFrame) -> TranscriptView:
        """From one row of transcripts and the frames that belong to it."""
        facts = tuple(_token(record) for record in tokens.to_dict("records"))
        by_position: dict[int, list[ReadingFacts]] = {}
        for record in readings.to_dict("records"):
            reading = _reading(record)
            by_position.setdefault(reading.position, []).append(reading)
        return cls(
            transcript_id=str(row["transcript_id"]),
            prompt_id=str(row["prompt_id"]),
            title=str(row["title"]),
            category=str(row["category"]),
            tags=tuple(row["tags"]),
            status=str(row["status"]),
            error=_text_or_none(row["error"]),
            messages=tuple((m["role"], m["content"]) for m in json.loads(row["messages"])),
            n_answer_tokens=int(row["n_answer_tokens"]),
            answer_finish=str(row["answer_finish"]),
            tokens=facts,
            chips=chips_of(facts, by_position.keys()),
            readings={position: tuple(found) for position, found in by_position.items()},
        )

    @property
    def failed(self) -> bool:
        return self.status != Status.OK

    def reading(self, position: int, sample: int = 0) -> ReadingFacts | None:
        """The reading of that sample, the first one if there is no such sample, or None."""
        found = self.readings.get(position, ())
        return next((r for r in found if r.sample == sample), found[0] if found else None)

    def chip_of(self, position: int) -> Chip:
        return self._chip_at[position]

    def nearest(self, position: int) -> int | None:
        """``position`` if it exists, else the last token before it; None without tokens."""
        return min(position, len(self.tokens) - 1) if self.tokens else None

    def step(self, position: int, by: int, *, markup: bool) -> int | None:
        """The position of the chip ``by`` chips further; None beyond either end.

        Chips of the chat template count only with ``markup``.
        """
        stops = self._stops if not markup else self._all_stops
        here = self.chip_of(position).index
        at = bisect_left(stops, here)
        standing = at < len(stops) and stops[at] == here
        # From a hidden chip the first step forward is to the stop that follows it.
        target = at + by if standing or by < 0 else at + by - 1
        return self.chips[stops[target]].position if 0 <= target < len(stops) else None

    def fidelity_line(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Positions with a reading, in order, and the FVE of the first sample at each."""
        positions = tuple(sorted(self.readings))
        return positions, tuple(self.readings[p][0].fve for p in positions)

    def invitation(self) -> int | None:
        """A token worth meeting first: the best unflagged reading, of the answer if it has one.

        None only where there are no readings.
        """
        every = [found[0] for found in self.readings.values()]
        candidates = [r for r in every if not r.flags] or every
        answer = [r for r in candidates if self.tokens[r.position].role == "assistant"]
        # A word says more than the comma after it.
        words = [
            r
            for r in answer or candidates
            if sum(c.isalpha() for c in self.tokens[r.position].text) > 2
        ]
        pool = words or answer or candidates
        return max(pool, key=lambda r: (r.fve, -r.position)).position if pool else None

    def text_until(self, position: int) -> str:
        """The visible text up to and including a token: what the model had read there."""
        return self.visible[: self._ends[position]]

    def text_after(self, position: int) -> str:
        return self.visible[self._ends[position] :]

    def text_holds(self, phrase: str) -> tuple[int, ...]:
        """Positions of the tokens in whose reach the phrase stands in the visible text, whatever
        its case: the last token of each occurrence, since only there it is complete."""
        wanted, text = phrase.lower(), self.visible.lower()
        if not wanted or len(text) != len(self.visible):  # lowering can change a text's length
            wanted, text = phrase, self.visible
        found: list[int] = []
        at = text.find(wanted) if wanted else -1
        while at >= 0:
            found.append(bisect_left(self._ends, at + len(wanted)))
            at = text.find(wanted, at + len(wanted))
        return tuple(dict.fromkeys(found))

    def readings_hold(self, phrase: str) -> tuple[int, ...]:
        """Positions with an explanation, of any sample, that holds the phrase."""
        wanted = phrase.casefold()
        return tuple(
            position
            for position, found in sorted(self.readings.items())
            if wanted and any(wanted in reading.explanation.casefold() for reading in found)
        )

    def span(self, wanted: tuple[int, int] | None) -> tuple[int, int] | None:
        """The part of a range that this transcript has; None where it has none of it."""
        if wanted is None or wanted[0] >= len(self.tokens):
            return None
        return wanted[0], min(wanted[1], len(self.tokens) - 1)

    @property
    def visible(self) -> str:
        """What was visibly said, as claims are held against it: a line break between two turns in
        place of the template's markup."""
        return self._joined[0]

    @property
    def _ends(self) -> tuple[int, ...]:
        """Where each token ends in the visible text; template tokens take no room."""
        return self._joined[2]

    @cached_property
    def _joined(self) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        return joined([t.text for t in self.tokens], [t.section for t in self.tokens])

    @cached_property
    def _chip_at(self) -> dict[int, Chip]:
        return {position: chip for chip in self.chips for position in chip.positions}

    @cached_property
    def _stops(self) -> list[int]:
        return [chip.index for chip in self.chips if not chip.markup]

    @cached_property
    def _all_stops(self) -> list[int]:
        return list(range(len(self.chips)))


def chips_of(tokens: tuple[TokenFacts, ...], explained: Iterable[int]) -> tuple[Chip, ...]:
    """Tokens grouped by character; ``explained`` are the positions with a reading."""
    explained = set(explained)
    groups: list[list[TokenFacts]] = []
    for token in tokens:
        if groups and groups[-1][0].chip == token.chip:
            groups[-1].append(token)
        else:
            groups.append([token])
    return tuple(
        Chip(
            index=index,
            text="".join(token.text for token in group),
            turn=group[0].turn,
            role=group[0].role,
            markup=all(token.section == Section.TEMPLATE for token in group),
            positions=tuple(token.position for token in group),
            position=max(
                (token.position for token in group if token.position in explained),
                default=group[-1].position,
            ),
        )
        for index, group in enumerate(groups)
    )


def _token(record: Mapping[Any, Any]) -> TokenFacts:
    return TokenFacts(
        position=int(record["position"]),
        chip=int(record["chip"]),
        text=str(record["text"]),
        role=str(record["role"]),
        section=str(record["section"]),
        turn=int(record["turn"]),
        norm=float(record["norm"]),
        norm_pct=float(record["norm_pct"]),
        surprisal=_number_or_none(record["surprisal"]),
        top_tokens=tuple(str(text) for text in record["top_tokens"]),
        top_probs=tuple(float(p) for p in record["top_probs"]),
    )


def _reading(record: Mapping[Any, Any]) -> ReadingFacts:
    return ReadingFacts(
        reading_id=str(record["reading_id"]),
        position=int(record["position"]),
        sample=int(record["sample"]),
        explanation=str(record["explanation"]),
        finish=str(record["finish"]),
        mse_nrm=float(record["mse_nrm"]),
        cosine=float(record["cosine"]),
        centred_cosine=float(record["centred_cosine"]),
        fve=float(record["fve"]),
        flags=tuple(str(flag) for flag in record["flags"]),
    )


def _number_or_none(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
