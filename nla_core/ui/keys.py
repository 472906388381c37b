"""The keys of the explorer: the list that `?` shows, and `/` for the search field.

Knows what is said of the keys. Does not know the strip, which answers most of them itself. The
decision a reader would question: the list is a native dialog, which holds the focus, closes with
Escape and is announced without any help of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import streamlit as st

from nla_core.ui.html import fill, join

KEYS: Final = (
    (("←", "→"), "previous and next token"),
    (("↑", "↓"), "the token above and below"),
    (("Home", "End"), "first and last token"),
    (("Enter",), "lock the token under the keyboard"),
    (("Esc",), "unlock; once more: clear the range"),
    (("Shift", "←/→"), "mark a range; with the mouse: drag, or Shift and click"),
    (("n", "p"), "next and previous token with the phrase"),
    (("/",), "go to the search field"),
    (("?",), "this list"),
)

_component = st.components.v2.component(
    "nla_keys",
    html=fill(
        """
<dialog aria-label="Keys"><h2>Keys</h2><dl>{rows}</dl>
<p>Tab leads into the transcript and out of it again.</p>
<button type="button">Close</button></dialog>
""",
        rows=join(
            [
                fill(
                    "<div><dt>{names}</dt><dd>{words}</dd></div>",
                    names=join([fill("<kbd>{name}</kbd>", name=name) for name in names]),
                    words=words,
                )
                for names, words in KEYS
            ]
        ),
    ),
    css="""
dialog {
  font-family: var(--st-font); color: var(--st-text-color); background: var(--st-background-color);
  border: 1px solid color-mix(in srgb, var(--st-text-color) 20%, transparent); border-radius: 10px;
  padding: 18px 22px; max-width: min(30rem, 92vw);
}
dialog::backdrop { background: rgb(0 0 0 / .45); }
h2 { font-size: 17px; margin: 0 0 10px; }
dl { margin: 0; display: grid; gap: 7px; font-size: 14px; }
dl div { display: grid; grid-template-columns: 8.5rem 1fr; gap: 12px; }
dt, dd { margin: 0; }
kbd {
  font: inherit; font-size: 12px; padding: 1px 6px; margin-right: 4px; border-radius: 4px;
  border: 1px solid color-mix(in srgb, var(--st-text-color) 30%, transparent);
}
p { font-size: 13px; margin: 12px 0; }
button { font: inherit; font-size: 13px; padding: 5px 12px; cursor: pointer; }
""",
    js=(Path(__file__).with_name("keys.js")).read_text(encoding="utf-8"),
)


def keys() -> None:
    """Mount what listens. Draws nothing until `?` is pressed."""
    _component(key="keys")
