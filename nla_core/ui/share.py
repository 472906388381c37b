"""Sharing one reading: links to it with a note, a frame for other pages, and citations.

Knows what a link can point at and how a note of a link is shown. Does not know how a citation is
worded. The decision a reader would question: a note is shown as coming from whoever made the link,
set apart and never as the site's own voice, since anybody can make a link.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import streamlit as st

from nla_core import exports as citation
from nla_core.exports import Provenance
from nla_core.links import LONGEST_NOTE, ViewState
from nla_core.ui.html import draw
from nla_core.ui.token_strip import FLAG_NAME
from nla_core.ui.transcript_view import ReadingFacts, TranscriptView

_HERE = Path(__file__).parent
_component = st.components.v2.component(
    "nla_share",
    html="""
<div class="share">
  <label>Link to <select></select></label>
  <label>Note for whoever opens it <textarea rows="2" placeholder="optional"></textarea></label>
  <div class="row"><input class="link" type="text" readonly aria-label="Link">
    <button type="button" class="copy-link">Copy link</button></div>
  <div class="row"><input class="frame" type="text" readonly aria-label="Frame for another page">
    <button type="button" class="copy-frame">Copy frame</button></div>
  <div class="row formats"><span>Copy as</span>
    <button type="button" data-format="markdown">Markdown</button>
    <button type="button" data-format="json">JSON</button>
    <button type="button" data-format="bibtex">BibTeX</button></div>
  <textarea class="other" rows="5" readonly aria-label="Text to copy" hidden></textarea>
  <div class="status" role="status"></div>
</div>
""",
    css=(_HERE / "share.css").read_text(encoding="utf-8"),
    js=(_HERE / "share.js").read_text(encoding="utf-8"),
)


def share(
    view: ViewState, transcript: TranscriptView, reading: ReadingFacts, source: Provenance
) -> None:
    """The contents of the popover. ``view`` is what the page shows, its token included."""
    bare = ViewState(dataset=view.dataset, markup=view.markup).opened(transcript.transcript_id)
    here = bare.at(reading.position, reading.sample)
    short = ViewState(dataset=view.dataset, reading=reading.reading_id)
    targets = [("this token", here)]
    paragraphs = sum(bool(line) for line in reading.explanation.split("\n"))
    if paragraphs > 1:
        targets += [
            (f"paragraph {n + 1} of the explanation", replace(here, paragraph=n))
            for n in range(paragraphs)
        ]
    if view.range is not None:
        first, last = view.range
        targets.append((f"tokens {first} to {last}, marked", replace(bare, range=view.range)))
    targets += [
        ("this token, as I see it", view),
        ("the whole transcript", bare),
        ("this reading, in short", short),
    ]
    cited = citation.Reading(
        reading_id=reading.reading_id,
        transcript_id=transcript.transcript_id,
        title=transcript.title,
        position=reading.position,
        token=transcript.chip_of(reading.position).text,
        sample=reading.sample,
        explanation=reading.explanation,
        fve=round(reading.fve, 4),
        flags=[FLAG_NAME.get(flag, flag) for flag in reading.flags],  # type: ignore[call-overload]
    )
    _component(
        key="share",
        data={
            "targets": [{"label": label, "query": target.query} for label, target in targets],
            "longest": LONGEST_NOTE,
            "placeholder": citation.LINK,
            "formats": {
                "markdown": citation.markdown(cited, source),
                "json": citation.as_json(cited, source),
                "bibtex": citation.bibtex(cited, source, date.today().year),
            },
        },
    )


def note(text: str) -> None:
    """A note that came with the link, shown as what it is."""
    if text:
        draw(
            '<aside class="nla-note" aria-label="A note from whoever made this link">'
            "<p class='from'>A note from whoever made this link, not from this site</p>"
            "<p>{text}</p></aside>",
            text=text,
        )
