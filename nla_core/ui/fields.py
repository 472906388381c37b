"""Controls that are fields of a view: set from it before each run, and telling what was chosen.

Knows how such a control is drawn. Does not know any view. The decision a reader would question:
what a widget holds by itself never counts; the address does, so that Back undoes a choice like
anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from nla_core.ui import shell


def switch(key: str, label: str, now: bool, change: Callable[[bool], None], words: str) -> None:
    """A toggle; ``words`` are its help."""
    st.session_state[key] = now
    st.toggle(label, key=key, help=words, on_change=lambda: change(st.session_state[key]))


def pills(
    key: str,
    label: str,
    values: Sequence[Any],
    now: Any,
    change: Callable[[Any], None],
    say: Callable[[Any], str],
) -> None:
    """One of ``values`` or none; ``now`` is offered although it is none of them."""
    st.session_state[key] = now
    st.pills(
        label,
        [*values, *([] if now is None or now in values else [now])],
        key=key,
        format_func=lambda value: shell.as_label(say(value)),
        on_change=lambda: change(st.session_state[key]),
    )
