"""An explanation cut into claims, each with the characters it stands in.

The three forms of `grammar.py` give different claims: fields their quotation, topics and running
text; free prose its sentences and list items; a note its clauses, the first of which says what the
text is and the others what is being done now. Finer cuts of a note (who speaks, the mood) cannot be
told by rule. Ranges overlap on purpose: a sentence or clause is a claim and so are the quotations,
names and expected words inside of it, because a true sentence may hold an invented name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from nla_core.compare.grammar import (
    Parts,
    next_items,
    note_clauses,
    quote_spans,
    split,
)
from nla_core.compare.lexical import FUNCTION_WORDS, about_texts, words

LONGEST_SENTENCE = 320
"""Characters after which a text without any full stop is cut at a blank."""

MOST_CLAIMS = 200
"""An explanation of a released pair makes about twenty; a runaway one is not worth more."""


class Kind(StrEnum):
    """What a claim is. ``place`` says whose turn it is, ``text`` quotes the running text; ``what``
    and ``now`` are clauses of a note."""

    PLACE = "place"
    WHAT = "what"
    NOW = "now"
    SENTENCE = "sentence"
    QUOTE = "quote"
    TEXT = "text"
    NAME = "name"
    TOPIC = "topic"
    PREDICTION = "prediction"


STATEMENTS = frozenset({Kind.SENTENCE, Kind.WHAT, Kind.NOW})
"""Kinds that say something in a sentence, and are judged by all of its words."""


@dataclass(frozen=True, slots=True)
class Claim:
    """``text`` is what is claimed, without marks; ``explanation[start:end]`` is where, marks of a
    quotation included."""

    kind: Kind
    text: str
    start: int
    end: int


_LIST_MARK = re.compile(r"\s*(?:[-*•–]|\d{1,2}[.)]|#{1,6})\s+")
_SENTENCE_END = re.compile(r"[.!?…]+[\"”'’)\]*_]*(?=\s+[^\sa-z]|\s*$)|[。！？]+[」』]*")
_ABBREVIATED = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|No|vs|etc|e\.g|i\.e|cf)|\b[A-Z])\.$")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>|<\|[^<>\s]*\|?>?|</[A-Za-z]*$")
_CAPITALISED = r"(?!(?:I|I'm)\b)[^\W\d_a-z][\w’'-]*"
_NAME = re.compile(
    rf"(?:(?:Mr|Mrs|Ms|Dr|St)\.? )?{_CAPITALISED}"
    rf"(?:(?: (?:of|de|van|von|the|and) | ){_CAPITALISED})*"
)
_EXPECTS = re.compile(
    r"\b(?:next\b|expect\w*|predict\w*|likely\b|will (?:be|say|continue|follow|end|come|open)\b"
    r"|about to\b|continu\w+|followed by|complet\w+|going to\b|anticipat\w+|upcoming|finish\w*"
    r"|perhaps|maybe|possibly|(?:might|could) be\b|leads? to\b|leading to\b)",
    re.IGNORECASE,
)
_SINGLE_QUOTE = re.compile(r"(?<![\w'’])['‘`]([^'‘’`\n]{1,80})['’`](?!\w)")

_LABELS = frozenset(
    {"user", "assistant", "system", "human", "answer", "question", "final", "next", "token", "text"}
    | {"english", "format"}
)
"""Capitalised words of explanations that name nothing."""


def split_claims(explanation: str) -> tuple[Claim, ...]:
    """All claims in order of where they begin; () where there is nothing to claim.

    Words that a field names twice are claimed once.
    """
    parts = split(explanation)
    if parts.form == "prose":
        found = _prose(explanation, 0, len(explanation))
    else:
        found = _fielded(explanation, parts)
    unique: dict[tuple[Kind, int, int], Claim] = {}
    for claim in found:
        if claim.text.strip():
            unique.setdefault((claim.kind, claim.start, claim.end), claim)
        if len(unique) == MOST_CLAIMS:
            break
    return tuple(sorted(unique.values(), key=lambda c: (c.start, -c.end)))


def _fielded(text: str, parts: Parts) -> Iterator[Claim]:
    """Claims of a note or of named fields; what stands outside of any field is read as prose."""
    if parts.place:
        yield Claim(Kind.PLACE, text[slice(*parts.place)].split(",")[0], *parts.place)
        for start, end, quoted in quote_spans(text[: parts.head[1]]):
            yield Claim(Kind.QUOTE, quoted, start, end)
    elif parts.note:
        yield from _note(text, parts.note)
    else:
        yield from _prose(text, *parts.head)
    for start, end, word in next_items(text):
        yield Claim(Kind.PREDICTION, word, start, end)
    for field in parts.fields:
        if field.name in ("text", "reading"):  # a quotation without marks
            yield Claim(Kind.TEXT, text[field.start : field.end], field.start, field.end)
        elif field.name != "next":
            yield from _topics(text, field.start, field.end)


def _note(text: str, note: tuple[int, int]) -> Iterator[Claim]:
    """Clauses of each sentence of a note, then the quotations and names inside of them."""
    quoted = quote_spans(text[: note[1]])
    for low, high in _sentences(text, *note, quoted):
        for number, (start, end) in enumerate(note_clauses(text, (low, high))):
            clause = re.sub(r"\s+", " ", text[start:end])
            if any(word.is_content for word in words(clause)):
                yield Claim(Kind.NOW if number else Kind.WHAT, clause, start, end)
        yield from _names(_blank(text[low:high], _within(quoted, low, high)), low)
    for start, end, quote in quoted:
        yield Claim(Kind.QUOTE, quote, start, end)


def _within(quoted: list[tuple[int, int, str]], low: int, high: int) -> list[tuple[int, int]]:
    """The quotations of a stretch, counted from where it begins."""
    return [(a - low, b - low) for a, b, _ in quoted if low <= a and b <= high]


def _topics(text: str, start: int, end: int) -> Iterator[Claim]:
    """The words of ``About: a, b.``, each once."""
    body = re.sub(r"[.;\s]+$", "", text[start:end].split("\n")[0])
    body = re.sub(r"[.;]\s+(?:Next|Text)\b.*$", "", body, flags=re.DOTALL)
    seen: set[str] = set()
    at = start
    for part in body.split(","):
        word = part.strip()
        same = " ".join(w.stem for w in words(word)) or word.casefold()
        if word and same not in seen:
            seen.add(same)
            begin = at + part.index(word)
            yield Claim(Kind.TOPIC, word, begin, begin + len(word))
        at += len(part) + 1


def _prose(text: str, start: int, end: int) -> Iterator[Claim]:
    """Sentences and list items, then what stands inside of them."""
    quoted = quote_spans(text, next_too=True)
    bare = _without_markup(text, quoted)
    for low, high in _sentences(bare, start, end, quoted):
        body = bare[low:high]
        inside = [(a, b, q) for a, b, q in quoted if low <= a and b <= high]
        inside += [
            (low + m.start(), low + m.end(), m[1])
            for m in _SINGLE_QUOTE.finditer(body)
            if not any(a <= low + m.start() < b for a, b, _ in inside)
        ]
        own = _blank(body, [(a - low, b - low) for a, b, _ in inside])
        if any(word.is_content and not about_texts(word) for word in words(own)):
            yield Claim(Kind.SENTENCE, re.sub(r"\s+", " ", body).strip(), low, high)
        cue = _EXPECTS.search(own)
        for a, b, quote in sorted(inside):
            expects = cue is not None and low + cue.start() < a
            yield Claim(Kind.PREDICTION if expects else Kind.QUOTE, quote.strip(), a, b)
        yield from _names(own, low)


def _sentences(
    text: str, start: int, end: int, quoted: list[tuple[int, int, str]]
) -> Iterator[tuple[int, int]]:
    """Ranges of sentences and list items without blanks around them."""
    for line in re.finditer(r"[^\n]+", text[start:end]):
        at = start + line.start()
        stop = start + line.end()
        if mark := _LIST_MARK.match(text, at, stop):
            at = mark.end()
        for match in _SENTENCE_END.finditer(text, at, stop):
            if any(a < match.start() < b - 1 for a, b, _ in quoted):
                continue
            if _ABBREVIATED.search(text, at, match.start() + 1) and match.end() < stop:
                continue
            yield from _pieces(text, at, match.end())
            at = match.end()
        yield from _pieces(text, at, stop)


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """One range without blanks around it, or several where it is longer than any sentence."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    while end - start > LONGEST_SENTENCE:
        blank = text.rfind(" ", start + 1, start + LONGEST_SENTENCE)
        stop = blank if blank > 0 else start + LONGEST_SENTENCE
        yield start, stop
        start = stop + (blank > 0)
    if end > start:
        yield start, end


