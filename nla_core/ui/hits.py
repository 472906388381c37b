"""What was found: readings grouped by transcript, counts, ways on where nothing was found.

Knows how a hit looks and what can be asked from it. Does not know how it was found. The decision a
reader would question: groups stand in the order of their best hit, and inside a group by rank; a
reader who trusts the order finds the best first, one who reads transcripts finds them together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from nla_core.analysis.claims import split
from nla_core.data.dataset import Dataset
from nla_core.links import SearchView, ViewState
from nla_core.schema import Flag
from nla_core.ui import charts, controls, downloads, finder, meaning, shell
from nla_core.ui.cards import Card, Group, cards
from nla_core.ui.html import draw, fill, hint, join
from nla_core.ui.later import signed
from nla_core.ui.token_strip import FLAG_NAME

if TYPE_CHECKING:
    from nla_core.data.query import Hit, Near, Results

MOST_EXPORTED = 1_000


def summary(dataset: Dataset, view: SearchView, found: Results) -> None:
    """How many there are and where, what was read differently, and the export."""
    noun = "message" if view.within == "visible" else "reading"
    count = f"{found.total:,} {noun}{'' if found.total == 1 else 's'}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="found"):
        draw(
            '<p class="nla-found" role="status">{count}{notes}</p>',
            count=count if found.exact else f"at least {count}",
            notes=join([fill(" · {note}", note=note) for note in found.notes]),
        )
        if found.hits:
            with st.popover("Download", icon=":material/download:", key="download_popover"):
                hint(f"The best {MOST_EXPORTED:,} of these hits, one a row.")
                downloads.buttons(
                    dataset,
                    "search",
                    lambda: _frame(dataset, view),
                    formats=("csv", "jsonl", "parquet"),
                )
    if len(found.categories) > 1:
        with st.expander("By category", key="by_category"):
            st.plotly_chart(
                charts.counts(found.categories, noun + "s"),
                key="category_chart",
                config={**charts.CONFIG, "staticPlot": True},
                alt=f"{noun.capitalize()}s by category",
            )


def _frame(dataset: Dataset, view: SearchView) -> pd.DataFrame:
    query = finder.query_of(replace(view, after=None))
    found = meaning.results(dataset, query, limit=MOST_EXPORTED)
    columns = [
        "reading_id", "transcript_id", "title", "category", "position", "role", "sample", "text",
        "fve", "flags", "score", "similarity",
    ]  # fmt: skip
    return pd.DataFrame(
        [{c: getattr(hit, c) for c in columns} for hit in found.hits], columns=columns
    )


def hits(found: Results, view: SearchView, *, key: str = "hits") -> None:
    """The page of hits; a click opens the token in Explore with the search's phrase in it."""
    groups: dict[str, list[Hit]] = {}
    for hit in found.hits:
        groups.setdefault(hit.transcript_id, []).append(hit)

    def act(chosen: Any) -> None:
        if chosen.action == "more":
            controls.change(SearchView, like=chosen.id, text="", unspoken=False)
        elif chosen.action == "less":
            text = next((hit.text for hit in found.hits if hit.reading_id == chosen.id), "")
            controls.change(SearchView, unlike=" ".join(text.split())[:200])

    chosen = cards(
        [
            Group(
                [_card(hit, view) for hit in members],
                title=members[0].title,
                facts=members[0].category,
                query=ViewState(dataset=view.dataset, transcript=transcript).query,
            )
            for transcript, members in groups.items()
        ],
        label="Search results",
        key=key,
        base="explore",
        on_choice=act,
    )
    controls.leave(ViewState, chosen, "explore")


def _card(hit: Hit, view: SearchView) -> Card:
    opened = ViewState(dataset=view.dataset, transcript=hit.transcript_id)
    facts = [f"token {hit.position}", hit.role]
    if hit.fve is not None:
        facts.insert(0, f"FVE {signed(hit.fve)}")
    facts += [FLAG_NAME[Flag(flag)] for flag in hit.flags if flag in set(Flag)]
    if hit.similarity is not None:
        facts.append(f"likeness {hit.similarity:.2f}")
    if len(hit.ranks) > 1:
        facts.append("by words and meaning")
    actions: tuple[tuple[str, str], ...] = ()
    if hit.reading_id is not None:
        actions = (("more", "More like this"), ("less", "Not like this"))
    return Card(
        id=hit.reading_id or f"{hit.transcript_id}/{hit.position}",
        query=opened.at(hit.position, hit.sample or 0).query,
        text=hit.text,
        quiet=split(hit.text).quiet_from if hit.reading_id else None,
        spans=hit.spans,
        fve=hit.fve,
        facts=" · ".join(facts),
        actions=actions,
    )


def pages(found: Results, view: SearchView) -> None:
    with st.container(horizontal=True, gap="small", key="pages"):
        if view.after is not None:
            st.button(
                "Back to the best",
                key="first_page",
                icon=":material/first_page:",
                on_click=lambda: controls.change(SearchView, after=None),
            )
        if found.after is not None:
            st.button(
                f"The next {finder.PAGE}",
                key="next_page",
                icon=":material/arrow_forward:",
                on_click=lambda: controls.change(SearchView, after=found.after),
            )


def nothing(found: Results, view: SearchView) -> None:
    """Why there is nothing, and searches nearby that find something."""
    draw(
        '<div class="nla-notice"><p><b>Nothing was found.</b></p><ul>{why}</ul></div>',
        why=join([fill("<li>{text}</li>", text=text) for text in found.why]),
    )
    for number, near in enumerate(found.near):
        st.button(
            shell.as_label(f"{near.label}: {'' if near.exact else 'at least '}{near.hits:,}"),
            key=f"near_{number}",
            icon=":material/arrow_forward:",
            type="tertiary",
            on_click=_ask,
            args=(near,),
        )
    if view.mode == "keyword" and view.text and view.within == "explanations":
        st.button(
            "Search by meaning instead",
            key="by_meaning",
            icon=":material/arrow_forward:",
            type="tertiary",
            on_click=lambda: controls.change(SearchView, mode="semantic"),
        )


def _ask(near: Near) -> None:
    query, only = near.query, near.query.filters
    span = None if only.positions == (None, None) else only.positions
    controls.change(
        SearchView,
        text=query.text,
        mode=query.mode,
        within=query.within,
        like=query.like,
        unlike=query.unlike,
        unspoken=query.unspoken,
        role=next(iter(map(str, only.roles)), None),
        category=next(iter(only.categories), None),
        tag=next(iter(only.tags), None),
        flag=next(iter(map(str, only.flags)), None),
        without=next(iter(map(str, only.no_flags)), None),
        floor=only.fve_min,
        range=span and (span[0] or 0, finder.LAST_POSITION if span[1] is None else span[1]),
    )
