"""Lists of links with something to look at: readings, transcripts, search results.

Knows what a card can hold and mounts the component that draws it. Does not know what is listed or
where a link leads. The decision a reader would question: cards are real links answered inside the
app; a plain link would load the whole app again, a button could not be opened in a new tab.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import streamlit as st

_HERE = Path(__file__).parent
_component = st.components.v2.component(
    "nla_cards",
    html='<nav class="cards">\n</nav>',
    css=(_HERE / "cards.css").read_text(encoding="utf-8"),
    js=(_HERE / "cards.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True, slots=True)
class Card:
    """``query`` is a link of links.py; ``spans`` are the lit characters of ``text``, which is drawn
    quietly from ``quiet`` on; ``spark`` are
    values from 0 to 1, None where there is nothing; ``why`` is a sentence of ours."""

    id: str
    query: str
    title: str = ""
    token: str | None = None
    text: str = ""
    spans: Sequence[tuple[int, int]] = ()
    quiet: int | None = None
    facts: str = ""
    fve: float | None = None
    spark: Sequence[float | None] | None = None
    why: str = ""
    failed: bool = False
    actions: Sequence[tuple[str, str]] = ()  # (action, label)


@dataclass(frozen=True, slots=True)
class Group:
    items: Sequence[Card]
    title: str = ""
    facts: str = ""
    query: str | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a person did: a link that they followed, or an action on a card."""

    query: str | None = None
    action: str | None = None
    id: str | None = None


def cards(
    groups: Sequence[Group],
    *,
    label: str,
    key: str,
    base: str = "",
    layout: Literal["list", "grid", "row"] = "list",
    on_choice: Callable[[Chosen], None] | None = None,
) -> Chosen:
    """Draw the groups. ``label`` names the list to a screen reader; ``base`` is the page that the
    links lead to, empty for this one.

    What was chosen is told to ``on_choice`` before the run, or returned within it: a callback can
    change the address of this page, a run can go to another one.
    """

    def told() -> Chosen:
        state = st.session_state.get(key) or {}
        opened, acted = state.get("open"), state.get("act")
        if isinstance(opened, dict) and isinstance(opened.get("query"), str):
            return Chosen(query=opened["query"])
        if isinstance(acted, dict):
            return Chosen(action=str(acted.get("action")), id=str(acted.get("id")))
        return Chosen()

    def tell() -> None:
        if on_choice is not None:
            on_choice(told())

    _component(
        key=key,
        data={
            "groups": [_group(group) for group in groups],
            "label": label,
            "base": base,
            "layout": layout,
        },
        on_open_change=tell,
        on_act_change=tell,
    )
    return told()


def _group(group: Group) -> dict[str, Any]:
    return {
        "title": group.title,
        "facts": group.facts,
        "query": group.query,
        "items": [_card(card) for card in group.items],
    }


def _card(card: Card) -> dict[str, Any]:
    values = {name: value for name, value in asdict(card).items() if value not in ("", (), None)}
    if card.actions:
        values["actions"] = [{"action": a, "label": label} for a, label in card.actions]
    if card.fve is not None:
        values["fve"] = round(card.fve, 3)
    if card.spark is not None:
        values["spark"] = [None if v is None else round(v, 3) for v in card.spark]
        values["sparkLabel"] = "Fidelity along the transcript"
    return {"facts": "", **values}
