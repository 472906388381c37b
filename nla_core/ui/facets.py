"""What narrows a list of transcripts: words, order, and facets with counts.

Knows the controls and that each is a field of the view. Does not know what is listed. The decision
a reader would question: widgets hold nothing of their own; before each run they are set to what the
URL says, and their callbacks only write the URL, so that Back undoes a filter like anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pandas as pd
import streamlit as st

from nla_core.data import dataset as mounts
from nla_core.data.dataset import Dataset
from nla_core.data.queries import FIDELITY_BANDS, LENGTH_BANDS, TranscriptFilters
from nla_core.links import SortKey, ViewState
from nla_core.schema import Flag
from nla_core.ui import controls, shell
from nla_core.ui.html import hint
from nla_core.ui.token_strip import FLAG_NAME

Order = tuple[SortKey, bool]
ORDERS: Final[dict[Order, str]] = {
    ("category", False): "By category",
    ("title", False): "Title, A to Z",
    ("mean_fve", True): "Most faithful first",
    ("mean_fve", False): "Least faithful first",
    ("n_tokens", True): "Longest first",
    ("n_tokens", False): "Shortest first",
    ("max_surprisal", True): "Biggest surprise first",
    ("flagged_share", True): "Most flagged first",
    ("flagged_share", False): "Least flagged first",
    ("n_readings", True): "Most readings first",
}

_BAND_LABELS: Final = {band.name: band.label for band in (*FIDELITY_BANDS, *LENGTH_BANDS)}

# (facet, field of the view, heading); facets of the store in the order they are shown.
FACETS: Final = (
    ("category", "category", "Category"),
    ("fidelity", "fidelity", "Mean FVE"),
    ("flag", "flag", "Has a reading flagged"),
    ("length", "length", "Length"),
    ("tag", "tag", "Tag"),
)
MOST_VALUES: Final = 12
SPARE: Final = 4
"""So many more values are shown than left out with a sentence that takes as much room."""


def filters(view: ViewState) -> TranscriptFilters:
    """The filters of the view as the store takes them."""
    return {
        "category": view.category,
        "contains": view.contains or None,
        "tag": view.tag,
        "flag": view.flag,
        "fidelity": view.fidelity,
        "length": view.length,
    }


def label(facet: str, value: str) -> str:
    """A value of a facet in words."""
    if facet == "flag":
        return FLAG_NAME[Flag(value)].capitalize() if value in set(Flag) else value
    if facet in ("fidelity", "length"):
        words = _BAND_LABELS.get(value, value)
        return words[:1].upper() + words[1:]
    return f"#{value}" if facet == "tag" else value


def facets(counts: pd.DataFrame, view: ViewState) -> None:
    """One group of choices a facet, each with how many transcripts it would leave."""
    for facet, field, heading in FACETS:
        rows = counts[counts["facet"] == facet]
        found = dict(zip(rows["value"], rows["n_transcripts"], strict=True))
        current = getattr(view, field)
        if current is not None:
            found.setdefault(current, 0)
        if not found:
            continue
        values = list(found)
        if len(values) > MOST_VALUES + SPARE:
            values = values[:MOST_VALUES]
        if current is not None and current not in values:
            values.append(current)
        say = _counted(facet, found)
        controls.pills(f"facet_{field}", view, field, heading, values, say)
        if len(found) > len(values):
            others = f"and {len(found) - len(values):,} others"
            hint(f"{others}; type one into the filter" if facet == "tag" else others)


def _counted(facet: str, counts: dict[str, int]) -> Callable[[str], str]:
    def say(value: str) -> str:
        words = label(facet, value)
        if facet == "fidelity":  # the heading names the measure
            words = words.removeprefix("Mean FVE ")
        return f"{words} ({counts[value]:,})"

    return say


def words(view: ViewState) -> None:
    """The field that filters by literal text."""
    st.text_input(
        "Filter transcripts",
        type="search",
        live="400ms",
        placeholder="Filter by title, text or tag",
        label_visibility="collapsed",
        max_chars=200,
        **controls.typed(
            "filter", view.contains, lambda text: controls.change(ViewState, contains=text)
        ),
    )


def order(view: ViewState) -> None:
    current: Order = (view.sort, view.descending)
    st.selectbox(
        "Order",
        list(dict.fromkeys([*ORDERS, current])),
        format_func=order_label,
        label_visibility="collapsed",
        **controls.bound(
            "order",
            current,
            lambda found: controls.change(ViewState, sort=found[0], descending=found[1]),
        ),
    )


def order_label(order: Order) -> str:
    """A name for every order a link may carry, also for those the control does not offer."""
    key, descending = order
    return ORDERS.get(order, f"{key.replace('_', ' ')}, {'down' if descending else 'up'}")


def chosen(view: ViewState) -> None:
    """What is filtered by, each with a way to let go of it."""
    active: dict[str, str] = {
        field: label(facet, getattr(view, field))
        for facet, field, _ in FACETS
        if getattr(view, field) is not None
    }
    if not active:
        return
    with st.container(horizontal=True, gap="small", key="chosen"):
        for field, text in active.items():
            st.button(
                shell.as_label(text),
                key=f"drop_{field}",
                icon=":material/close:",
                help="Show others again",
                on_click=_drop,
                args=(field,),
            )
        if len(active) > 1:
            st.button("Clear all", key="drop_all", type="tertiary", on_click=clear)


def clear() -> None:
    """Every filter let go of. For callbacks."""
    controls.change(ViewState, contains="", **{field: None for _, field, _ in FACETS})


def _drop(field: str) -> None:
    controls.change(ViewState, **{field: None})


def mounted(dataset: Dataset) -> None:
    """Which dataset, where there are several: the facet of pairs and layers."""
    others = shell.others(dataset)
    if not others:
        return
    names: dict[str, Any] = {dataset.root.name: dataset, **others}

    def say(name: str) -> str:
        pair, counts = names[name].manifest.pair, names[name].manifest.counts
        known = shell.dataset_name(names[name].root)
        return (
            f"{known}: {pair.get('pair_id', '?')}, layer {pair.get('layer', '?')}, "
            f"{counts['transcripts']:,}"
        )

    def choose(name: str) -> None:
        first = next(iter(mounts.mounted()))
        controls.show(ViewState(dataset=None if name == first else name))

    st.selectbox(
        "Dataset, pair and layer",
        list(names),
        format_func=say,
        **controls.bound("dataset", dataset.root.name, choose),
    )
