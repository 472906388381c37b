"""Transcripts made ready for the page, kept by id and dataset version.

Knows what may be shared between sessions and for how long. Does not know what is drawn. The
decision a reader would question: keys are ids and the version only; Streamlit hashes large frames
by a sample, and takes changed ones for the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Final

import pandas as pd
import streamlit as st

from nla_core.data.dataset import Dataset
from nla_core.readings import Reading, Said, content_positions
from nla_core.schema import Status
from nla_core.ui.token_strip import Drawing
from nla_core.ui.transcript_view import ReadingFacts, TokenFacts, TranscriptView, chips_of

MOSTLY_FLAGGED: Final = 0.5

_TOKEN_FIELDS: Final = tuple(field.name for field in fields(TokenFacts))
_READING_FIELDS: Final = tuple(f.name for f in fields(ReadingFacts) if f.name != "reading_id")
CANDIDATES: Final = 500
"""How many of the most faithful transcripts are looked at for the one that meets a visitor."""


def load(dataset: Dataset, transcript_id: str) -> tuple[TranscriptView, Drawing] | None:
    """The transcript and what the strip draws of it; None if there is no such transcript.

    Shared by all sessions: not to be changed.
    """
    return _load(dataset, dataset.version, transcript_id)


def first(dataset: Dataset) -> str | None:
    """What a bare address opens: the most faithful transcript that is not mostly flagged."""
    return _first(dataset, dataset.version)


@st.cache_resource(show_spinner=False, max_entries=64)
def _load(
    _dataset: Dataset, version: str, transcript_id: str
) -> tuple[TranscriptView, Drawing] | None:
    row = _dataset.transcript(transcript_id)
    if row is None:
        return None
    view = TranscriptView.of(row, _dataset.tokens(transcript_id), _dataset.readings(transcript_id))
    return view, Drawing.of(view, strip_id=f"{version}/{transcript_id}")


@st.cache_resource(show_spinner=False, max_entries=4)
def _first(_dataset: Dataset, version: str) -> str | None:
    rows = _dataset.transcripts(sort="mean_fve", descending=True, limit=CANDIDATES)
    # Short transcripts are early positions from end to end: nothing to meet a visitor with.
    rows = pd.concat([rows[rows["flagged_share"] < MOSTLY_FLAGGED], rows])
    return None if rows.empty else str(rows["transcript_id"].iloc[0])


def live_view(said: Said, title: str, readings: Iterable[Reading]) -> TranscriptView:
    """A transcript that no dataset holds yet, with the readings that are there so far."""
    by_position: dict[int, list[ReadingFacts]] = {}
    for reading in sorted(readings, key=lambda r: (r.position, r.sample)):
        by_position.setdefault(reading.position, []).append(
            ReadingFacts(
                **{name: getattr(reading, name) for name in _READING_FIELDS}, reading_id=""
            )
        )
    tokens = tuple(TokenFacts(**{n: getattr(t, n) for n in _TOKEN_FIELDS}) for t in said.tokens)
    return TranscriptView(
        transcript_id=said.transcript_id,
        prompt_id="",
        title=title,
        category="",
        tags=(),
        status=Status.OK,
        error=None,
        messages=tuple((m["role"], m["content"]) for m in said.messages),
        n_answer_tokens=said.n_answer_tokens,
        answer_finish=said.answer_finish,
        tokens=tokens,
        chips=chips_of(tokens, content_positions(said)),
        readings={position: tuple(found) for position, found in by_position.items()},
    )
