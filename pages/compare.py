"""Compare: what the explanation says against what the model visibly says.

Knows how the URL becomes what is on the page and back. Does not know how a claim is judged. The
decision a reader would question: the whole page is one fragment, because a step to the next token
changes the transcript's marks, the claims and the track alike.
"""

from __future__ import annotations

import pandas as pd
import streamlit as st

from nla_core.analysis.derived import Claims
from nla_core.data.dataset import Dataset
from nla_core.errors import NLAError
from nla_core.links import CompareView, Parsed
from nla_core.ui import (
    comparing,
    controls,
    facets,
    meaning,
    notices,
    panels,
    shell,
    token_panel,
    transcripts,
)
from nla_core.ui.claims import claims, legend
from nla_core.ui.transcript_view import TranscriptView

shell.ensure()


@st.fragment
@shell.guarded
def comparison(dataset: Dataset, judged: Claims, transcript_id: str) -> None:
    page = transcripts.load(dataset, transcript_id)
    if page is None:
        return
    transcript, drawing = page
    view = controls.read(CompareView).view
    asked = view.position if view.transcript else transcript.invitation()
    position = None if asked is None else transcript.nearest(asked)
    rows = judged.of_transcript(transcript_id)
    along = judged.readings(transcript_id)
    wide, narrow = st.columns([1.25, 1], gap="medium")
    with wide:
        notices.position_beyond(asked, position)
        comparing.transcript_side(transcript, drawing, view, position, rows, along)
    with narrow, st.container(key="panel"):
        if position is None:
            token_panel.invitation()
        else:
            reading_side(dataset, transcript, position, view, rows, along)
        legend()
    comparing.striking(judged, transcript, view)


def reading_side(
    dataset: Dataset,
    transcript: TranscriptView,
    position: int,
    view: CompareView,
    rows: pd.DataFrame,
    along: pd.DataFrame,
) -> None:
    token_panel.token_line(
        transcript,
        transcript.tokens[position],
        markup=False,
        on_step=lambda p, s: controls.go(
            CompareView, lambda v: v.opened(transcript.transcript_id).at(p, s)
        ),
    )
    reading = transcript.reading(position, view.sample)
    if reading is None:
        token_panel.no_reading(transcript.tokens[position])
        return
    own = rows[(rows["position"] == position) & (rows["sample"] == reading.sample)]
    claims(transcript, reading, own)
    found = along[(along["position"] == position) & (along["sample"] == reading.sample)]
    after = transcript.tokens[position + 1].text if position + 1 < len(transcript.tokens) else None
    comparing.prediction(None if found.empty else found.iloc[0], after)
    token_panel.flags(reading)
    comparing.pin(dataset, view, reading)


def compare(dataset: Dataset, link: Parsed[CompareView]) -> None:
    view = link.view
    transcript_id = view.transcript or transcripts.first(dataset)
    page = None if transcript_id is None else transcripts.load(dataset, transcript_id)
    with st.sidebar:
        facets.mounted(dataset)
        comparing.sidebar(dataset, view, transcript_id if page else None)
    notices.link_problems(link.problems)
    if page is None or transcript_id is None:
        if view.transcript is not None:
            notices.unknown_transcript(dataset, view.transcript)
        else:
            notices.empty_dataset()
        return
    comparing.title(page[0], view)
    if page[0].failed:
        panels.failed_transcript(page[0])
        return
    try:
        judged = meaning.claims(dataset)
    except NLAError as error:
        comparing.not_computed(error.fix)
        return
    comparison(dataset, judged, transcript_id)


compare(shell.dataset(), controls.read(CompareView))
