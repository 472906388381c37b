"""Transcripts made ready for the page, kept by id and dataset version.

Knows what may be shared between sessions and for how long. Does not know what is drawn. The
decision a reader would question: keys are ids and the version only; Streamlit hashes large frames
by a sample, and takes changed ones for the same.
"""

from __future__ import annotations

from typing import Final

import pandas as pd
import streamlit as st

from nla_core.store.dataset import Dataset
from nla_core.ui.token_strip import Drawing
from nla_core.ui.transcript_view import TranscriptView

MOSTLY_FLAGGED: Final = 0.5

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
