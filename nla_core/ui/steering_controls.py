"""The settings of a steering experiment: where to push, how strongly, what to look for.

Knows the controls and that each is a field of the view. Does not know the texts that are edited.
The decision a reader would question: the sweep is typed as a list instead of drawn as a slider,
because useful values of α differ by an order of magnitude between models.
"""

from __future__ import annotations

from typing import Any, Final

import streamlit as st

from nla_core.links import SteerView
from nla_core.steering.experiment import (
    DEFAULT_TEMPERATURE,
    LARGEST_ALPHA,
    MOST_NEW_TOKENS,
    MOST_SEEDS,
    Place,
)
from nla_core.ui import controls
from nla_core.ui.html import hint
from nla_core.ui.steering import Source

PLACES: Final[dict[Place, str]] = {
    "token": "This token",
    "last": "Last prompt token",
    "prompt": "All prompt tokens",
}


def settings(view: SteerView, source: Source) -> None:
    """Where to push, how strongly, and what to look for."""
    places = dict(PLACES)
    if source.prompt:  # of one's own text the last token is the one that is read
        places["token"] = places.pop("last") if view.place != "last" else places["token"]
        places = {place: places[place] for place in PLACES if place in places}
    st.text_input(
        "Words to follow",
        placeholder="Tokyo, Japan, Kyoto",
        help="Parted by commas. Their probability right after the prompt is plotted against α, and "
        "continuations that hold one of them are counted.",
        **controls.field("steer_words", view, "words"),
    )
    st.segmented_control(
        "Push at",
        list(places),
        format_func=lambda place: places[place],
        required=True,
        help="Attention sinks, such as the very first token, are left out of “all”.",
        **controls.field("steer_place", view, "place"),
    )
    st.toggle(
        "Push every new token, too",
        help="Else only the prompt is pushed, and the model writes on by itself.",
        **controls.bound(
            "steer_prompt_only",
            not view.prompt_only,
            lambda on: controls.change(SteerView, prompt_only=not on),
        ),
    )
    if source.has_answer:
        controls.switch(
            "steer_answer",
            view,
            "answer",
            "Go on where the answer begins",
            "Else the model continues right after the token that was read.",
        )
    if view.transcript is not None:
        _also(view)
    _alphas(view)
    one, other = st.columns(2)
    with one:
        st.number_input(
            "Seeds",
            min_value=1,
            max_value=MOST_SEEDS,
            help="Texts for each α, steered and in random directions, one a seed. "
            "Twenty give intervals worth looking at.",
            **controls.field("steer_seeds", view, "seeds"),
        )
        st.number_input(
            "Temperature",
            min_value=0.0,
            max_value=2.0,
            step=0.1,
            help="How freely tokens are drawn. At 0 all seeds of an arm write the same text.",
            **controls.bound(
                "steer_temperature",
                DEFAULT_TEMPERATURE if view.temperature is None else view.temperature,
                lambda value: controls.change(SteerView, temperature=value),
            ),
        )
    with other:
        st.number_input(
            "First seed",
            min_value=0,
            help="Another one gives other texts and other random directions.",
            **controls.field("steer_first_seed", view, "first_seed"),
        )
        st.number_input(
            "New tokens",
            min_value=1,
            max_value=MOST_NEW_TOKENS,
            help="How long each text may be.",
            **controls.field("steer_new_tokens", view, "new_tokens"),
        )


def _alphas(view: SteerView) -> None:
    now = ", ".join(f"{a:g}" for a in view.alphas)
    st.text_input(
        "Sweep of α",
        help=f"Up to ±{LARGEST_ALPHA:g}, parted by commas. The push is as long as α times ‖h‖, the "
        "length of the vector at the token that was read; 0 is always there as the baseline.",
        **_written("steer_alphas", "alphas", now),
    )
    _told("steer_alphas")


def _also(view: SteerView) -> None:
    now = "" if view.also is None else "-".join(map(str, view.also))
    st.text_input(
        "Average over the readings of tokens",
        placeholder="none; or first and last, such as 20-30",
        help="The words you replaced are replaced in the readings of these tokens as well, and the "
        "directions averaged. A reading without these words takes no part.",
        **_written("steer_also", "also", now),
    )
    _told("steer_also")


def _written(key: str, field: str, now: str) -> dict[str, Any]:
    """Arguments of a text input that is read as a link would be; what is wrong is kept."""

    def take(text: str) -> None:
        problems: list[str] = []
        found = SteerView.codecs()[field].read(text, problems)
        st.session_state[f"{key}_problems"] = problems
        controls.change(SteerView, **{field: found})

    return controls.bound(key, now, take)


def _told(key: str) -> None:
    for problem in st.session_state.pop(f"{key}_problems", ()):
        hint(problem)
