"""The search box and its filters: from the address to a query.

Knows the controls and that each is a field of the view. Does not know how anything is found. The
decision a reader would question: filters stand beside the results at all times; a filter that hides
in a dialog is one that people forget when they wonder where the hits are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from nla_core.data.dataset import Dataset
from nla_core.links import LONGEST_TEXT, SearchIn, SearchMode, SearchView
from nla_core.schema import Flag, Role
from nla_core.ui import comparing, controls, facets, meaning, shell
from nla_core.ui.explanation import note_first
from nla_core.ui.html import draw
from nla_core.ui.token_strip import FLAG_NAME

if TYPE_CHECKING:
    from nla_core.data.query import Query, Results

PAGE: Final = 30
PER_TRANSCRIPT: Final = 3
FLOORS: Final = (-0.5, 0.0, 0.2, 0.4, 0.6, 0.8)
LAST_POSITION: Final = 1_000_000

MODES: Final[dict[SearchMode, str]] = {
    "hybrid": "Both",
    "keyword": "Words",
    "semantic": "Meaning",
}
WITHIN: Final[dict[SearchIn, str]] = {
    "explanations": "Explanations",
    "visible": "What was visibly said",
}
EXAMPLES: Final = (
    "a planet or the night sky",
    '"computer science"',
    "planning a birthday",
    "apology -sorry",
    "someone in danger",
)
WORDS_HELP: Final = (
    'Several words: all of them. `"in quotes"`: this phrase. `-word`: without it. `plan*`: words '
    "that begin so. *Meaning* compares sentences and finds what is said in other words, too; "
    "*Both* puts the two lists together."
)


def query_of(view: SearchView) -> Query:
    """What the view asks for, in the terms of the search."""
    from nla_core.data.query import Filters, Query

    return Query(
        text=view.text,
        mode=view.mode,
        within=view.within,
        like=view.like,
        unlike=view.unlike,
        unspoken=view.unspoken,
        filters=Filters(
            roles=() if view.role is None else (Role(view.role),),
            categories=() if view.category is None else (view.category,),
            tags=() if view.tag is None else (view.tag,),
            flags=() if view.flag is None else (Flag(view.flag),),
            no_flags=() if view.without is None else (Flag(view.without),),
            fve_min=view.floor,
            positions=view.range or (None, None),
        ),
        per_transcript=PER_TRANSCRIPT,
    )


def results(dataset: Dataset, view: SearchView) -> Results:
    """The page of hits that the view asks for. Raises NLAError as `Search.search` does."""
    with st.spinner(meaning.LOADING, show_time=True):
        return meaning.results(dataset, query_of(view), limit=PAGE, after=view.after)


def at_once(dataset: Dataset, view: SearchView) -> Results | None:
    """The hits by words, where those by meaning have to wait for the encoder; else None."""
    if view.mode != "hybrid" or not view.text or view.like or view.after or meaning.ready():
        return None
    if view.within == "visible":
        return None
    query = query_of(replace(view, mode="keyword", unlike=""))
    return meaning.results(dataset, query, limit=PAGE)


# ---- the box -------------------------------------------------------------------------------------


def box(view: SearchView) -> None:
    st.text_input(
        "Search readings",
        type="search",
        live="300ms",
        placeholder="Words, or an idea in your own words",
        max_chars=LONGEST_TEXT,
        help=WORDS_HELP,
        **controls.typed(
            "search_text", view.text, lambda text: controls.change(SearchView, text=text)
        ),
    )
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="ways"):
        st.segmented_control(
            "By",
            list(MODES),
            required=True,
            disabled=view.within == "visible",
            format_func=MODES.__getitem__,
            **controls.field("search_mode", view, "mode"),
        )
        st.segmented_control(
            "In",
            list(WITHIN),
            required=True,
            format_func=WITHIN.__getitem__,
            **controls.field("search_in", view, "within"),
        )
        st.toggle(
            "Only what the text does not say",
            disabled=view.within == "visible" or not view.text,
            help="Keeps readings whose explanation holds these words while the conversation "
            "itself holds them nowhere.",
            **controls.field("unspoken", view, "unspoken"),
        )


def reference(dataset: Dataset, view: SearchView) -> None:
    """The reading that hits shall be like, and the text they shall be unlike, with a way out."""
    if view.like is not None:
        row = dataset.reading(view.like)
        _reference(
            "Like the reading",
            f"{row['explanation']}" if row is not None else f"{view.like}, which is not here",
            "drop_like",
            like=None,
        )
    if view.unlike:
        _reference("Not like", view.unlike, "drop_unlike", unlike="")


def _reference(label: str, text: str, key: str, **drop: Any) -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key=f"{key}_row"):
        draw(
            '<p class="nla-reference"><b>{label}</b> {text}</p>', label=label, text=note_first(text)
        )
        st.button(
            f"Let go of “{label.lower()}”",
            key=key,
            icon=":material/close:",
            type="tertiary",
            on_click=lambda: controls.change(SearchView, **drop),
        )


def invitation(dataset: Dataset) -> None:
    """What stands there before anything is asked."""
    draw(
        '<p class="nla-intro">Search {readings} explanations of {name} by words, by meaning, or '
        "both. Every result is a link to its token. Try one of these:</p>",
        readings=f"{dataset.manifest.counts['readings']:,}",
        name=dataset.root.name,
    )
    with st.container(horizontal=True, gap="small", key="examples"):
        for number, text in enumerate(EXAMPLES):
            st.button(
                shell.as_label(text),
                key=f"example_{number}",
                on_click=lambda text=text: controls.change(SearchView, text=text),
            )


# ---- filters -------------------------------------------------------------------------------------


def filters(dataset: Dataset, view: SearchView) -> None:
    """Role, fidelity floor, flags, position, category and tag."""
    _pills(view, "role", "Who speaks", [str(role) for role in Role], str.capitalize)
    _pills(view, "floor", "FVE at least", FLOORS, comparing.minus)
    flags = [str(flag) for flag in Flag]
    _pills(view, "flag", "Flagged", flags, _flag)
    _pills(view, "without", "Not flagged", flags, _flag)
    counts = dataset.facets()
    for field, heading in (("category", "Category"), ("tag", "Tag")):
        rows = counts[counts["facet"] == field]
        values = list(rows["value"])[: facets.MOST_VALUES * 2]
        _pills(view, field, heading, values, _name(field))
    _positions(view)
    if view != _unfiltered(view):
        st.button(
            "Clear all filters",
            key="clear_filters",
            icon=":material/close:",
            on_click=lambda: controls.go(SearchView, _unfiltered),
        )


def _unfiltered(view: SearchView) -> SearchView:
    return SearchView(
        dataset=view.dataset, text=view.text, mode=view.mode, within=view.within, like=view.like
    )


def _positions(view: SearchView) -> None:
    first, last = view.range or (None, None)
    last = None if last == LAST_POSITION else last

    def change(low: int | None, high: int | None) -> None:
        span = None if low is None and high is None else (low or 0, high or LAST_POSITION)
        controls.change(SearchView, range=span and (min(span), max(span)))

    with st.container(horizontal=True, gap="small", key="positions"):
        for label, bound in (
            ("Token from", controls.bound("from_position", first, lambda low: change(low, last))),
            ("to", controls.bound("to_position", last, lambda high: change(first, high))),
        ):
            st.number_input(
                label,
                min_value=0,
                max_value=LAST_POSITION,
                step=1,
                placeholder="any",
                **bound,
            )


def _pills(
    view: SearchView, field: str, heading: str, values: Sequence[Any], say: Callable[[Any], str]
) -> None:
    controls.pills(f"filter_{field}", view, field, heading, values, say)


def _flag(value: str) -> str:
    return FLAG_NAME[Flag(value)].capitalize()


def _name(facet: str) -> Callable[[str], str]:
    return lambda value: facets.label(facet, value)
