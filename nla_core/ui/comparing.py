"""The pieces of the Compare page: the transcript, one reading's claims, what stands out.

Knows how standings, recurrence and divergence are laid out. Does not know how they are judged. The
decision a reader would question: readings of low fidelity are left out of every ranking unless they
are asked for; the claims of a text that does not bring its vector back are about nothing.
"""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
import streamlit as st

from nla_core.analysis.derived import Claims
from nla_core.analysis.standing import Standing
from nla_core.analysis.transcript import RECURRING
from nla_core.data.dataset import Dataset
from nla_core.links import CompareMeasure, CompareView
from nla_core.schema import Role
from nla_core.ui import beside, charts, controls, measures, panels, shell
from nla_core.ui.cards import Card, Group, cards
from nla_core.ui.copy_link import copy_link
from nla_core.ui.html import draw, hint
from nla_core.ui.later import chart, signed
from nla_core.ui.token_strip import Drawing, token_strip
from nla_core.ui.transcript_view import ReadingFacts, TranscriptView

MOST_LISTED: Final = 500
MOST_STRIKING: Final = 8
FLOORS: Final = (0.0, 0.2, 0.4, 0.6)
COLOURS: Final[dict[CompareMeasure, str]] = {
    "fve": "Fidelity",
    "so_far": "Like what was said",
    "to_come": "Like what comes",
    "unspoken": "Unspoken",
}


def sidebar(dataset: Dataset, view: CompareView, current: str | None) -> None:
    """Which transcript, and which readings are ranked. Drawn in the sidebar."""
    rows = dataset.transcripts(sort="category", limit=MOST_LISTED)
    names = dict(zip(rows["transcript_id"], rows["title"] + " · " + rows["category"], strict=True))
    if current is not None and current not in names:
        names[current] = current
    st.selectbox(
        "Transcript",
        list(names),
        format_func=lambda key: names.get(key, str(key)),
        **controls.bound(
            "compare_transcript",
            current,
            lambda chosen: controls.go(CompareView, lambda v: v.opened(chosen)),
        ),
    )
    roles = [str(role) for role in Role]
    controls.pills("compare_role", view, "role", "Readings of", roles, str.capitalize)
    controls.pills("compare_floor", view, "floor", "Ranked from FVE", FLOORS, minus)
    controls.switch("compare_flagged", view, "flagged", "Rank flagged readings, too", FLAGGED_HELP)
    controls.switch(
        "compare_habits", view, "habits", "Rank what the verbalizer says everywhere", HABITS_HELP
    )


def minus(value: float) -> str:
    """A number with a real minus sign."""
    return f"{value:g}".replace("-", "−")


FLAGGED_HELP: Final = "Early positions, attention sinks and low fidelity are left out otherwise."
HABITS_HELP: Final = (
    "A claim made in more than a tenth of all transcripts says more about the verbalizer than "
    "about the model it reads."
)


def transcript_side(
    transcript: TranscriptView,
    drawing: Drawing,
    view: CompareView,
    position: int | None,
    rows: pd.DataFrame,
    along: pd.DataFrame,
) -> None:
    """The conversation, coloured, and the divergence track below it."""
    st.segmented_control(
        "Colour tokens by",
        list(COLOURS),
        required=True,
        format_func=lambda name: COLOURS[name],
        help="\n".join(f"- **{n}**: {measures.SCALES[k].help}" for k, n in COLOURS.items()),
        **controls.field("compare_measure", view, "measure"),
    )
    striking = recurring_unspoken(rows)
    hits = [p for p, n in striking.items() if n] if view.measure != "unspoken" else []
    token_strip(
        drawing,
        colour=measures.colouring(
            transcript,
            view.measure,
            _values(transcript, view.measure, striking, along),
            hits=hits,
            hit_words="with an unspoken claim that recurs",
        ),
        locked=position,
        span=None,
        markup=False,
        reveal=view.position is not None,
        on_lock=lambda chosen: controls.go(CompareView, lambda v: v.at(chosen)),
        on_span=lambda _: None,
        key="compare_strip",
    )
    first = along[along["sample"] == 0]
    if len(first) > 1:
        names = {
            "like what was said": "so_far",
            "like what comes": "to_come",
            "like another transcript": "unrelated",
        }
        draw(
            '<p class="nla-label">How near each explanation is to the text on either side '
            '<span class="quiet">cosine of sentence embeddings</span></p>'
        )
        chart(
            charts.divergence(
                {
                    name: {
                        int(p): float(v)
                        for p, v in zip(first["position"], first[column], strict=True)
                        if not pd.isna(v)
                    }
                    for name, column in names.items()
                },
                locked=position,
            ),
            key="divergence",
            config=charts.CONFIG,
            alt="Likeness of each explanation to the text so far, to the text to come, and to "
            "another transcript",
        )


