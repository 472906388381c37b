"""Explore: pick a transcript, read it token by token.

Knows how the URL becomes what is on the page and back. Does not know how anything is drawn. The
decision a reader would question: the strip and the panel live in one fragment, so that a click runs
`reader` alone; opening another transcript runs the page.
"""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from nla_core.data.dataset import Dataset, is_run
from nla_core.exports import Provenance
from nla_core.links import CompareView, Parsed, RunView, SteerView, ViewState
from nla_core.ui import (
    controls,
    downloads,
    elsewhere,
    notices,
    panels,
    reader,
    shell,
    token_panel,
    transcripts,
    welcome,
)
from nla_core.ui.copy_link import copy_link
from nla_core.ui.library import library
from nla_core.ui.share import note, share
from nla_core.ui.transcript_view import TranscriptView

shell.ensure()


@st.fragment
@shell.guarded
def reading(dataset: Dataset, transcript_id: str) -> None:
    """The transcript and the panel beside it; all that a click on a token runs again."""
    page = transcripts.load(dataset, transcript_id)
    if page is None:
        return
    transcript, drawing = page
    view = controls.read(ViewState).view
    asked = view.position if view.transcript or view.range else transcript.invitation()
    position = None if asked is None else transcript.nearest(asked)

    def go(change: controls.Change[ViewState]) -> None:
        controls.go(ViewState, lambda v: change(replace(v, transcript=transcript_id)))

    wide, narrow = st.columns([1.5, 1], gap="medium")
    with wide:
        notices.position_beyond(asked, position)
        reader.colours(view, go)
        reader.strip_and_line(dataset, transcript, drawing, view, position, go)
        reader.recurring(dataset, transcript, view, go)
    with narrow, st.container(key="panel"):
        if position is None:
            token_panel.invitation()
            downloads.popover(dataset, transcript_id, transcript.span(view.range))
            return
        panel(
            dataset,
            transcript,
            replace(view, transcript=transcript_id).at(position, view.sample),
            view,
            go,
        )


def panel(
    dataset: Dataset, transcript: TranscriptView, here: ViewState, asked: ViewState, go: reader.Go
) -> None:
    """Everything about the locked token; ``here`` is the view with that token in it."""
    position = here.position or 0
    token_panel.token_panel(
        transcript,
        position,
        here.sample,
        pair=dataset.manifest.pair,
        markup=here.markup,
        paragraph=asked.paragraph,
        on_step=lambda p, s: go(lambda v: v.at(p, s)),
    )
    reading = transcript.reading(position, here.sample)
    with st.container(horizontal=True, gap="small", key="take_away"):
        copy_link(here.query)
        if reading is not None:
            popover = st.popover("Share", icon=":material/ios_share:", key="share_popover")
            with popover, st.container(key="share_body"):
                share(here, transcript, reading, Provenance.of(dataset))
        downloads.popover(dataset, transcript.transcript_id, transcript.span(here.range))
        if reading is not None:
            st.page_link(
                shell.page("compare"),
                label="Compare with the text",
                icon=":material/fact_check:",
                query_params=CompareView(dataset=here.dataset, transcript=transcript.transcript_id)
                .at(position, here.sample)
                .params(),
            )
            st.page_link(
                shell.page("steer"),
                label="Steer from here",
                icon=":material/tune:",
                query_params=SteerView(
                    dataset=here.dataset,
                    transcript=transcript.transcript_id,
                    position=position,
                    sample=here.sample,
                ).params(),
            )
    if reading is not None:
        elsewhere.alike(dataset, here, transcript, reading)
        elsewhere.other_pairs(shell.others(dataset), transcript, position)


def explore(dataset: Dataset, link: Parsed[ViewState]) -> None:
    view = link.view
    wanted = link.wanted or view.transcript
    transcript_id = wanted or transcripts.first(dataset)
    page = None if transcript_id is None else transcripts.load(dataset, transcript_id)
    if not shell.embedded():
        with st.sidebar:
            if is_run(dataset.root):
                st.page_link(
                    shell.page("run"),
                    label=shell.as_label(shell.dataset_name(dataset.root)),
                    icon=":material/arrow_back:",
                    query_params={"run": dataset.root.name},
                )
            library(dataset, view, current=None if page is None else transcript_id)

    notices.link_problems(link.problems)
    if page is None and wanted is not None:
        notices.unknown_transcript(dataset, wanted)
        return
    if page is None or transcript_id is None:
        notices.empty_dataset()
        return
    if view.transcript is None:
        welcome.welcome(dataset)
    note(view.note)
    if page[0].failed:
        panels.heading(page[0])
        panels.failed_transcript(page[0])
        return
    with st.container(horizontal=True, vertical_alignment="center", key="title_row"):
        panels.heading(page[0])
        if not shell.embedded():
            st.page_link(
                shell.page("run"),
                label="Change this prompt",
                icon=":material/edit:",
                query_params=RunView(
                    dataset=controls.read(ViewState).view.dataset, transcript=transcript_id
                ).params(),
                help="Puts the conversation into the editor of the Run page.",
            )
        controls.switch(
            "markup",
            view,
            "markup",
            "Template tokens",
            "Show the tokens that the chat template adds around each message.",
        )
    reading(dataset, transcript_id)


explore(shell.dataset(), shell.resolved(shell.dataset()))
