"""The same token read by other pairs, and readings elsewhere that say much the same.

Knows what is worth a look beside one reading. Does not know how readings are found. The decision a
reader would question: both are asked for by opening a box; most people step through tokens, and
each step should cost what the step needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import streamlit as st

from nla_core.analysis.claims import split
from nla_core.data.dataset import Dataset
from nla_core.links import SearchView, ViewState
from nla_core.ui import controls, meaning, shell
from nla_core.ui.cards import Card, Group, cards
from nla_core.ui.html import draw
from nla_core.ui.later import signed
from nla_core.ui.transcript_view import ReadingFacts, TranscriptView

MOST: Final = 6


def alike(
    dataset: Dataset, view: ViewState, transcript: TranscriptView, reading: ReadingFacts
) -> None:
    """The nearest readings of other transcripts, each a link."""
    box = st.expander("Readings elsewhere that say much the same", key="alike", on_change="rerun")
    if not box.open:
        return
    found = meaning.alike(dataset, reading.reading_id, MOST + 1)
    hits = [hit for hit in found.hits if hit.transcript_id != transcript.transcript_id][:MOST]
    with box:
        if not hits:
            draw('<p class="nla-empty">No other transcript has a reading like this one.</p>')
            return
        cards(
            [
                Group(
                    [
                        Card(
                            id=f"{hit.transcript_id}/{hit.position}",
                            query=replace(view, phrase="", measure="fve")
                            .opened(hit.transcript_id)
                            .at(hit.position, hit.sample or 0)
                            .query,
                            facts=f"{hit.title} · FVE {signed(hit.fve or 0.0)}",
                            text=hit.text,
                            quiet=split(hit.text).quiet_from,
                        )
                        for hit in hits
                    ]
                )
            ],
            label="Readings alike",
            key="alike_cards",
            on_choice=controls.follow(ViewState),
        )
        st.page_link(
            shell.page("search"),
            label="All of them, in Search",
            icon=":material/search:",
            query_params=SearchView(dataset=view.dataset, like=reading.reading_id).params(),
        )


def other_pairs(mounted: Mapping[str, Dataset], transcript: TranscriptView, position: int) -> None:
    """What other datasets that are open say of the same token of the same transcript."""
    found = [
        _other(name, dataset.manifest.pair, transcript, row)
        for name, dataset in mounted.items()
        for row in dataset.readings(transcript.transcript_id).to_dict("records")
        if row["position"] == position
    ]
    if not found:
        return
    noun = "reading" if len(found) == 1 else "readings"
    with st.expander(f"The same token in {len(found)} {noun} of other pairs", key="other_pairs"):
        cards(
            [Group(found)],
            label="The same token by other pairs",
            key="other_pairs_cards",
            on_choice=controls.follow(ViewState),
        )


def _other(
    name: str, pair: Mapping[str, Any], transcript: TranscriptView, row: Mapping[Any, Any]
) -> Card:
    view = ViewState(dataset=name, transcript=transcript.transcript_id).at(
        int(row["position"]), int(row["sample"])
    )
    return Card(
        id=str(row["reading_id"]),
        query=view.query,
        facts=f"{pair.get('pair_id', name)}, layer {pair.get('layer', '?')} · "
        f"FVE {signed(float(row['fve']))}",
        text=str(row["explanation"]),
        quiet=split(str(row["explanation"])).quiet_from,
    )
