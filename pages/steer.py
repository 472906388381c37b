"""Steer: edit an explanation, push the model along the difference, see what it then writes.

Knows how the URL becomes what is on the page. Does not know how anything is computed. The decision
a reader would question: everything that decides the outcome is in the address, and no experiment
runs until somebody presses the button, so that opening a link generates nothing.
"""

from __future__ import annotations

import streamlit as st

from nla_core.data.dataset import Dataset
from nla_core.errors import NLAError
from nla_core.links import Parsed, SteerView
from nla_core.ui import (
    controls,
    facets,
    gate,
    notices,
    shell,
    steering,
    steering_controls,
    steering_presets,
    steering_results,
)
from nla_core.ui.copy_link import copy_link
from nla_core.ui.html import draw, hint

shell.ensure()

INTRO = (
    "An explanation is a hypothesis about what the model represents. Change its words: the "
    "reconstructor turns both texts into vectors, their difference is added to the model while it "
    "reads and writes, and the texts show whether the words meant something to it."
)
LIMITS = """
**What this shows.** The direction from the old text to the new one, as the reconstructor sees it,
changes what the model writes, more than a push of the same length in a random direction does. Then
the words of the explanation have to do with what the model computes there.

**What it does not show.** That the explanation was right: a direction can work although the model
did not represent the old text, and fail although it did. Random directions are isotropic, so a
structured direction has some advantage over them by being structured. A strong push breaks any
model: look at the texts, not only at the counts. One edit at one token is one sample.

**How it differs** from well-known demonstrations that clamp one feature of a sparse autoencoder
(such as “Golden Gate Claude”): no dictionary of features is trained here, the direction comes from
two texts, and it is added once per token with a fixed length, α · ‖h‖.
"""


def steer(dataset: Dataset, link: Parsed[SteerView]) -> None:
    view = link.view
    with st.sidebar:
        facets.mounted(dataset)
    notices.link_problems([*st.session_state.pop(steering.UNTOLD, ()), *link.problems])
    with st.container(horizontal=True, vertical_alignment="bottom", key="title_row"):
        draw('<div class="nla-head"><h1>Steer with an edited explanation</h1></div>')
        with st.popover("What this shows", icon=":material/help:", key="steer_help"):
            st.markdown(LIMITS)
    draw('<p class="nla-intro">{text}</p>', text=INTRO)
    source = steering.source_of(dataset, view)
    if source is None:
        steering.own_prompt(dataset, view)
        hint("Or open a token in Explore and follow “Steer from here”. Or begin with a preset:")
        steering_presets.listed(dataset, view)
        return
    preset = steering_presets.chosen(view)
    if preset is not None:
        steering_presets.effect(preset, steering_presets.pair_revision(dataset))
    experiment_side(dataset, view, source)
    with st.expander("Presets", key="steer_more_presets"):
        steering_presets.listed(dataset, view)


def experiment_side(dataset: Dataset, view: SteerView, source: steering.Source) -> None:
    if not gate.allowed():  # every edit is a pass of the models
        return
    wide, narrow = st.columns([1.5, 1], gap="medium")
    with wide:
        if source.prompt:
            steering.own_prompt(dataset, view)
        else:
            steering.context(source)
        if steering.missing_reading(view, source):
            return
        steering.editing(view, source)
        experiment = steering.experiment_of(view, source)
        try:
            steering.fidelities(view, source, experiment)
        except NLAError as error:
            notices.problem(error)
    with narrow, st.container(key="steer_controls"):
        steering_controls.settings(view, source)
        with st.container(
            horizontal=True, vertical_alignment="center", gap="small", key="steer_links"
        ):
            st.button(
                "Run",
                key="steer_run",
                type="primary",
                icon=":material/play_arrow:",
                on_click=lambda: steering_results.start(experiment),
            )
            copy_link(view.query)
            if view.transcript is not None:
                st.page_link(
                    shell.page("explore"),
                    label="In Explore",
                    icon=":material/open_in_new:",
                    query_params=view.explore.params(),
                )
        steering_results.at_a_glance(experiment)
    steering_results.results(experiment)


steer(shell.dataset(), controls.read(SteerView))
