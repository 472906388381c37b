"""What whoever comes without a link meets: what this is, readings worth seeing, a short tour.

Knows the featured readings (data/featured.json, shown for the dataset that has them) and the steps
of the tour. Does not know how a reading is drawn. The decision a reader would question: the tour
waits to be asked for; a page that opens with a dialog is closed unread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import streamlit as st

from nla_core.data.dataset import Dataset
from nla_core.links import TokenRef, ViewState
from nla_core.paths import PROJECT
from nla_core.ui import controls, notices, shell
from nla_core.ui.cards import Card, Group, cards

FEATURED: Final = PROJECT / "data/featured.json"

TOUR: Final = (
    (
        "Every token holds a vector",
        "A language model reads a conversation token by token, and at each one it holds a vector: "
        "all that it carries on from what it has read. The tokens you see are coloured by how well "
        "that vector could be put into words. **The stronger the colour and the thicker the bar, "
        "the more faithful the words.**",
    ),
    (
        "Point, click, step",
        "Point at a token to see its reading; click it, or press **Enter**, to lock it and see the "
        "numbers. The arrow keys step on. Drag over tokens to mark a range. **?** lists all keys.",
    ),
    (
        "Trust what returns",
        "One reading may be invented, also where its score is high. Below the transcript stands "
        "what *keeps returning* in neighbouring readings: click such a theme to see where it is "
        "strongest. Quotations are looked up for you: what is underlined in dots stands nowhere.",
    ),
    (
        "Find and pass on",
        "**Browse** lists the transcripts by category and fidelity, **Search** finds readings by "
        "words and by meaning. Every view is a link: *Copy link* gives a colleague the exact spot, "
        "*Share* adds a note, *Download* takes the readings away.",
    ),
)


@dataclass(frozen=True, slots=True)
class Featured:
    """One reading worth seeing; ``holds`` is a word its explanation must still hold."""

    transcript: str
    position: int
    holds: str
    title: str
    why: str


def featured() -> tuple[Featured, ...]:
    """The list as it is written, whatever dataset is open."""
    return tuple(Featured(**entry) for entry in json.loads(FEATURED.read_text(encoding="utf-8")))


def welcome(dataset: Dataset) -> None:
    """Two sentences, the tour, and the featured readings this dataset has."""
    notices.welcome(dataset)
    found = _cards(dataset, dataset.version)
    with st.container(horizontal=True, gap="small", key="welcome_row"):
        if st.button("Take the tour", icon=":material/explore:", key="tour", type="tertiary"):
            st.session_state["tour_step"] = 0
            _tour()
        st.page_link(shell.page("browse"), label="All transcripts", icon=":material/view_list:")
        st.page_link(shell.page("search"), label="Search", icon=":material/search:")
        st.page_link(shell.page("about"), label="How to read this honestly", icon=":material/info:")
    if found:
        with st.expander(f"{len(found)} readings worth seeing", key="featured", expanded=True):
            cards(
                [Group(found)],
                label="Readings worth seeing",
                key="featured_cards",
                layout="row",
                on_choice=controls.follow(ViewState),
            )


@st.cache_data(show_spinner=False, max_entries=8)
def _cards(_dataset: Dataset, version: str) -> list[Card]:
    found = []
    for entry in featured():
        rows = _dataset.readings(entry.transcript)
        here = rows[rows["position"] == entry.position]
        if here.empty:
            continue
        found.append(
            Card(
                id=f"{entry.transcript}/{entry.position}",
                query=TokenRef(entry.transcript, entry.position).query,
                title=entry.title,
                fve=float(here["fve"].iloc[0]),
                facts=f"FVE {here['fve'].iloc[0]:.2f}".replace("-", "−"),
                why=entry.why,
            )
        )
    return found


@st.dialog("A short tour", width="medium")
def _tour() -> None:
    step = st.session_state.get("tour_step", 0)
    title, text = TOUR[step]
    st.markdown(f"#### {title}\n\n{text}")
    st.progress((step + 1) / len(TOUR), text=f"{step + 1} of {len(TOUR)}")
    with st.container(horizontal=True, horizontal_alignment="right", key="tour_row"):
        if step and st.button("Back", key="tour_back"):
            st.session_state["tour_step"] = step - 1
            st.rerun(scope="fragment")
        if step + 1 < len(TOUR):
            if st.button("Skip", key="tour_skip", type="tertiary"):
                st.rerun()
            if st.button("Next", key="tour_next", type="primary"):
                st.session_state["tour_step"] = step + 1
                st.rerun(scope="fragment")
        elif st.button("Start reading", key="tour_end", type="primary"):
            st.rerun()
