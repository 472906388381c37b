"""The search box and its filters: from the address to a query.

Knows the controls and that each is a field of the view. Does not know how anything is found. The
decision a reader would question: filters stand beside the results at all times; a filter that hides
in a dialog is one that people forget when they wonder where the hits are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from nla_core import refs, views
from nla_core.refs import Parsed
from nla_core.schema import Flag, Role
from nla_core.store.dataset import Dataset
from nla_core.ui import facets, fields, meaning, shell
from nla_core.ui.explanation import note_first
from nla_core.ui.html import draw
from nla_core.ui.token_strip import FLAG_NAME
from nla_core.views import SearchIn, SearchMode, SearchView

if TYPE_CHECKING:
    from nla_core.search import Query, Results

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


def read_link() -> Parsed[SearchView]:
    return views.parse_search(st.query_params)


def go(change: Callable[[SearchView], SearchView]) -> None:
    """Put a changed search into the address bar. For callbacks."""
    st.query_params.from_dict(change(read_link().view).params())


def query_of(view: SearchView) -> Query:
    """What the view asks for, in the terms of the search."""
    from nla_core.search import Filters, Query

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
    typed = st.session_state.get("search_text")
    if typed is None or typed.strip() != view.text:
        st.session_state["search_text"] = view.text
    st.text_input(
        "Search readings",
        key="search_text",
        type="search",
        live="300ms",
        placeholder="Words, or an idea in your own words",
        max_chars=refs.LONGEST_TEXT,
        on_change=lambda: go(lambda v: v.asked(text=st.session_state["search_text"].strip())),
        help=WORDS_HELP,
    )
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="ways"):
        _segments("search_mode", "By", "mode", MODES, view.mode, locked=view.within == "visible")
        _segments("search_in", "In", "within", WITHIN, view.within)
        st.session_state["unspoken"] = view.unspoken
        st.toggle(
            "Only what the text does not say",
            key="unspoken",
            disabled=view.within == "visible" or not view.text,
            help="Keeps readings whose explanation holds these words while the conversation "
            "itself holds them nowhere.",
            on_change=lambda: go(lambda v: v.asked(unspoken=st.session_state["unspoken"])),
        )


def _segments(
    key: str, label: str, field: str, options: dict[Any, str], current: str, *, locked: bool = False
) -> None:
    st.session_state[key] = current
    st.segmented_control(
        label,
        list(options),
        key=key,
        required=True,
        disabled=locked,
        format_func=lambda value: options[value],
        on_change=lambda: go(lambda v: v.asked(**{field: st.session_state[key]})),
    )


def reference(dataset: Dataset, view: SearchView) -> None:
    """The reading that hits shall be like, and the text they shall be unlike, with a way out."""
    if view.like is not None:
        row = dataset.reading(view.like)
        _reference(
            "Like the reading",
            f"{row['explanation']}" if row is not None else f"{view.like}, which is not here",
            "drop_like",
            lambda v: v.asked(like=None),
        )
    if view.unlike:
        _reference("Not like", view.unlike, "drop_unlike", lambda v: v.asked(unlike=""))


def _reference(label: str, text: str, key: str, drop: Callable[[SearchView], SearchView]) -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key=f"{key}_row"):
        draw(
            '<p class="nla-reference"><b>{label}</b> {text}</p>', label=label, text=note_first(text)
        )
        st.button(
            f"Let go of “{label.lower()}”",
            key=key,
            icon=":material/close:",
            type="tertiary",
            on_click=lambda: go(drop),
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
                on_click=lambda text=text: go(lambda v: v.asked(text=text)),
            )


# ---- filters -------------------------------------------------------------------------------------


def filters(dataset: Dataset, view: SearchView) -> None:
    """Role, fidelity floor, flags, position, category and tag."""
    _pills("Who speaks", "role", [str(role) for role in Role], view.role, str.capitalize)
    _pills("FVE at least", "floor", [*FLOORS], view.floor, _number)
    flags = [str(flag) for flag in Flag]
    _pills("Flagged", "flag", flags, view.flag, _flag)
    _pills("Not flagged", "without", flags, view.without, _flag)
    counts = dataset.facets()
    for field, heading in (("category", "Category"), ("tag", "Tag")):
        rows = counts[counts["facet"] == field]
        values = list(rows["value"])[: facets.MOST_VALUES * 2]
        _pills(heading, field, values, getattr(view, field), _name(field))
    _positions(view)
    if view != SearchView(
        dataset=view.dataset, text=view.text, mode=view.mode, within=view.within, like=view.like
    ):
        st.button(
            "Clear all filters",
            key="clear_filters",
            icon=":material/close:",
            on_click=lambda: go(
                lambda v: SearchView(
                    dataset=v.dataset, text=v.text, mode=v.mode, within=v.within, like=v.like
                )
            ),
        )


def _positions(view: SearchView) -> None:
    first, last = view.range or (None, None)
    st.session_state["from_position"] = first
    st.session_state["to_position"] = None if last == LAST_POSITION else last

    def change() -> None:
        low, high = st.session_state["from_position"], st.session_state["to_position"]
        span = None if low is None and high is None else (low or 0, high or LAST_POSITION)
        go(lambda v: v.asked(range=span and (min(span), max(span))))

    with st.container(horizontal=True, gap="small", key="positions"):
        for key, label in (("from_position", "Token from"), ("to_position", "to")):
            st.number_input(
                label,
                key=key,
                min_value=0,
                max_value=LAST_POSITION,
                step=1,
                placeholder="any",
                on_change=change,
            )


def _pills(
    heading: str, field: str, values: list[Any], current: Any, say: Callable[[Any], str]
) -> None:
    def put(value: Any) -> None:
        go(lambda v: v.asked(**{field: value}))

    fields.pills(f"filter_{field}", heading, values, current, put, say)


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _flag(value: str) -> str:
    return FLAG_NAME[Flag(value)].capitalize()


def _name(facet: str) -> Callable[[str], str]:
    return lambda value: facets.label(facet, value)
