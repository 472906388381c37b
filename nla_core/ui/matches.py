"""The readings that hold a concept of the watchlist: some shown and judged, all taken away.

Knows what an auditor needs beside a match: transcript, token, score and the verdict so far. Does
not know how a match is scored or where verdicts are kept. The decision a reader would question:
a few are drawn at a time and all are downloaded. Nobody judges thousands in a browser, and the best
say little of the rest; so a random draw, the same each time, stands beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pandas as pd
import streamlit as st

from nla_core.analysis import concepts as watchlist
from nla_core.analysis.claims import split
from nla_core.analysis.concepts import Concept
from nla_core.analysis.derived import StoredScores
from nla_core.data.dataset import Dataset
from nla_core.intervals import wilson
from nla_core.links import AuditView, CompareView
from nla_core.ui import charts, controls, downloads
from nla_core.ui.auditing import UNUSABLE, unusable
from nla_core.ui.cards import Card, Chosen, Group, cards
from nla_core.ui.html import draw, hint
from nla_core.ui.later import signed

SHOWN: Final = 24
ORDERS: Final = {
    "best": "Best first",
    "edge": "Nearest the threshold",
    "random": "At random",
}
ORDER_HELP: Final = (
    "The best show what the concept means here, those nearest the threshold whether it is set "
    "well. Those drawn at random, judged one after another, tell how many of all are right."
)
WHERE: Final = ("transcript_id", "position", "sample")
COLUMNS: Final = (
    "reading_id", "transcript_id", "title", "category", "position", "sample", "role", "token",
    "score", "fve", "verdict", "explanation",
)  # fmt: skip


def matches(dataset: Dataset, scores: StoredScores, view: AuditView) -> None:
    """The readings that hold the chosen concept, to be confirmed or rejected by hand."""
    concept = next((c for c in scores.concepts if c.id == view.concept), None)
    if concept is None:
        if view.concept is not None:
            hint(f"This watchlist has no concept “{view.concept}”.")
        return
    rows = scores.matches(concept.id, category=view.category, flagged=view.flagged, limit=None)
    if view.floor is not None:
        rows = rows[rows["fve"] >= view.floor]
    judged = watchlist.verdicts(dataset.root.name, concept.id)
    with st.container(horizontal=True, vertical_alignment="bottom", key="matches_row"):
        draw(
            '<h2 class="nla-h2">{name}</h2><p class="nla-hint">{words}</p>',
            name=concept.name,
            words=f"{concept.description} {counted(len(rows), judged)}",
        )
        if len(rows):
            with st.popover("Download", icon=":material/download:", key="download_matches"):
                hint("Every reading that matches, with its text and your verdict.")
                downloads.buttons(
                    dataset,
                    f"matches-{concept.id}",
                    lambda: table(dataset, rows, concept, judged),
                    formats=("csv", "jsonl", "parquet"),
                    key="matches",
                )
    if concept.id in unusable(dataset.manifest.pair):
        hint(f"This concept is {UNUSABLE}: look at the matches one by one and count none of them.")
    if rows.empty:
        draw('<p class="nla-empty">No reading that counts here holds it.</p>')
        return

    def act(chosen: Chosen) -> None:
        if chosen.action in ("confirmed", "rejected", "open") and chosen.id:
            watchlist.judge(dataset.root.name, concept.id, chosen.id, chosen.action)  # type: ignore[arg-type]

    st.session_state.setdefault("matches_order", "best")
    if len(rows) > SHOWN:
        st.segmented_control(
            "Order of matches",
            list(ORDERS),
            key="matches_order",
            required=True,
            format_func=ORDERS.__getitem__,
            help=ORDER_HELP,
        )
    pages = f"matches_pages_{concept.id}"
    order = st.session_state["matches_order"] if len(rows) > SHOWN else "best"
    some = ordered(rows, order).head(SHOWN * st.session_state.get(pages, 1))
    drawn = _with_texts(dataset, some)
    if order == "random":
        hint(estimated(len(rows), judged, drawn["reading_id"]))
    chosen = cards(
        [Group([_card(row, judged, view) for row in drawn.to_dict("records")])],
        label=f"Readings that match {concept.name}",
        key="matches",
        base="compare",
        on_choice=act,
    )
    if len(some) < len(rows):
        st.button(
            f"Show {min(SHOWN, len(rows) - len(some))} more of {len(rows) - len(some):,}",
            key="matches_more",
            icon=":material/expand_more:",
            on_click=lambda: st.session_state.update({pages: st.session_state.get(pages, 1) + 1}),
        )
    controls.leave(CompareView, chosen, "compare")


def ordered(rows: pd.DataFrame, order: str) -> pd.DataFrame:
    """Matches, which come best first, in one of the `ORDERS`."""
    if order == "random":
        return rows.sample(frac=1, random_state=0)
    return rows[::-1] if order == "edge" else rows


def estimated(n: int, judged: Mapping[str, str], drawn: Iterable[str]) -> str:
    """How many of ``n`` matches are right, by the verdicts on those that were drawn at random."""
    found = [judged[str(reading)] for reading in drawn if str(reading) in judged]
    if not found:
        return "None of these is judged yet. Judge them in their order; skipping biases the share."
    right = sum(verdict == "confirmed" for verdict in found)
    low, high = wilson(right, len(found))
    return (
        f"{right} of the {len(found)} judged here are right, so {low:.0%} to {high:.0%} of all "
        f"{n:,} matches are (95 %)."
    )


def counted(n: int, judged: Mapping[str, str]) -> str:
    """How many match, and what was found of those looked at."""
    said = f"{n:,} reading{'' if n == 1 else 's'} match{'es' if n == 1 else ''}."
    if judged:
        confirmed = sum(verdict == "confirmed" for verdict in judged.values())
        said += f" {confirmed} of {len(judged)} that were looked at are right."
    return said


def table(
    dataset: Dataset, rows: pd.DataFrame, concept: Concept, judged: Mapping[str, str]
) -> pd.DataFrame:
    """Every match with its text, its token and the verdict on it ("" without one): ``concept``
    and `COLUMNS`, best first."""
    found = _with_texts(dataset, rows)
    found.insert(0, "concept", concept.id)
    found["verdict"] = found["reading_id"].map(dict(judged)).fillna("")
    return found[["concept", *COLUMNS]]


def _with_texts(dataset: Dataset, rows: pd.DataFrame) -> pd.DataFrame:
    """Matches and what the dataset says of their readings, in the order of the matches."""
    parts = [dataset.find_readings(transcript_id=t) for t in rows["transcript_id"].unique()]
    texts = pd.concat(parts)[[*WHERE, "reading_id", "title", "role", "token", "explanation"]]
    return rows.merge(texts, on=list(WHERE), how="inner", sort=False)


def _card(row: Mapping[Any, Any], judged: Mapping[str, str], view: AuditView) -> Card:
    position = int(row["position"])
    verdict = judged.get(str(row["reading_id"]))
    facts = [
        f"FVE {signed(float(row['fve']))}",
        f"match {signed(float(row['score']))}",
        f"token {position}",
        str(row["role"]),
        str(row["category"]),
    ]
    return Card(
        id=str(row["reading_id"]),
        query=CompareView(dataset=view.dataset, transcript=str(row["transcript_id"]))
        .at(position, int(row["sample"]))
        .query,
        title=str(row["title"]),
        token=charts.visible(str(row["token"])),
        text=str(row["explanation"]),
        quiet=split(str(row["explanation"])).quiet_from,
        fve=float(row["fve"]),
        facts=" · ".join([*facts, *([f"{verdict} by you"] if verdict else [])]),
        actions=[("open", "Take the verdict back")]
        if verdict
        else [("confirmed", "Right"), ("rejected", "Wrong")],
    )
