"""The pieces of the Audit page: concepts over a corpus, foresight, unspoken claims.

A share never stands alone: what chance alone would give stands beside it, because with eight looks
a transcript even noise finds something. A concept that the pair was measured to miss has no share.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st

from nla_core.analysis.audit import ANY_OF, audit_table
from nla_core.analysis.concepts import Concept
from nla_core.analysis.derived import Claims, StoredScores
from nla_core.analysis.foresight import foresight, foresight_summary, lines_of
from nla_core.data.dataset import Dataset
from nla_core.links import AuditView, CompareView
from nla_core.paths import PROJECT
from nla_core.ui import charts, comparing, controls, downloads
from nla_core.ui.about import report_of
from nla_core.ui.cards import Card, Group, cards
from nla_core.ui.claims import KIND_NAME
from nla_core.ui.html import draw, hint

LEADERS: Final = 24
COUNTS: Final = ("both", "explanations_only", "neither")
SHARES: Final = ("explanations_share", "low", "high", "floor", "elsewhere", "text_share")
USABLE_AREA: Final = 0.75
"""Area under the curve from which on a pair's readings tell a concept apart; .5 is guessing."""
UNUSABLE: Final = "not usable with this pair"
PLANNED: Final = "rhyme and planning"


def sidebar(dataset: Dataset, view: AuditView) -> None:
    """Which readings count."""
    controls.pills(
        "audit_floor", view, "floor", "FVE at least", comparing.FLOORS, lambda v: f"{v:g}"
    )
    controls.switch(
        "audit_flagged", view, "flagged", "Count flagged readings, too", comparing.FLAGGED_HELP
    )
    controls.switch(
        "audit_habits",
        view,
        "habits",
        "Rank what the verbalizer says everywhere",
        comparing.HABITS_HELP,
    )
    names = dataset.categories()["category"].tolist()
    controls.pills("audit_category", view, "category", "Category", names, str)


# ---- concepts ------------------------------------------------------------------------------------


def table_of(scores: StoredScores, view: AuditView) -> pd.DataFrame:
    """`audit_table` of the readings that the view counts."""
    return audit_table(
        scores.columns(view.floor, flagged=view.flagged),
        [concept.id for concept in scores.concepts],
        np.array([concept.threshold for concept in scores.concepts], np.float32),
    )


def unusable(pair: Mapping[str, Any]) -> frozenset[str]:
    """The concepts that this pair's readings were measured not to tell apart: those of the table
    ``concept_auc`` of its report with a small area. Empty for a pair without such a table."""
    table = (report_of(str(pair.get("pair_id", ""))) or {}).get("concept_auc")
    if not isinstance(table, Mapping):
        return frozenset()
    areas = {name: area for name, area in table.items() if isinstance(area, int | float)}
    return frozenset(name for name, area in areas.items() if area < USABLE_AREA)


