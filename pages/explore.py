"""Explore: pick a transcript, read it token by token.

Knows how the URL becomes what is on the page and back. Does not know how anything is drawn. The
decision a reader would question: the strip and the panel live in one fragment, so that a click runs
`reader` alone; opening another transcript runs the page.
"""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from nla_core.refs import Parsed
from nla_core.store.dataset import Dataset
from nla_core.ui import notices, panels, shell, transcripts
from nla_core.ui.library import library
from nla_core.ui.token_strip import token_strip

shell.ensure()


@st.fragment
@shell.guarded
def reader(dataset: Dataset, transcript_id: str) -> None:
    """The transcript and the panel beside it; all that a click on a token runs again."""
    page = transcripts.load(dataset, transcript_id)
    if page is None:
        return
    transcript, drawing = page
    view = shell.read_link().view
    asked = view.position if view.transcript else transcript.invitation()
    position = None if asked is None else transcript.nearest(asked)

    wide, narrow = st.columns([1.5, 1], gap="medium")
    with wide:
        notices.position_beyond(asked, position)
        if len(transcript.readings) > 1:
            panels.fidelity_along(transcript, position)
        token_strip(
            drawing,
            locked=position,
            markup=view.markup,
            reveal=view.position is not None,
            on_lock=lambda chosen: shell.go(lambda v: v.opened(transcript_id).at(chosen)),
        )
    with narrow, st.container(key="panel"):
        if position is None:
            panels.invitation()
            return
        panels.token_panel(
            transcript,
            position,
            view.sample,
            pair=dataset.manifest.pair,
            markup=view.markup,
            link=view.opened(transcript_id).at(position, view.sample).query,
            on_step=lambda p, s: shell.go(lambda v: v.opened(transcript_id).at(p, s)),
        )


def explore(dataset: Dataset, link: Parsed) -> None:
    view = link.view
    wanted = link.wanted or view.transcript
    transcript_id = wanted or transcripts.first(dataset)
    page = None if transcript_id is None else transcripts.load(dataset, transcript_id)
    with st.sidebar:
        library(dataset, view, current=None if page is None else transcript_id)

    notices.link_problems(link.problems)
    if page is None and wanted is not None:
        notices.unknown_transcript(dataset, wanted)
        return
    if page is None or transcript_id is None:
        notices.empty_dataset()
        return
    if view.transcript is None:
        notices.welcome(dataset)
    if page[0].failed:
        panels.heading(page[0])
        panels.failed_transcript(page[0])
        return
    with st.container(horizontal=True, vertical_alignment="bottom", key="title_row"):
        panels.heading(page[0])
        st.session_state["markup"] = view.markup
        st.toggle(
            "Template tokens",
            key="markup",
            help="Show the tokens that the chat template adds around each message.",
            on_change=lambda: shell.go(lambda v: replace(v, markup=st.session_state["markup"])),
        )
    reader(dataset, transcript_id)


explore(shell.dataset(), shell.read_link())
