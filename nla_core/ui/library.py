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

from nla_core.refs import SortKey, ViewState
from nla_core.schema import Status
from nla_core.store.dataset import Dataset
from nla_core.ui import shell
from nla_core.ui.html import draw

MOST_ROWS: Final = 500

Order = tuple[SortKey, bool]
ORDERS: Final[dict[Order, str]] = {
    ("category", False): "By category",
    ("title", False): "Title, A to Z",
    ("mean_fve", True): "Most faithful first",
    ("mean_fve", False): "Least faithful first",
    ("n_tokens", True): "Longest first",
    ("n_tokens", False): "Shortest first",
    ("max_surprisal", True): "Biggest surprise first",
    ("flagged_share", True): "Most flagged first",
}

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
    rows = dataset.transcripts(
        category=view.category,
        contains=view.contains,
        sort=view.sort,
        descending=view.descending,
        limit=MOST_ROWS,
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
        st.caption(f"The first {MOST_ROWS}; narrow the list to see others.")


def order_label(order: Order) -> str:
    """A name for every order a link may carry, also for those the control does not offer."""
    key, descending = order
    return ORDERS.get(order, f"{key.replace('_', ' ')}, {'down' if descending else 'up'}")


def _controls(view: ViewState, counts: dict[str, int]) -> None:
    typed = st.session_state.get("filter")
    if typed is None or typed.strip() != view.contains:
        st.session_state["filter"] = view.contains
    st.text_input(
        "Filter transcripts",
        key="filter",
        type="search",
        live="400ms",
        placeholder="Filter by title, text or tag",
        label_visibility="collapsed",
        max_chars=200,
        on_change=lambda: shell.go(
            lambda v: replace(v, contains=st.session_state["filter"].strip())
        ),
    )
    chosen = view.category or _ALL
    st.session_state["category"] = chosen
    total = sum(counts.values())
    st.selectbox(
        "Category",
        list(dict.fromkeys([_ALL, *counts, chosen])),
        key="category",
        format_func=lambda name: (
            f"All categories ({total})" if name == _ALL else f"{name} ({counts.get(name, 0)})"
        ),
        label_visibility="collapsed",
        on_change=lambda: shell.go(
            lambda v: replace(v, category=st.session_state["category"] or None)
        ),
    )
    order: Order = (view.sort, view.descending)
    st.session_state["order"] = order
    st.selectbox(
        "Order",
        list(dict.fromkeys([*ORDERS, order])),
        key="order",
        format_func=order_label,
        label_visibility="collapsed",
        on_change=lambda: shell.go(
            lambda v: replace(
                v, sort=st.session_state["order"][0], descending=st.session_state["order"][1]
            )
        ),
    )


def _nothing(view: ViewState) -> None:
    what = f"“{view.contains}”" if view.contains else "these settings"
    where = f" in {view.category}" if view.category else ""
    draw('<p class="nla-empty">No transcript matches {what}{where}.</p>', what=what, where=where)
    st.button(
        "Show all transcripts",
        key="show_all",
        on_click=lambda: shell.go(lambda v: replace(v, contains="", category=None)),
    )


def _open() -> None:
    chosen = st.session_state["library"].get("open")
    if isinstance(chosen, dict) and isinstance(chosen.get("id"), str):
        shell.go(lambda view: view.opened(chosen["id"]))


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
