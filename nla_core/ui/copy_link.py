"""A button that copies the address of what is on the screen.

Knows the query of the link; the browser adds the address of the page. Does not know what it links
to. The decision a reader would question: a component instead of a field to copy from, because only
the browser knows under which address it reached this server.
"""

from __future__ import annotations

import streamlit as st

_component = st.components.v2.component(
    "nla_copy_link",
    html="""
<div class="copy"><button type="button"><span class="icon" aria-hidden="true"></span>
<span class="label" aria-live="polite">Copy link</span></button>
<input type="text" readonly aria-label="Link to this token" hidden></div>
""",
    css="""
button {
  font: inherit; font-family: var(--st-font); font-size: .95em; color: inherit; cursor: pointer;
  display: inline-flex; align-items: center; gap: 9px; padding: 4px 12px; background: none;
  min-height: 37.5px; box-sizing: border-box;
  border: 1px solid color-mix(in srgb, var(--st-text-color) 20%, transparent);
  border-radius: var(--st-button-radius); white-space: nowrap;
}
.copy { color: var(--st-text-color); }
button:hover { border-color: var(--st-primary-color); color: var(--st-primary-color); }
button:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 1px; }
.icon { width: 8px; height: 10px; border: 1.5px solid currentColor; border-radius: 2px;
  box-shadow: 3px -3px 0 -1.5px var(--st-background-color), 3px -3px 0 0 currentColor; }
input { margin-top: 6px; width: 100%; box-sizing: border-box; font: inherit; font-size: 12px; }
""",
    js="""
export default function ({ data, parentElement }) {
  const button = parentElement.querySelector("button");
  const label = parentElement.querySelector(".label");
  const field = parentElement.querySelector("input");
  if (!button) return;
  const link = location.origin + location.pathname + "?" + data.query;
  button.dataset.link = link;
  button.title = link;
  field.hidden = true;
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(link);
      label.textContent = "Link copied";
      setTimeout(() => { label.textContent = "Copy link"; }, 1800);
    } catch {  // no clipboard without https or permission: offer the text itself
      field.value = link;
      field.hidden = false;
      field.select();
    }
  };
}
""",
)


def copy_link(query: str) -> None:
    """``query`` is a link of links.py, without the question mark."""
    _component(key="copy_link", data={"query": query})
