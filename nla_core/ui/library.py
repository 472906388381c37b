"""The list of transcripts in the sidebar: filter, category, order, and links.

Knows the controls of the list and that each of them is a field of the view. Does not know what
opening a transcript shows. The decision a reader would question: widgets hold nothing of their own;
before each run they are set to what the URL says, and their callbacks only write the URL, so that
Back undoes a filter like anything else.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
import streamlit as st

from nla_core.data.dataset import Dataset
from nla_core.links import ViewState
from nla_core.schema import Status
from nla_core.ui import controls, facets
from nla_core.ui.html import draw, hint

MOST_ROWS: Final = 500

_ALL: Final = ""
_HERE = Path(__file__).parent
_component = st.components.v2.component(
    "nla_library",
    html='<nav class="library" aria-label="Transcripts">\n</nav>',
    css=(_HERE / "library.css").read_text(encoding="utf-8"),
    js=(_HERE / "library.js").read_text(encoding="utf-8"),
)


def library(dataset: Dataset, view: ViewState, *, current: str | None) -> None:
    """Draw the controls and the list; ``current`` is the transcript that the page shows."""
    categories = dataset.categories()
    counts = dict(zip(categories["category"], categories["n_transcripts"], strict=True))
    with st.container(key="library_controls"):
        _controls(view, counts)
    facets.chosen(replace(view, category=None))  # the category has its own control here
    rows = dataset.transcripts(
        sort=view.sort,
        descending=view.descending,
        limit=MOST_ROWS,
        **facets.filters(view),
    )
    if rows.empty:
        _nothing(view)
        return
    _component(
        key="library",
        data=_data(rows, view, current),
        on_open_change=_open,
    )
    if len(rows) == MOST_ROWS:
        hint(f"The first {MOST_ROWS}; narrow the list to see others.")


def _controls(view: ViewState, counts: dict[str, int]) -> None:
    facets.words(view)
    chosen = view.category or _ALL
    total = sum(counts.values())
    st.selectbox(
        "Category",
        list(dict.fromkeys([_ALL, *counts, chosen])),
        format_func=lambda name: (
            f"All categories ({total})" if name == _ALL else f"{name} ({counts.get(name, 0)})"
        ),
        label_visibility="collapsed",
        **controls.bound(
            "category", chosen, lambda name: controls.change(ViewState, category=name or None)
        ),
    )
    facets.order(view)


def _nothing(view: ViewState) -> None:
    what = f"“{view.contains}”" if view.contains else "these settings"
    where = f" in {view.category}" if view.category else ""
    draw('<p class="nla-empty">No transcript matches {what}{where}.</p>', what=what, where=where)
    st.button(
        "Show all transcripts",
        key="show_all",
        on_click=facets.clear,
    )


def _open() -> None:
    chosen = st.session_state["library"].get("open")
    if isinstance(chosen, dict) and isinstance(chosen.get("id"), str):
        controls.go(ViewState, lambda view: view.opened(chosen["id"]))


def _data(rows: pd.DataFrame, view: ViewState, current: str | None) -> dict[str, Any]:
    grouped = view.sort == "category" and view.category is None
    groups: dict[str | None, list[dict[str, Any]]] = {}
    for row in rows.to_dict("records"):
        name = row["category"] if grouped else None
        groups.setdefault(name, []).append(
            _item(row, with_category=view.category is None and not grouped)
        )
    return {
        "groups": [{"name": name, "items": items} for name, items in groups.items()],
        "links": {key: view.opened(key).query for key in rows["transcript_id"]},
        "current": current,
    }


def _item(row: dict[Any, Any], *, with_category: bool) -> dict[str, Any]:
    failed = row["status"] != Status.OK
    fve = None if failed or pd.isna(row["mean_fve"]) else float(row["mean_fve"])
    facts = [row["category"]] if with_category else []
    facts += ["failed"] if failed else [f"{row['n_tokens']} tokens"]
    return {
        "id": row["transcript_id"],
        "title": row["title"],
        "facts": " · ".join(facts),
        "fve": None if fve is None else round(fve, 2),
        "failed": failed,
    }