def _names(body: str, offset: int) -> Iterator[Claim]:
    """Capitalised words that do not merely begin the sentence."""
    for match in _NAME.finditer(body):
        first = words(match[0])
        opens = not re.search(r"\w", body[: match.start()]) or body[: match.start()].rstrip()[
            -1:
        ] in (":", "*")
        start, name = match.start(), match[0]
        if not name[:1].isupper():  # a letter of a script without cases
            continue
        if opens:  # "The Hendersons have": the article only begins the sentence
            rest = re.match(r"\S+ ", name)
            if rest is None:
                continue
            start, name = start + rest.end(), name[rest.end() :]
            if not name[:1].isupper():
                continue
        known = [w for w in first if w.text not in FUNCTION_WORDS | _LABELS]
        name = re.sub(r"(?:'s|’s|['’-])$", "", name)
        if known and words(name)[:1] and words(name)[0].text not in _LABELS | FUNCTION_WORDS:
            yield Claim(Kind.NAME, name, offset + start, offset + start + len(name))


def _without_markup(text: str, quoted: list[tuple[int, int, str]]) -> str:
    """The same text with tags and emphasis marks blanked out, so that ranges stay as they are."""

    def blank(match: re.Match[str]) -> str:
        inside = any(a < match.start() < b for a, b, _ in quoted)
        return match[0] if inside else re.sub(r"[^\n]", " ", match[0])

    return re.sub(r"\*\*|__|```", "  ", _TAG.sub(blank, text)).replace("```", "   ")


def _blank(text: str, spans: list[tuple[int, int]]) -> str:
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text
