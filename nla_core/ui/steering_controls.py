"""The settings of a steering experiment: where to push, how strongly, what to look for.

Knows the controls and that each is a field of the view. Does not know the texts that are edited.
The decision a reader would question: the sweep is typed as a list instead of drawn as a slider,
because useful values of α differ by an order of magnitude between models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import streamlit as st

from nla_core import links
from nla_core.steering.experiment import (
    DEFAULT_TEMPERATURE,
    LARGEST_ALPHA,
    MOST_NEW_TOKENS,
    MOST_SEEDS,
    Place,
)
from nla_core.ui import steering
from nla_core.ui.html import hint
from nla_core.ui.steering import Source
from nla_core.views import STEER, SteerView

PLACES: Final[dict[Place, str]] = {
    "token": "This token",
    "last": "Last prompt token",
    "prompt": "All prompt tokens",
}


def controls(view: SteerView, source: Source) -> None:
    """Where to push, how strongly, and what to look for."""
    places = dict(PLACES)
    if source.prompt:  # of one's own text the last token is the one that is read
        places["token"] = places.pop("last") if view.place != "last" else places["token"]
        places = {place: places[place] for place in PLACES if place in places}
    _field(
        st.text_input,
        "Words to follow",
        "words",
        view.words,
        placeholder="Tokyo, Japan, Kyoto",
        help="Parted by commas. Their probability right after the prompt is plotted against α, and "
        "continuations that hold one of them are counted.",
    )
    _field(
        st.segmented_control,
        "Push at",
        "place",
        view.place,
        options=list(places),
        format_func=lambda place: places[place],
        required=True,
        help="Attention sinks, such as the very first token, are left out of “all”.",
    )
    _toggle(
        "Push every new token, too",
        "prompt_only",
        not view.prompt_only,
        flip=True,
        help="Else only the prompt is pushed, and the model writes on by itself.",
    )
    if source.has_answer:
        _toggle(
            "Go on where the answer begins",
            "answer",
            view.answer,
            help="Else the model continues right after the token that was read.",
        )
    if view.transcript is not None:
        _also(view)
    _alphas(view)
    one, other = st.columns(2)
    with one:
        _field(
            st.number_input,
            "Seeds",
            "seeds",
            view.seeds,
            min_value=1,
            max_value=MOST_SEEDS,
            help="Texts for each α, steered and in random directions, one a seed. "
            "Twenty give intervals worth looking at.",
        )
        _field(
            st.number_input,
            "Temperature",
            "temperature",
            DEFAULT_TEMPERATURE if view.temperature is None else view.temperature,
            min_value=0.0,
            max_value=2.0,
            step=0.1,
            help="How freely tokens are drawn. At 0 all seeds of an arm write the same text.",
        )
    with other:
        _field(
            st.number_input,
            "First seed",
            "first_seed",
            view.first_seed,
            min_value=0,
            help="Another one gives other texts and other random directions.",
        )
        _field(
            st.number_input,
            "New tokens",
            "new_tokens",
            view.new_tokens,
            min_value=1,
            max_value=MOST_NEW_TOKENS,
            help="How long each text may be.",
        )


def _field(widget: Callable[..., Any], label: str, field: str, current: Any, **more: Any) -> None:
    key = f"steer_{field}"
    st.session_state[key] = current
    widget(
        label,
        key=key,
        on_change=lambda: steering.go(lambda v: v.changed(**{field: st.session_state[key]})),
        **more,
    )


def _toggle(label: str, field: str, current: bool, *, help: str, flip: bool = False) -> None:
    key = f"steer_{field}"
    st.session_state[key] = current
    st.toggle(
        label,
        key=key,
        help=help,
        on_change=lambda: steering.go(
            lambda v: v.changed(**{field: st.session_state[key] != flip})
        ),
    )


def _alphas(view: SteerView) -> None:
    def take() -> None:
        problems: list[str] = []
        found = STEER["alphas"].read(st.session_state["steer_alphas"], problems)
        st.session_state["steer_said"] = problems
        steering.go(lambda v: v.changed(alphas=found))

    st.session_state["steer_alphas"] = ", ".join(f"{a:g}" for a in view.alphas)
    st.text_input(
        "Sweep of α",
        key="steer_alphas",
        on_change=take,
        help=f"Up to ±{LARGEST_ALPHA:g}, parted by commas. The push is as long as α times ‖h‖, the "
        "length of the vector at the token that was read; 0 is always there as the baseline.",
    )
    for problem in st.session_state.pop("steer_said", ()):
        hint(problem)


def _also(view: SteerView) -> None:
    def take() -> None:
        problems: list[str] = []
        also = links.span("also", "range").read(st.session_state["steer_also"], problems)
        st.session_state["steer_also_said"] = problems
        steering.go(lambda v: v.changed(also=also))

    st.session_state["steer_also"] = "" if view.also is None else "-".join(map(str, view.also))
    st.text_input(
        "Average over the readings of tokens",
        key="steer_also",
        placeholder="none; or first and last, such as 20-30",
        on_change=take,
        help="The words you replaced are replaced in the readings of these tokens as well, and the "
        "directions averaged. A reading without these words takes no part.",
    )
    for problem in st.session_state.pop("steer_also_said", ()):
        hint(problem)
