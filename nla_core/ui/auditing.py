"""The pieces of the Audit page: concepts over a corpus, their matches, foresight, unspoken claims.

Knows how counts are laid out beside their intervals and floors. Does not know how they are made.
The decision a reader would question: a share never stands alone; the floor that noise alone gives
stands in the same picture, because with eight looks a transcript even noise finds something.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st

from nla_core import views, watchlist
from nla_core.compare.audit import ANY_OF, audit_table
from nla_core.compare.concepts import Concept
from nla_core.compare.foresight import foresight, foresight_summary, lines_of
from nla_core.refs import Parsed
from nla_core.store.claims import Claims
from nla_core.store.concepts import StoredScores
from nla_core.store.dataset import Dataset
from nla_core.store.mounts import PROJECT
from nla_core.ui import charts, comparing, downloads, fields
from nla_core.ui.cards import Card, Chosen, Group, cards
from nla_core.ui.html import draw, hint
from nla_core.ui.later import signed
from nla_core.views import AuditView, CompareView

MATCHES: Final = 24
LEADERS: Final = 40
PLANNED: Final = "rhyme and planning"


def read_link() -> Parsed[AuditView]:
    return views.parse_audit(st.query_params)


def go(change: Callable[[AuditView], AuditView]) -> None:
    """Put a changed audit into the address bar. For callbacks."""
    st.query_params.from_dict(change(read_link().view).params())


def controls(dataset: Dataset, view: AuditView) -> None:
    """Which readings count. Drawn in the sidebar."""
    _pills("FVE at least", "floor", [*comparing.FLOORS], view.floor, lambda v: f"{v:g}")
    _toggle("flagged", "Count flagged readings, too", view.flagged, comparing.FLAGGED_HELP)
    _toggle(
        "habits", "Rank what the verbalizer says everywhere", view.habits, comparing.HABITS_HELP
    )
    names = dataset.categories()["category"].tolist()
    _pills("Category", "category", names, view.category, str)


def _pills(
    label: str, field: str, values: list[Any], current: Any, say: Callable[[Any], str]
) -> None:
    fields.pills(f"audit_{field}", label, values, current, _put(field), say)


def _toggle(field: str, label: str, current: bool, words: str) -> None:
    fields.switch(f"audit_{field}", label, current, _put(field), words)


def _put(field: str) -> Callable[[Any], None]:
    return lambda value: go(lambda v: replace(v, **{field: value}))


# ---- concepts ------------------------------------------------------------------------------------


def table_of(scores: StoredScores, view: AuditView) -> pd.DataFrame:
    """`audit_table` of the readings that the view counts."""
    return audit_table(
        scores.columns(view.floor, flagged=view.flagged),
        [concept.id for concept in scores.concepts],
        np.array([concept.threshold for concept in scores.concepts], np.float32),
    )


def concepts(dataset: Dataset, scores: StoredScores, table: pd.DataFrame, view: AuditView) -> None:
    """Every concept in one picture and one table; choosing a row shows its matches."""
    rows = table[table["category"] == (view.category or "all")].reset_index(drop=True)
    names = {concept.id: concept.name for concept in scores.concepts}
    where = view.category or "all categories"
    n = int(rows["n_transcripts"].max()) if len(rows) else 0
    draw(
        '<p class="nla-label">Transcripts that hold a concept · {where}, {n} transcripts, any of '
        "{k} readings each</p>",
        where=where,
        n=n,
        k=ANY_OF,
    )
    st.plotly_chart(
        charts.shares(
            [
                (
                    names[r["concept"]],
                    r["explanations_share"] or 0.0,
                    r["low"],
                    r["high"],
                    r["floor"],
                    r["text_share"],
                )
                for r in rows.to_dict("records")
            ]
        ),
        key="concept_chart",
        config={**charts.CONFIG},
        alt="Shares of transcripts whose explanations and visible text hold each concept",
    )
    hint(
        "Relative, not calibrated. A share that does not clear its floor, and the share elsewhere, "
        "says nothing."
    )
    shown = rows.assign(name=rows["concept"].map(names))
    state = st.dataframe(
        shown,
        key=f"concept_table_{view.category}_{view.floor}_{view.flagged}",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        column_order=[
            "name", "explanations_share", "low", "high", "floor", "elsewhere", "text_share",
            "both", "explanations_only", "text", "neither",
        ],
        column_config={
            "name": "Concept",
            "explanations_share": _percent("Explanations hold it"),
            "low": _percent("from"),
            "high": _percent("to"),
            "floor": _percent("Noise floor"),
            "elsewhere": _percent("Elsewhere"),
            "text_share": _percent("Text holds it"),
            "both": "Both",
            "explanations_only": "Explanations only",
            "text": "Text",
            "neither": "Neither",
        },
    )  # fmt: skip
    chosen = state["selection"]["rows"]
    if chosen and chosen[0] < len(shown):
        concept = str(shown["concept"].iloc[chosen[0]])
        if concept != view.concept:
            st.query_params.from_dict(replace(view, concept=concept).params())
            st.rerun()
    with st.container(horizontal=True, gap="small", key="audit_take_away"):
        hint("Choose a row to see what matched.")
        how_good(scores.concepts)
        with st.popover("Download", icon=":material/download:", key="download_popover"):
            hint("Every concept and category, with intervals and floors.")
            downloads.buttons(dataset, "audit", lambda: table, formats=("csv", "jsonl", "parquet"))


def how_good(concepts: tuple[Concept, ...]) -> None:
    """Average precision and noise floor of each shipped concept, from the report of the labels."""
    report = PROJECT / "docs/benchmarks/compare.json"
    with st.popover("How good the matching is", type="tertiary", key="how_good"):
        try:
            found = json.loads(report.read_text(encoding="utf-8"))["concepts"]
        except (OSError, ValueError, KeyError):
            hint("The report is not here; `python -m precompute eval-compare` measures it.")
            return
        hint("Measured on labelled texts, half of which the thresholds were not fitted on.")
        rows = [
            {
                "Concept": concept.name,
                "Average precision": found[concept.id]["average_precision"],
                "Noise floor": found[concept.id]["noise_floor"],
            }
            for concept in concepts
            if concept.id in found
        ]
        st.dataframe(pd.DataFrame(rows).round(3), hide_index=True, key="how_good_table")


def _percent(label: str) -> Any:
    return st.column_config.NumberColumn(label, format="percent")


def matches(dataset: Dataset, scores: StoredScores, view: AuditView) -> None:
    """The readings that hold the chosen concept, to be confirmed or rejected by hand."""
    concept = next((c for c in scores.concepts if c.id == view.concept), None)
    if concept is None:
        return
    rows = scores.matches(concept.id, category=view.category, flagged=view.flagged, limit=None)
    if view.floor is not None:
        rows = rows[rows["fve"] >= view.floor]
    judged = watchlist.verdicts(dataset.root.name, concept.id)
    draw("<h2 class='nla-h2'>{name}</h2>", name=concept.name)
    confirmed = sum(verdict == "confirmed" for verdict in judged.values())
    told = f" {confirmed} of {len(judged)} that were looked at are right." if judged else ""
    hint(f"{concept.description} {len(rows):,} readings match.{told}")

    def act(chosen: Chosen) -> None:
        if chosen.action in ("confirmed", "rejected", "open") and chosen.id:
            watchlist.judge(dataset.root.name, concept.id, chosen.id, chosen.action)  # type: ignore[arg-type]

    chosen = cards(
        [
            Group(
                [
                    _match(dataset, row, judged, view)
                    for row in rows.head(MATCHES).to_dict("records")
                ]
            )
        ],
        label=f"Readings that match {concept.name}",
        key="matches",
        base="compare",
        on_choice=act,
    )
    comparing.leave(chosen)


def _match(
    dataset: Dataset, row: Mapping[Any, Any], judged: Mapping[str, str], view: AuditView
) -> Card:
    readings = dataset.readings(row["transcript_id"])
    here = readings[
        (readings["position"] == row["position"]) & (readings["sample"] == row["sample"])
    ].iloc[0]
    reading_id = str(here["reading_id"])
    verdict = judged.get(reading_id)
    actions = [("confirmed", "Right"), ("rejected", "Wrong")]
    return Card(
        id=reading_id,
        query=CompareView(dataset=view.dataset, transcript=row["transcript_id"])
        .at(int(row["position"]), int(row["sample"]))
        .query,
        text=str(here["explanation"]),
        fve=float(row["fve"]),
        facts=f"FVE {signed(float(row['fve']))} · match {row['score']:.2f} · {row['category']}"
        + (f" · {verdict} by you" if verdict else ""),
        actions=[("open", "Take the verdict back")] if verdict else actions,
    )


# ---- foresight, and what is never spoken ---------------------------------------------------------


@st.cache_data(show_spinner=False, max_entries=8)
def _foresight(
    _dataset: Dataset, version: str, category: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    found = foresight(lines_of(_dataset, category))
    frame = pd.DataFrame(
        [
            {
                "transcript_id": f.transcript_id,
                "word": f.word,
                "readings": f.n,
                "named": f.hits,
                "earliest": f.earliest,
                "control": f.control,
            }
            for f in found
        ]
    )
    return frame, foresight_summary(found)


def foreseen(dataset: Dataset, view: AuditView) -> None:
    """How early the last word of an answer is named by the explanations before it."""
    names = dataset.categories()["category"].tolist()
    category = view.category or (PLANNED if PLANNED in names else next(iter(names), ""))
    frame, summary = _foresight(dataset, dataset.version, category)
    draw("<h2 class='nla-h2'>Foresight</h2>")
    if frame.empty:
        hint(f"No transcript of “{category}” ends in a word that was not said before its answer.")
        return
    hint(
        f"In {category}: the last word of the answer is named by {summary['readings_share']:.1%} "
        f"of the explanations before it (95 % interval {summary['low']:.1%} to "
        f"{summary['high']:.1%}); {summary['control_share']:.1%} of those of other transcripts "
        "name it, too. "
        f"{summary['transcripts_foreseen']} of {summary['n_transcripts']} transcripts foresee it."
    )
    titles = dataset.transcripts(category=category).set_index("transcript_id")["title"]
    st.dataframe(
        frame.assign(title=frame["transcript_id"].map(titles)),
        key="foresight_table",
        hide_index=True,
        column_order=["title", "word", "readings", "named", "earliest", "control"],
        column_config={
            "title": st.column_config.TextColumn("Transcript", width="large"),
            "word": "Last word (stem)",
            "readings": "Explanations before it",
            "named": "that name it",
            "earliest": "Tokens ahead, at most",
            "control": _percent("Others that name it"),
        },
    )


def leaderboard(dataset: Dataset, claims: Claims, view: AuditView) -> None:
    """The claims that return most over the corpus and are never spoken, or only later."""
    draw("<h2 class='nla-h2'>What returns and is not said</h2>")
    st.session_state["audit_standing"] = view.standing
    st.segmented_control(
        "Standing",
        ["unspoken", "foreseen"],
        key="audit_standing",
        required=True,
        format_func=str.capitalize,
        on_change=lambda: go(lambda v: replace(v, standing=st.session_state["audit_standing"])),
    )

    def rows(limit: int | None) -> pd.DataFrame:
        return claims.leaderboard(
            standing=view.standing,
            category=view.category,
            trusted_only=not view.flagged,
            habits=view.habits,
            limit=limit,
        )

    found = rows(LEADERS)
    if found.empty:
        draw('<p class="nla-empty">Nothing returns that passes the filters beside.</p>')
        return
    with st.popover("Download", icon=":material/download:", key="download_leaders"):
        downloads.buttons(
            dataset,
            f"{view.standing}-claims",
            lambda: rows(None),
            formats=("csv", "jsonl", "parquet"),
            key="leaders",
        )
    chosen = cards(
        [Group([_leader(row, view) for row in found.to_dict("records")])],
        label="Claims that return",
        key="leaders",
        base="compare",
        layout="grid",
    )
    comparing.leave(chosen)


def _leader(row: Mapping[Any, Any], view: AuditView) -> Card:
    n = int(row["n_transcripts"])
    return Card(
        id=str(row["key"]),
        query=CompareView(dataset=view.dataset, transcript=str(row["transcript_id"]))
        .at(int(row["position"]), int(row["sample"]))
        .query,
        title=str(row["text"]),
        facts=f"returns in {int(row['n_recurring'])} readings of {n} transcript"
        f"{'' if n == 1 else 's'} · {row['kind']}",
    )
