"""The left half of Explore: the strip, what colours it, the line below it, what keeps returning.

Knows how the view becomes what the strip and the line show, and that both can mark a range. Does
not know the URL; what a person does is reported. The decision a reader would question: the line
stands below the strip and shows the measure that colours it, so that there is one scale on the page
at a time; what a long transcript looks like as a whole is the strip's own map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import streamlit as st

from nla_core.analysis import themes
from nla_core.data.dataset import Dataset
from nla_core.errors import NLAError
from nla_core.links import Measure, ViewState
from nla_core.ui import charts, controls, meaning, measures, notices, shell
from nla_core.ui.html import draw, hint
from nla_core.ui.later import chart
from nla_core.ui.token_strip import Drawing, token_strip
from nla_core.ui.transcript_view import TranscriptView

Go = Callable[[Callable[[ViewState], ViewState]], None]

_LABEL: Final[dict[Measure, str]] = {
    "fve": "Fidelity",
    "surprisal": "Surprisal",
    "norm": "Length ‖h‖",
    "phrase": "A phrase",
}


def colours(view: ViewState, go: Go) -> None:
    """What colours the tokens, and the phrase that they are compared with."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="measure_row"):
        st.segmented_control(
            "Colour tokens by",
            list(_LABEL),
            required=True,
            format_func=lambda name: _LABEL[name],
            help="\n".join(
                f"- **{label}**: {measures.SCALES[k].help}" for k, label in _LABEL.items()
            ),
            **controls.bound("measure", view.measure, lambda chosen: _measured(chosen, go)),
        )
        st.text_input(
            "Phrase to look for in this transcript",
            type="search",
            live="500ms",
            placeholder="a word or an idea, e.g. being tested",
            max_chars=200,
            help="Colours each token by how alike its explanation is in meaning, and marks where "
            "the words themselves stand. **n** and **p** go to the next and the previous.",
            **controls.typed("phrase", view.phrase, lambda text: go(lambda v: _like(v, text))),
        )
    if st.session_state.get("phrase_missing") and not view.phrase:
        hint("Type a phrase into the field: tokens are then coloured by how alike they are to it.")


def _measured(chosen: Measure, go: Go) -> None:
    """A phrase has to be there before anything can be like it; without one, it is asked for."""
    st.session_state["phrase_missing"] = chosen == "phrase"
    go(lambda v: replace(v, measure=chosen))


def _like(view: ViewState, phrase: str | None) -> ViewState:
    """Coloured by likeness to a phrase, or by fidelity where there is none."""
    return replace(view, phrase=phrase or "", measure="phrase" if phrase else "fve")


def strip_and_line(
    dataset: Dataset,
    transcript: TranscriptView,
    drawing: Drawing,
    view: ViewState,
    position: int | None,
    go: Go,
) -> None:
    """The transcript by the measure of the view, and the line along it."""
    likeness: dict[int, float] = {}
    if view.measure == "phrase":
        try:
            likeness = meaning.likeness(dataset, transcript.transcript_id, view.phrase)
        except NLAError as error:  # the words are still found
            notices.problem(error)
            view = replace(view, measure="fve")
    values = measures.along(transcript, view.measure, likeness)
    hits = transcript.readings_hold(view.phrase) if view.phrase else ()
    span = transcript.span(view.range)

    def mark(chosen: tuple[int, int] | None) -> None:
        go(lambda v: replace(v, range=chosen, note="").normal())

    token_strip(
        drawing,
        colour=measures.colouring(transcript, view.measure, values, phrase=view.phrase, hits=hits),
        locked=position,
        span=span,
        markup=view.markup,
        reveal=view.position is not None or span is not None,
        on_lock=lambda chosen: go(lambda v: v.at(chosen)),
        on_span=mark,
    )
    if len(values) < 2:
        return
    scale = measures.SCALES[view.measure]
    in_text = transcript.text_holds(view.phrase) if view.phrase else ()
    key = f"line_{view.range}"  # a selection of an older figure is not one of this
    with st.container(key="along", gap=None):
        draw(
            '<p class="nla-label">{name} along the transcript{words}'
            '<span class="quiet">drag to mark a range</span></p>',
            name=scale.name,
            words=" · ▲ explanation, ○ text with these words" if hits or in_text else "",
        )
        chart(
            charts.line_along(
                values,
                low=scale.low if view.measure != "fve" else -0.1,
                high=scale.high,
                name=scale.name,
                locked=position,
                span=span,
                in_readings=hits,
                in_text=in_text,
            ),
            key=key,
            config=charts.CONFIG,
            alt=f"{scale.name} along the transcript",
            selection_mode="box",
            on_select=lambda: _brushed(key, mark),
        )


def _brushed(key: str, mark: Callable[[tuple[int, int] | None], None]) -> None:
    boxes = st.session_state[key]["selection"]["box"]
    if boxes:
        first, last = sorted(boxes[0]["x"][:2])
        mark((max(round(first), 0), max(round(last), 0)))


def recurring(dataset: Dataset, transcript: TranscriptView, view: ViewState, go: Go) -> None:
    """What returns in the explanations of the marked range, or of the whole transcript."""
    span = transcript.span(view.range)
    n, found = _recurring(dataset, dataset.version, transcript, transcript.transcript_id, span)
    with st.container(key="themes", gap="small"):
        where = "the whole transcript" if span is None else f"tokens {span[0]} to {span[1]}"
        draw(
            '<p class="nla-label">What keeps returning in {where} '
            '<span class="quiet">in {n} explanations; a claim that returns is truer than one '
            "made once</span></p>",
            where=where,
            n=n,
        )
        if found:
            chosen = view.phrase if view.phrase in {theme.term for theme in found} else None
            counts = {theme.term: theme.count for theme in found}
            st.pills(
                "Recurring themes",
                list(counts),
                label_visibility="collapsed",
                format_func=lambda term: shell.as_label(f"{term} ×{counts[term]}"),
                **controls.bound("theme", chosen, lambda term: go(lambda v: _like(v, term))),
            )
        else:
            draw(
                '<p class="nla-empty">Nothing returns here beyond what explanations everywhere '
                "say.</p>"
            )
        with st.container(horizontal=True, gap="small", key="ranges"):
            answer = [t.position for t in transcript.tokens if t.role == "assistant"]
            if answer and span != (answer[0], answer[-1]):
                st.button(
                    "Mark the answer",
                    key="mark_answer",
                    type="tertiary",
                    on_click=lambda: go(
                        lambda v: replace(v, range=(answer[0], answer[-1]), note="")
                    ),
                )
            if span is not None:
                st.button(
                    "Clear the range",
                    key="clear_range",
                    type="tertiary",
                    on_click=lambda: go(lambda v: replace(v, range=None, note="")),
                )


@st.cache_resource(show_spinner=False, max_entries=256)
def _recurring(
    _dataset: Dataset,
    version: str,
    _transcript: TranscriptView,
    transcript_id: str,
    span: tuple[int, int] | None,
) -> tuple[int, tuple[themes.Theme, ...]]:
    """How many explanations the range has, and what returns in them."""
    stretch = [
        (position, found[0].explanation)
        for position, found in sorted(_transcript.readings.items())
        if span is None or span[0] <= position <= span[1]
    ]
    return len(stretch), themes.themes(stretch, meaning.background(_dataset))