def recurring_unspoken(rows: pd.DataFrame) -> dict[int, int]:
    """How many claims of the first sample at each position are unspoken and recur."""
    first = rows[rows["sample"] == 0]
    counted = (first["standing"] == Standing.UNSPOKEN) & (first["recurrence"] >= RECURRING)
    return counted.groupby(first["position"]).sum().astype(int).to_dict()


def _values(
    transcript: TranscriptView,
    measure: CompareMeasure,
    striking: dict[int, int],
    along: pd.DataFrame,
) -> dict[int, float]:
    if measure == "fve":
        return dict(zip(*transcript.fidelity_line(), strict=True))
    if measure == "unspoken":
        return {position: float(count) for position, count in striking.items()}
    first = along[(along["sample"] == 0) & along[measure].notna()]
    return dict(zip(first["position"], first[measure].astype(float), strict=True))


def prediction(row: pd.Series | None, came: str | None) -> None:
    """The words an explanation expects next, held against what the model really expected."""
    if row is None or row["n_expected"] == 0:
        return
    parts = [
        f"names {row['n_expected']} next words, {row['n_expected_top']} of them among the model’s "
        "five likeliest"
    ]
    if not pd.isna(row["expected_mass"]):
        parts.append(f"which give them {row['expected_mass']:.0%} together")
    if came is not None and not pd.isna(row["expected_came"]):
        named = "as named" if row["expected_came"] else "which was not named"
        parts.append(f"“{charts.visible(came)}” came, {named}")
    hint("Prediction: " + "; ".join(parts) + ".")


def striking(claims: Claims, transcript: TranscriptView, view: CompareView) -> None:
    """What this transcript's readings keep claiming that was never said, or only later."""
    for standing, words in (
        ("unspoken", "Never spoken, and claimed again and again"),
        ("foreseen", "Foreseen: claimed before it was said"),
    ):
        rows = claims.striking(
            transcript.transcript_id,
            standing=standing,
            flagged=view.flagged,
            habits=view.habits,
            fidelity_floor=view.floor,
            limit=MOST_LISTED,
        )
        if view.role:
            roles = {t.position: t.role for t in transcript.tokens}
            rows = rows[[roles.get(p) == view.role for p in rows["position"]]]
        with st.container(key=f"striking_{standing}", gap="small"):
            draw('<p class="nla-label">{words}</p>', words=words)
            if rows.empty:
                draw('<p class="nla-empty">Nothing that passes the filters beside.</p>')
                continue
            cards(
                [Group([_striking(r, view) for r in rows.head(MOST_STRIKING).to_dict("records")])],
                label=words,
                key=f"striking_{standing}_cards",
                layout="grid",
                on_choice=controls.follow(CompareView),
            )


def _striking(row: dict[Any, Any], view: CompareView) -> Card:
    n = int(row["n_readings"])
    facts = [
        f"in {n} reading{'' if n == 1 else 's'}, with {int(row['recurrence'])} of "
        f"{int(row['neighbours'])} neighbours at token {int(row['position'])}",
        f"FVE {signed(float(row['fve']))}",
    ]
    if row["share"] > 0:
        facts.append(f"in {row['share']:.0%} of all transcripts")
    return Card(
        id=f"{row['reading_id']}/{row['start']}",
        query=view.at(int(row["position"]), int(row["sample"])).query,
        title=str(row["text"]),
        facts=" · ".join(facts),
    )


def pin(dataset: Dataset, view: CompareView, reading: ReadingFacts) -> None:
    """Set one reading aside and hold the next ones beside it."""
    pinned = None if view.pinned is None else dataset.reading(view.pinned)
    if pinned is not None and view.pinned != reading.reading_id:
        here = dataset.reading(reading.reading_id)
        if here is not None:
            beside.beside(pinned, here)
            beside.of_vectors(dataset, pinned, here)
    elif view.pinned is not None and pinned is None:
        hint(f"The pinned reading {view.pinned} is not in this dataset.")
    with st.container(horizontal=True, gap="small", key="pin_row"):
        if view.pinned != reading.reading_id:
            st.button(
                "Pin this reading",
                key="pin",
                icon=":material/push_pin:",
                help="Then go to another token, sample or transcript: both stand side by side.",
                on_click=lambda: controls.change(CompareView, pinned=reading.reading_id),
            )
        if view.pinned is not None:
            st.button(
                "Unpin",
                key="unpin",
                type="tertiary",
                on_click=lambda: controls.change(CompareView, pinned=None),
            )
        copy_link(view.query)


def not_computed(fix: str) -> None:
    draw(
        '<div class="nla-notice" role="status"><p><b>The claims of this dataset have not been '
        "held against its text yet.</b></p><p>{fix}.</p></div>",
        fix=fix,
    )


def title(transcript: TranscriptView, view: CompareView) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", key="title_row"):
        panels.heading(transcript)
        st.page_link(
            shell.page("explore"),
            label="In Explore",
            icon=":material/open_in_new:",
            query_params=view.explore.params(),
        )
