"""A box to edit an explanation in, which tells what was typed while one types.

Knows typing and pauses. Does not know what the text is for. The decision a reader would question: a
component, because Streamlit's own box of several lines tells only when it is left; what comes back
from the server never replaces what somebody is typing, unless the text belongs to something else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

_HERE = Path(__file__).parent
_component = st.components.v2.component(
    "nla_edit_box",
    html="""
<label class="edit"><span></span>
<textarea rows="5" spellcheck="false"></textarea></label>
""",
    css="""
:host { display: block; min-width: 0; }
.edit { display: grid; gap: 3px; font-family: var(--st-font); color: var(--st-text-color); }
span { font-size: 12.8px; font-weight: 600;
  color: color-mix(in srgb, var(--st-text-color) 66%, transparent); }
textarea {
  font: inherit; font-size: 16px; line-height: 1.5; color: inherit; resize: vertical;
  width: 100%; box-sizing: border-box; padding: 8px 11px; overflow-wrap: anywhere;
  background: var(--st-secondary-background-color); border-radius: var(--st-base-radius);
  border: 1px solid color-mix(in srgb, var(--st-text-color) 16%, transparent);
}
textarea:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 0; }
""",
    js=(_HERE / "edit_box.js").read_text(encoding="utf-8"),
)


def edit_box(
    label: str, text: str, *, of: str, longest: int, key: str, on_change: Callable[[str], None]
) -> None:
    """``of`` names what the text belongs to: when that changes, ``text`` takes the place of what
    stands in the box. ``on_change`` is told the text after each pause in typing."""

    def tell() -> None:
        typed = (st.session_state.get(key) or {}).get("text")
        if isinstance(typed, str):
            on_change(typed)

    _component(
        key=key,
        data={"label": label, "text": text, "of": of, "longest": longest},
        default={"text": text},
        on_text_change=tell,
    )
