"""One explanation as it is read: a note as a sentence with its details below, or paragraphs.

Quotations and running text are looked up in the transcript. A quotation that stands only further on
is marked apart from one that stands nowhere: the one may be foresight, the other is invented.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from nla_core.analysis.claims import Parts, as_word, next_items, quote_spans, split, stands_in
from nla_core.analysis.visible import words
from nla_core.schema import Finish
from nla_core.ui import charts
from nla_core.ui.html import Piece, draw, fill, join
from nla_core.ui.transcript_view import ReadingFacts, TokenFacts, TranscriptView

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
    parts = split(said)
    marks = quote_marks(view, reading)
    shown = [parts.note] if parts.note else [m.span() for m in _PARAGRAPH.finditer(said)]
    cut = " […]" if reading.finish == Finish.CUT else ""
    pieces = [
        fill(
            '<p class="{kind}" id="paragraph-{number}">{text}{cut}</p>',
            kind="pointed" if number == paragraph else "",
            number=number,
            text=_marked(said, start, end, marks),
            cut=cut if (start, end) == shown[-1] and not parts.quiet_from else "",
        )
        for number, (start, end) in enumerate(shown)
    ]
    draw(
        '<div><p class="nla-label">What the model represents here</p>'
        '<div class="nla-said {form}">{paragraphs}</div>{legend}{details}</div>',
        form=parts.form,
        paragraphs=Piece("\n".join(pieces)) if pieces else "(the verbalizer wrote nothing)",
        legend=_legend(
            [mark for mark in marks if not parts.quiet_from or mark[1] <= parts.quiet_from]
        ),
        details=_details(view, reading, parts, cut) if parts.quiet_from else "",
    )


def note_first(text: str) -> Piece:
    """An explanation in a small place: of a note the sentence, and the rest quietly below it."""
    quiet = split(text).quiet_from
    if quiet is None:
        return fill("{text}", text=text)
    return fill(
        '{note}<span class="nla-rest">{rest}</span>', note=text[:quiet].rstrip(), rest=text[quiet:]
    )


def _details(view: TranscriptView, reading: ReadingFacts, parts: Parts, cut: str) -> Piece:
    """What the verbalizer expects next, and the running text; other fields as they are."""
    said = reading.explanation
    pieces = [_expects(view.tokens, reading)]
    for field in parts.fields:
        if field.name == "text":
            pieces.append(
                fill(
                    '<p class="nla-running"><span class="nla-label">Running text</span> '
                    '<span title="Lit: words that stand in the transcript up to this token">'
                    "…{text}{cut}</span></p>",
                    text=_lit(
                        said[field.start : field.end],
                        words_that_stand(
                            said[field.start : field.end], view.text_until(reading.position)
                        ),
                    ),
                    cut=cut,
                )
            )
        elif field.name != "next":
            pieces.append(
                fill(
                    '<p class="nla-running"><span class="nla-label">{name}</span> {text}</p>',
                    name=field.name.capitalize(),
                    text=said[field.start : field.end],
                )
            )
    if cut and parts.running_text is None:
        pieces.append(fill('<p class="nla-running">{cut}</p>', cut=cut))
    return fill('<div class="nla-details">{pieces}</div>', pieces=join(pieces))


def _expects(tokens: tuple[TokenFacts, ...], reading: ReadingFacts) -> Piece:
    """The tokens named as next, beside what the target itself gave each of them."""
    said = reading.explanation
    named = next_items(said)
    if not named:
        return Piece("")
    token = tokens[reading.position]
    here = reading.position + 1
    came = as_word(tokens[here].text) if here < len(tokens) else None
    known: dict[str, float] = {}
    for text, given in zip(token.top_tokens, token.top_probs, strict=True):
        known[as_word(text)] = known.get(as_word(text), 0.0) + given
    chips = []
    for start, end, word in named:
        p = known.get(word)
        kind, told, share = "", "", ""
        if p is not None:
            share = charts.percent(p)
            told = f"The model itself gives this token {share}"
        elif known:
            kind, share = "unlikely", "not likely"
            told = f"Not among the model’s {len(token.top_tokens)} likeliest next tokens"
        chips.append(
            fill(
                '<li class="{kind}" title="{told}"><code>{word}</code><small>{share}{came}</small>'
                "</li>",
                kind=kind,
                told=told,
                word=charts.visible(said[start:end]).replace("·", " "),
                share=share,
                came=" ◂ came" if word == came else "",
            )
        )
    return fill(
        '<div class="nla-expects"><span class="nla-label">Expects next</span>'
        "<ul>{chips}</ul></div>",
        chips=join(chips),
    )


def words_that_stand(text: str, before: str) -> list[tuple[int, int]]:
    """Ranges of words of a text that stand in ``before``: runs of two or more in a row, and single
    words that are not merely *the* or *of*."""
    own = words(text)
    context = "\0" + "\0".join(word.text for word in words(before)) + "\0"
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(own):
        end = at
        run = "\0"
        while end < len(own) and run + own[end].text + "\0" in context:
            run += own[end].text + "\0"
            end += 1
        if end - at > 1 or (end > at and own[at].is_content):
            found.append((own[at].start, own[end - 1].end))
        at = max(end, at + 1)
    return found


def _lit(text: str, ranges: list[tuple[int, int]]) -> Piece:
    pieces, at = [], 0
    for start, end in ranges:
        pieces.append(fill("{text}<mark>{lit}</mark>", text=text[at:start], lit=text[start:end]))
        at = end
    return join([*pieces, fill("{text}", text=text[at:])])


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
