"""One explanation as text: its paragraphs, and its quotations looked up in the transcript.

Knows how quotations are marked and what each mark means in words. Does not know how an explanation
is scored. The decision a reader would question: a quotation that stands only further on is marked
apart from one that stands nowhere; the one may be foresight, the other is invented.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from nla_core.compare.grammar import quote_spans, stands_in
from nla_core.schema import Finish
from nla_core.ui.html import Piece, draw, fill, join
from nla_core.ui.transcript_view import ReadingFacts, TranscriptView

Standing = Literal["found", "later", "missing"]

TOLD: Final[dict[Standing, str]] = {
    "found": "stands in the transcript up to this token",
    "later": "stands only further on in the transcript",
    "missing": "stands nowhere in the transcript",
}
_PARAGRAPH: Final = re.compile(r"[^\n]+")


def explanation(view: TranscriptView, reading: ReadingFacts, *, paragraph: int | None) -> None:
    """Draw the text. ``paragraph``, from 0, is the one that a link points at."""
    said = reading.explanation
    marks = quote_marks(view, reading)
    found = list(_PARAGRAPH.finditer(said))
    pieces = [
        fill(
            '<p class="{kind}" id="paragraph-{number}">{text}{cut}</p>',
            kind="pointed" if number == paragraph else "",
            number=number,
            text=_marked(said, match.start(), match.end(), marks),
            cut=" […]" if reading.finish == Finish.CUT and match is found[-1] else "",
        )
        for number, match in enumerate(found)
    ]
    draw(
        '<div><p class="nla-label">What the model represents here</p>'
        '<div class="nla-said">{paragraphs}</div>{legend}</div>',
        paragraphs=join(pieces) if pieces else "(the verbalizer wrote nothing)",
        legend=_legend(marks),
    )


def quote_marks(view: TranscriptView, reading: ReadingFacts) -> list[tuple[int, int, Standing]]:
    """(start, end, standing) of each quotation in the explanation."""
    before, after = view.text_until(reading.position), view.text_after(reading.position)
    marks: list[tuple[int, int, Standing]] = []
    for start, end, quoted in quote_spans(reading.explanation):
        if stands_in(quoted, before):
            marks.append((start, end, "found"))
        elif stands_in(quoted, before + after):  # also one that begins before and ends after
            marks.append((start, end, "later"))
        else:
            marks.append((start, end, "missing"))
    return marks


def _marked(text: str, start: int, end: int, marks: list[tuple[int, int, Standing]]) -> Piece:
    pieces, at = [], start
    for low, high, standing in marks:
        low, high = max(low, start), min(high, end)
        if low >= high:
            continue
        pieces.append(fill("{text}", text=text[at:low]))
        pieces.append(
            fill(
                '<mark class="nla-quote {standing}" title="This quotation {told}">{text}</mark>',
                standing=standing,
                told=TOLD[standing],
                text=text[low:high],
            )
        )
        at = high
    return join([*pieces, fill("{text}", text=text[at:end])])


def _legend(marks: list[tuple[int, int, Standing]]) -> Piece:
    counts = {kind: sum(mark[2] == kind for mark in marks) for kind in TOLD}
    items = [
        fill(
            '<li><mark class="nla-quote {kind}">{count} {noun}</mark> {told}</li>',
            kind=kind,
            count=count,
            noun="quotation" if count == 1 else "quotations",
            told=TOLD[kind] if count == 1 else TOLD[kind].replace("stands", "stand"),
        )
        for kind, count in counts.items()
        if count
    ]
    return fill('<ul class="nla-quotes">{items}</ul>', items=join(items)) if items else Piece("")
