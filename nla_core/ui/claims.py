"""An explanation with its claims lit by standing; evidence and claim light each other.

Recurrence stands beside every claim, because unspoken *and* recurring is what deserves attention,
and unspoken once is most likely an invention.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pandas as pd
import streamlit as st

from nla_core.analysis.claims import Kind
from nla_core.analysis.standing import STANDING_TEXT, Standing
from nla_core.analysis.transcript import RECURRING
from nla_core.schema import Finish
from nla_core.ui.html import draw, fill, join
from nla_core.ui.transcript_view import ReadingFacts, TranscriptView

_HERE = Path(__file__).parent
_component = st.components.v2.component(
    "nla_claims",
    html="""
<div class="claims">
  <p class="explanation"></p>
  <ul class="list" aria-label="Claims of this explanation"></ul>
</div>
""",
    css=(_HERE / "claims.css").read_text(encoding="utf-8"),
    js=(_HERE / "claims.js").read_text(encoding="utf-8"),
)

KIND_NAME: Final = {Kind.WHAT: "what the text is", Kind.NOW: "what is being done"}
"""Kinds of claims whose own name says too little."""

LONGEST_EVIDENCE: Final = 80
MARKS: Final = '"“”'
"""The list puts every claim between quotation marks; a quotation would stand in two pairs."""
SUPPORTED: Final = (Standing.SAID, Standing.FORESEEN)


def css_name(standing: str) -> str:
    return standing.replace(" ", "-")


def claims(
    transcript: TranscriptView, reading: ReadingFacts, rows: pd.DataFrame, *, key: str = "claims"
) -> None:
    """Draw one explanation; ``rows`` are its claims as `store.claims` has them."""
    _component(
        key=key,
        data={
            "text": reading.explanation,
            "cut": reading.finish == Finish.CUT,
            "words": {css_name(s): s.value for s in Standing},
            "claims": [_claim(transcript, row) for row in rows.to_dict("records")],
        },
    )


def legend() -> None:
    """Every standing in words."""
    draw(
        '<dl class="nla-standings">{rows}</dl>',
        rows=join(
            [
                fill(
                    '<div><dt class="{css}">{name}</dt><dd>{words}</dd></div>',
                    css=css_name(standing),
                    name=standing.value,
                    words=words,
                )
                for standing, words in STANDING_TEXT.items()
            ]
        ),
    )


def recurs(standing: str, recurrence: int, neighbours: int) -> str:
    """How many neighbouring readings make the same claim, and what follows for an unspoken one."""
    said = f"also in {recurrence} of {neighbours} neighbouring readings"
    if standing != Standing.UNSPOKEN:
        return said if recurrence else ""
    if recurrence >= RECURRING:
        return f"{said}: worth attention"
    return f"{said}" if recurrence else "made once: most likely invented"


def _claim(transcript: TranscriptView, row: dict[Any, Any]) -> dict[str, Any]:
    evidence, first, last = None, None, None
    if not pd.isna(row["evidence_start"]):
        start, end = int(row["evidence_start"]), int(row["evidence_end"])
        first, last = int(row["evidence_first"]), int(row["evidence_last"])
        text = " ".join(transcript.visible[start:end].split())
        evidence = text if len(text) <= LONGEST_EVIDENCE else text[: LONGEST_EVIDENCE - 1] + "…"
    return {
        "kind": KIND_NAME.get(row["kind"], str(row["kind"])),
        "standing": css_name(str(row["standing"])),
        "text": str(row["text"]).strip(MARKS) or str(row["text"]),
        "start": int(row["start"]),
        "end": int(row["end"]),
        "recurs": recurs(str(row["standing"]), int(row["recurrence"]), int(row["neighbours"])),
        "rests": "rests on" if row["standing"] in SUPPORTED else "the nearest there is:",
        "evidence": evidence,
        "where": None
        if first is None
        else f"token {first}" + (f" to {last}" if last != first else ""),
        "first": first,
        "last": last,
    }