def concepts(dataset: Dataset, scores: StoredScores, table: pd.DataFrame, view: AuditView) -> None:
    """Every concept in one picture and one table; choosing a row shows its matches."""
    rows = table[table["category"] == (view.category or "all")].reset_index(drop=True)
    names = {concept.id: concept.name for concept in scores.concepts}
    missed = unusable(dataset.manifest.pair)
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
                    None if r["concept"] in missed else r["explanations_share"] or 0.0,
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
        "Relative, not calibrated. A share says something only where it clears what is expected by "
        "chance" + (", and the share in the other categories." if view.category else ".")
    )
    if missed & set(rows["concept"]):
        hint(
            f"Concepts that are {UNUSABLE} were measured on labelled texts: its readings tell them "
            "apart hardly better than guessing, so their shares are left out."
        )
    counted = ~rows["concept"].isin(missed)
    rows = rows.assign(
        **{
            name: rows[name].where(counted)
            for name in ("explanations_share", "low", "high", "floor", "elsewhere", *COUNTS)
        }
    )
    shown = rows.assign(
        name=[
            names[concept] + ("" if known else " (not usable)")
            for concept, known in zip(rows["concept"], counted, strict=True)
        ],
        text_only=rows["text"] - rows["both"],
        **{name: rows[name].astype(float) * 100 for name in SHARES},
    )
    state = st.dataframe(
        shown,
        key=f"concept_table_{view.category}_{view.floor}_{view.flagged}",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        column_order=[
            "name", "explanations_share", "floor", "low", "high",
            *(["elsewhere"] if view.category else []), "text_share",
            "both", "explanations_only", "text_only", "neither",
        ],
        column_config={
            "name": "Concept",
            "explanations_share": _percent(
                "Explanations hold it", f"Transcripts with it in one of {ANY_OF} explanations"
            ),
            "low": _percent("from", "Lower end of the 95 % interval"),
            "high": _percent("to", "Upper end of the 95 % interval"),
            "floor": _percent("By chance", "The share that noise alone would give"),
            "elsewhere": _percent("Elsewhere", "The share in all other categories together"),
            "text_share": _percent("Text holds it", "Transcripts whose visible text holds it"),
            "both": _count("Both", "Transcripts in which explanations and text hold it"),
            "explanations_only": _count("Explanations only", "Transcripts whose text does not"),
            "text_only": _count("Text only", "Transcripts whose explanations do not"),
            "neither": _count("Neither", "Transcripts in which neither holds it"),
        },
        placeholder="–",
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
            downloads.buttons(
                dataset,
                "audit",
                lambda: table.assign(usable=~table["concept"].isin(missed)),
                formats=("csv", "jsonl", "parquet"),
            )


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


def _percent(label: str, words: str) -> Any:
    """Of values from 0 to 100: Streamlit's own percent gives 46% and 31.76% in one column."""
    return st.column_config.NumberColumn(label, format="%.1f%%", help=words)


def _count(label: str, words: str) -> Any:
    return st.column_config.NumberColumn(label, format="localized", help=words)


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
        frame.assign(title=frame["transcript_id"].map(titles), control=frame["control"] * 100),
        key="foresight_table",
        hide_index=True,
        column_order=["title", "word", "readings", "named", "earliest", "control"],
        column_config={
            "title": st.column_config.TextColumn("Transcript", width="large"),
            "word": st.column_config.TextColumn(
                "Last word", help="The last word of the answer, as its stem"
            ),
            "readings": _count("Readings before it", "Explanations of earlier tokens"),
            "named": _count("That name it", "Those that hold the word already"),
            "earliest": _count(
                "Tokens ahead", "How far before the word the first of them stands; empty if none"
            ),
            "control": _percent(
                "By chance", "Share of other transcripts’ explanations that hold the word, too"
            ),
        },
        placeholder="–",
    )


def leaderboard(dataset: Dataset, claims: Claims, view: AuditView) -> None:
    """The claims that return most over the corpus and are never spoken, or only later."""
    draw(
        '<h2 class="nla-h2">What returns and is not said</h2><p class="nla-hint">Claims of the '
        "explanations that stand nowhere in the text of their transcript (unspoken), or only "
        "further on in it (foreseen). What neighbouring readings repeat is less likely invented."
        "</p>"
    )

    def rows(limit: int | None) -> pd.DataFrame:
        return claims.leaderboard(
            standing=view.standing,
            category=view.category,
            trusted_only=not view.flagged,
            habits=view.habits,
            limit=limit,
        )

    with st.container(horizontal=True, vertical_alignment="bottom", key="leaders_row"):
        st.segmented_control(
            "Standing",
            ["unspoken", "foreseen"],
            required=True,
            format_func=str.capitalize,
            label_visibility="collapsed",
            **controls.field("audit_standing", view, "standing"),
        )
        found = rows(LEADERS)
        if not found.empty:
            with st.popover("Download", icon=":material/download:", key="download_leaders"):
                hint(f"Every such claim, not only the {len(found)} below.")
                downloads.buttons(
                    dataset,
                    f"{view.standing}-claims",
                    lambda: rows(None),
                    formats=("csv", "jsonl", "parquet"),
                    key="leaders",
                )
    if found.empty:
        draw('<p class="nla-empty">Nothing returns that passes the filters beside.</p>')
        return
    chosen = cards(
        [Group([_leader(row, view) for row in found.to_dict("records")])],
        label="Claims that return",
        key="leaders",
        base="compare",
        layout="grid",
    )
    controls.leave(CompareView, chosen, "compare")


def _leader(row: Mapping[Any, Any], view: AuditView) -> Card:
    return Card(
        id=str(row["key"]),
        query=CompareView(dataset=view.dataset, transcript=str(row["transcript_id"]))
        .at(int(row["position"]), int(row["sample"]))
        .query,
        title=str(row["text"]),
        facts=f"{KIND_NAME.get(row['kind'], row['kind'])} · {_of(row['n_readings'], 'reading')} of "
        f"{_of(row['n_transcripts'], 'transcript')}"
        + (f" · {int(row['n_recurring']):,} repeated nearby" if row["n_recurring"] else ""),
    )


def _of(count: float, noun: str) -> str:
    return f"{int(count):,} {noun}{'' if count == 1 else 's'}"
