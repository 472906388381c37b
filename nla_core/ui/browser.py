"""The list of transcripts as cards or as a table, page by page.

Knows how a transcript looks from outside. Does not know how the list is narrowed. The decision a
reader would question: pages follow each other by the last row seen and have no numbers; a number
would have to count all rows before it, and would shift when the dataset changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pandas as pd
import streamlit as st

from nla_core.data.dataset import Dataset
from nla_core.links import ViewState
from nla_core.schema import Status
from nla_core.ui import charts, controls, downloads, facets, shell
from nla_core.ui.cards import Card, Group, cards
from nla_core.ui.html import draw, hint
from nla_core.ui.later import signed

PAGE: Final = 48


def heading(dataset: Dataset, view: ViewState, total: int) -> None:
    every = dataset.manifest.counts["transcripts"]
    pair = dataset.manifest.pair
    with st.container(horizontal=True, vertical_alignment="bottom", key="title_row"):
        draw(
            '<div class="nla-head"><h1>{what}</h1><div class="facts"><span>{source}</span>'
            "<span>{readings} readings</span></div></div>",
            what=f"{total:,} of {every:,} transcripts"
            if total != every
            else f"{every:,} transcripts",
            source=f"{dataset.root.name} {dataset.version} · {pair.get('pair_id', '')}, "
            f"layer {pair.get('layer', '?')}",
            readings=f"{dataset.manifest.counts['readings']:,}",
        )
        with st.popover("Download", icon=":material/download:", key="download_popover"):
            hint("The transcripts that the filters leave, one a row.")
            downloads.buttons(
                dataset,
                "transcripts",
                lambda: dataset.transcripts(
                    sort=view.sort, descending=view.descending, **facets.filters(view)
                ),
                formats=("csv", "jsonl", "parquet"),
            )


def layout(view: ViewState) -> None:
    st.segmented_control(
        "Layout",
        ["cards", "table"],
        required=True,
        format_func=str.capitalize,
        label_visibility="collapsed",
        **controls.field("layout", view, "layout"),
    )


def grid(rows: pd.DataFrame, view: ViewState) -> None:
    """Cards, in groups by category where that is the order."""
    grouped = view.sort == "category" and view.category is None
    groups: dict[str, list[Card]] = {}
    for row in rows.to_dict("records"):
        name = str(row["category"]) if grouped else ""
        groups.setdefault(name, []).append(_card(row, view, with_category=not grouped))
    chosen = cards(
        [Group(items, title=name) for name, items in groups.items()],
        label="Transcripts",
        key="transcript_cards",
        base="explore",
        layout="grid",
    )
    controls.leave(ViewState, chosen, "explore")


def _card(row: dict[Any, Any], view: ViewState, *, with_category: bool) -> Card:
    failed = row["status"] != Status.OK
    facts = [str(row["category"])] if with_category else []
    if failed:
        facts.append("could not be processed")
    else:
        facts += [f"FVE {_fve(row)}", f"{row['n_tokens']} tokens"]
        if row["flagged_share"] > 0:
            facts.append(f"{row['flagged_share']:.0%} flagged")
    return Card(
        id=str(row["transcript_id"]),
        query=replace(view, after=None).opened(row["transcript_id"]).query,
        title=str(row["title"]),
        fve=None if pd.isna(row["mean_fve"]) else float(row["mean_fve"]),
        facts=" · ".join(facts),
        spark=None if failed else [None if pd.isna(v) else float(v) for v in row["sparkline"]],
        failed=failed,
    )


def table(rows: pd.DataFrame, view: ViewState) -> None:
    """One row a transcript; choosing a row opens it."""
    shown = rows.assign(
        flagged=rows["flagged_share"] * 100,
        tags=rows["tags"].map(lambda tags: ", ".join(tags)),
        sparkline=rows["sparkline"].map(
            lambda values: [0.0 if pd.isna(v) else max(float(v), 0.0) for v in values]
        ),
    )
    state = st.dataframe(
        shown,
        key=f"table_{view.after}",
        hide_index=True,
        height=min(38 + 35 * len(shown), 38 + 35 * 20),
        on_select="rerun",
        selection_mode="single-row",
        column_order=[
            "title", "category", "mean_fve", "sparkline", "n_tokens", "n_readings",
            "flagged", "max_surprisal", "tags",
        ],
        column_config={
            "title": st.column_config.TextColumn("Transcript", width="medium"),
            "category": st.column_config.TextColumn("Category"),
            "mean_fve": st.column_config.ProgressColumn(
                "Mean FVE", min_value=0.0, max_value=1.0, format="%.2f"
            ),
            "sparkline": st.column_config.LineChartColumn(
                "Fidelity along it", y_min=0.0, y_max=1.0
            ),
            "n_tokens": st.column_config.NumberColumn("Tokens"),
            "n_readings": st.column_config.NumberColumn("Readings"),
            "flagged": st.column_config.NumberColumn("Flagged", format="%.0f%%"),
            "max_surprisal": st.column_config.NumberColumn("Biggest surprise", format="%.1f nats"),
            "tags": st.column_config.TextColumn("Tags"),
        },
    )  # fmt: skip
    hint("Choose a row to open its transcript.")
    chosen = state["selection"]["rows"]
    if chosen and chosen[0] < len(rows):
        opened = replace(view, after=None).opened(str(rows["transcript_id"].iloc[chosen[0]]))
        st.switch_page(shell.page("explore"), query_params=opened.params())


def pages(rows: pd.DataFrame, view: ViewState) -> None:
    """On to the next page, and back to the first; the browser's Back goes one page back."""
    with st.container(horizontal=True, gap="small", key="pages"):
        if view.after is not None:
            st.button(
                "First page",
                key="first_page",
                icon=":material/first_page:",
                on_click=lambda: controls.change(ViewState, after=None),
            )
        if len(rows) > PAGE:
            last = str(rows["transcript_id"].iloc[PAGE - 1])
            st.button(
                "Next page",
                key="next_page",
                icon=":material/arrow_forward:",
                on_click=lambda: controls.change(ViewState, after=last),
            )


