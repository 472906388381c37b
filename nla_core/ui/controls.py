"""The address bar, and widgets that are bound to it.

What a widget holds by itself never counts: before each run it is set to what the address says, and
its callback only writes the address, so that Back undoes a choice like anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import streamlit as st

from nla_core.links import Link, Parsed
from nla_core.ui import shell
from nla_core.ui.cards import Chosen

L = TypeVar("L", bound=Link)
Change = Callable[[L], L]


# ---- the address ---------------------------------------------------------------------------------


def read(kind: type[L]) -> Parsed[L]:
    """What the address bar says, and what was wrong with it."""
    return kind.parse(st.query_params)


def show(view: Link) -> None:
    """Put a view into the address bar. For callbacks: the run that follows draws it."""
    st.query_params.from_dict(view.params())


def go(kind: type[L], change: Change[L]) -> None:
    """Change the view in the address bar. For callbacks."""
    show(change(read(kind).view))


def change(kind: type[Link], **changes: Any) -> None:
    """Change fields of the view in the address bar. For callbacks."""
    go(kind, lambda view: view.changed(**changes))


def follow(kind: type[Link]) -> Callable[[Chosen], None]:
    """A callback that goes where a card leads on this page."""

    def go_there(chosen: Chosen) -> None:
        if chosen.query is not None:
            show(kind.parse_query(chosen.query).view)

    return go_there


def leave(kind: type[Link], chosen: Chosen, name: shell.PageName) -> None:
    """Go where a card leads on another page. Ends the run if something was chosen."""
    if chosen.query is not None:
        view = kind.parse_query(chosen.query).view
        st.switch_page(shell.page(name), query_params=view.params())


# ---- widgets -------------------------------------------------------------------------------------


def bound(key: str, now: Any, take: Callable[[Any], None]) -> dict[str, Any]:
    """Arguments of a widget that shows ``now`` and hands what is chosen to ``take``."""
    st.session_state[key] = now
    return {"key": key, "on_change": lambda: take(st.session_state[key])}


def typed(key: str, now: str, take: Callable[[str], None]) -> dict[str, Any]:
    """`bound` for a text that is handed over while it is typed: spaces at its ends stay."""
    held = st.session_state.get(key)
    if held is not None and held.strip() == now:
        now = held
    return bound(key, now, lambda text: take(text.strip()))


def field(key: str, view: Link, name: str) -> dict[str, Any]:
    """Arguments of a widget that is the field ``name`` of the view in the address bar."""
    return bound(key, getattr(view, name), lambda value: change(type(view), **{name: value}))


def switch(key: str, view: Link, name: str, label: str, words: str) -> None:
    """A toggle for a field of the view; ``words`` are its help."""
    st.toggle(label, help=words, **field(key, view, name))


def pills(
    key: str, view: Link, name: str, label: str, values: Sequence[Any], say: Callable[[Any], str]
) -> None:
    """A field of the view as one of ``values`` or none; what it is now is always offered."""
    now = getattr(view, name)
    st.pills(
        label,
        [*values, *([] if now is None or now in values else [now])],
        format_func=lambda value: shell.as_label(say(value)),
        **field(key, view, name),
    )