def by_category(counts: pd.DataFrame, view: ViewState) -> None:
    """How the transcripts that are left spread over the categories."""
    rows = counts[counts["facet"] == "category"]
    if len(rows) < 2:
        return
    with st.expander("How many of each category", key="by_category"):
        st.plotly_chart(
            charts.counts(
                dict(zip(rows["value"], rows["n_transcripts"], strict=True)), "transcripts"
            ),
            key="category_chart",
            config={**charts.CONFIG, "staticPlot": True},
            alt="Transcripts by category",
        )


def nothing(dataset: Dataset, view: ViewState) -> None:
    """An empty list: which filter empties it, and the way out."""
    draw('<p class="nla-empty"><b>No transcript passes all of these filters.</b></p>')
    for facet, field, _ in facets.FACETS:
        value = getattr(view, field)
        if value is None:
            continue
        others = {**facets.filters(view), facet: None}
        left = dataset.count_transcripts(**others)  # type: ignore[arg-type]
        if left:
            st.button(
                shell.as_label(f"Without “{facets.label(facet, value)}”: {left:,}"),
                key=f"without_{field}",
                type="tertiary",
                icon=":material/close:",
                on_click=lambda field=field: controls.change(ViewState, **{field: None}),
            )
    if view.contains:
        left = dataset.count_transcripts(**{**facets.filters(view), "contains": None})  # type: ignore[arg-type]
        st.button(
            shell.as_label(f"Without the words “{view.contains}”: {left:,}"),
            key="without_words",
            type="tertiary",
            icon=":material/close:",
            on_click=lambda: controls.change(ViewState, contains=""),
        )
    st.button("Show all transcripts", key="show_all", on_click=facets.clear)


def _fve(row: dict[Any, Any]) -> str:
    return "–" if pd.isna(row["mean_fve"]) else signed(float(row["mean_fve"]))
