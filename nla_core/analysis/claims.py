"""An explanation cut into claims: its note, what it expects next, its quotations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from nla_core.analysis.visible import FUNCTION_WORDS, about_texts, words

Form = Literal["note", "fields", "prose"]
Range = tuple[int, int]

LONGEST_NOTE = 320
"""Characters; what is longer and followed by fields is prose."""

LONGEST_BARE_NOTE = 200
"""Characters of a note without any field after it; longer ones are prose."""

END = "[end]"
"""How an explanation writes that the text or the turn ends."""

_QUOTE = re.compile(r'"([^"]*)"|“([^“”]*)”')
_NEXT = re.compile(r"\bnext(?:\s+(?:tokens?|words?))?\s*[:=]\s*", re.IGNORECASE)
_PLACE = re.compile(r"\s*(User|Answer|System|Text|Assistant),\s+\w+\b")
_FIELD = re.compile(
    r"(?:(?<=^)|(?<=[.;!?…。\n\"”] )|(?<=\n)|(?<=^\s))(About|Topics?|Text|Reading)\s*:[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_OPENS_A_FIELD = ".;!?…。！？\"”’')]"
_FIELDS_WITHIN = re.compile(r"\bNext: [^\n]*?(?: / |\. Text:)|[.!?…] Text: ")
_LIST_MARK = re.compile(r"\s*(?:[-*•–]|\d{1,2}[.)]|#{1,6})\s+")
_CUT_TAIL = re.compile(r"\s*(?:</?[A-Za-z]*>?|\b[Nn]ext:?)?\s*$")
_CUT_NAME = re.compile(r"(?<=[.!?…。])\s+(?:N|Ne|Nex|Next|T|Te|Tex|Text)$")
_FIELD_AFTER = re.compile(r"\.?(?<!/)\s+[^\W\d_]+(?: [^\W\d_]+)?:(?:\s|$)|\n|;\s")
_NAMED_AFTER = re.compile(r"\.?\s*(About|Topics?|Text|Reading):[ \t]*")
_MARKUP = re.compile(r"<\|?[^<>\s]+\|?>")
_WRAPPED = re.compile(r"""^(["'`“])(.*[^"'`“”].*)(["'`”])$""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Field:
    """``text[start:end]`` is the body of the field; its name begins at ``named``."""

    name: str  # lower case: next, text, about, topic, topics, reading
    named: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts of an explanation stand. ``head`` is what comes before the first field: the
    note, or the place and quotation of the form with fields; of prose it is the whole text."""

    form: Form
    head: Range
    place: Range | None
    fields: tuple[Field, ...]

    @property
    def note(self) -> Range | None:
        """The sentence for people; None in the other forms."""
        return self.head if self.form == "note" else None

    @property
    def running_text(self) -> Range | None:
        """The words that lead up to the token, of a note or fields."""
        return next(((f.start, f.end) for f in self.fields if f.name == "text"), None)

    @property
    def quiet_from(self) -> int | None:
        """From where on a note's explanation is detail; None where nothing comes after a note."""
        return self.fields[0].named if self.form == "note" and self.fields else None


def split(text: str) -> Parts:
    """The parts of an explanation; free prose is one part, whatever fields it seems to have."""
    fields = tuple(_fields(text))
    place = _PLACE.match(text)
    whole = _trimmed(text, 0, len(text))
    if place:
        head = _trimmed(text, 0, fields[0].named) if fields else whole
        return Parts("fields", head, (place.start(1), place.end()), fields)
    if _is_note(text, fields):
        end = fields[0].named if fields else len(_CUT_NAME.sub("", text.rstrip()))
        return Parts("note", _trimmed(text, 0, end), None, fields)
    if len({field.name for field in fields}) >= 2:
        return Parts("fields", _trimmed(text, 0, fields[0].named), None, fields)
    return Parts("prose", whole, None, ())


def note_clauses(text: str, note: Range) -> Iterator[Range]:
    """The clauses of a note, without semicolons and the last full stop.

    By the form of the labels the first says what the text is, the others what is being done now.
    """
    quoted = [match.span() for match in _quotations(text)]
    at = note[0]
    ends = [
        match.start()
        for match in re.finditer(r"[;；]", text[: note[1]])
        if match.start() >= at and not any(a < match.start() < b for a, b in quoted)
    ]
    for end in [*ends, note[1]]:
        start, stop = _trimmed(text, at, end)
        while stop > start and text[stop - 1] in ".。":
            stop -= 1
        if start < stop:
            yield start, stop
        at = end + 1


def _is_note(text: str, fields: tuple[Field, ...]) -> bool:
    """Whether a text without a place is one line for people, followed by labelled fields."""
    end = fields[0].named if fields else len(text)
    head = text[:end].strip()
    if "\n" in head or not re.search(r"\w", head) or _LIST_MARK.match(head) or "**" in head:
        return False
    if not fields:
        return bool(re.search(r"[;；]\s*\S", head)) and len(head) <= LONGEST_BARE_NOTE
    first = fields[0]
    if len(head) > LONGEST_NOTE or text[first.named : first.named + 5] not in ("Next:", "Text:"):
        return False
    body = text[first.start : first.end].strip()
    # A list of words, a single one, or nothing yet: prose goes on in words instead.
    return first.name == "text" or len(fields) > 1 or "/" in body or len(body.split()) <= 1


def _fields(text: str) -> Iterator[Field]:
    """The fields in order, none inside of a quotation; after ``text`` all is running text."""
    quoted = [match.span() for match in _quotations(text)]
    found = [
        (match[1].casefold(), match.start(), match.end())
        for match in _FIELD.finditer(text)
        if not any(a < match.start() < b for a, b in quoted)
    ]
    expected = _next_field(text, quoted)
    if expected is not None:
        found.append(("next", *expected[:2]))
        # right after the next tokens a field needs no full stop before it
        after = _NAMED_AFTER.match(text, expected[2])
        if after and all(start != after.end() for _, _, start in found):
            found.append((after[1].casefold(), after.start(1), after.end()))
    found.sort(key=lambda field: field[1])
    for number, (name, named, start) in enumerate(found):
        end = found[number + 1][1] if number + 1 < len(found) else len(text)
        if name == "next" and expected is not None:
            end = expected[2]
        if name == "text":  # a tag that the cut left behind is no part of it
            end = start + len(_CUT_TAIL.sub("", text[start:]))
        yield Field(name, named, *_trimmed(text, start, max(start, end)))
        if name == "text":
            return


def _trimmed(text: str, start: int, end: int) -> Range:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _quotations(text: str) -> Iterator[re.Match[str]]:
    """Marks in pairs. A lone one, such as that of 15", does not reach over the fields of a note."""
    at = 0
    while match := _QUOTE.search(text, at):
        if _FIELDS_WITHIN.search(match[0]):
            at = match.start() + 1
            continue
        yield match
        at = match.end()


def next_words(text: str) -> list[str]:
    """The words of the field ``next``, in order, as ``as_word`` writes them; [] without a field."""
    return [word for _, _, word in next_items(text)]


def next_items(text: str) -> list[tuple[int, int, str]]:
    """(start, end, word) of each distinct word of the field ``next``; [] without a field."""
    span = next_span(text)
    if span is None:
        return []
    body = text[span[0] : span[1]]
    separator = r"\s+/\s+"
    if not re.search(separator, body.strip()):
        separator = "/" if "/" in body.strip().strip("/") else ", "
    items: dict[str, tuple[int, int, str]] = {}
    at = 0
    for gap in [*re.finditer(separator, body), None]:
        part = body[at : gap.start() if gap else len(body)]
        stripped = re.sub(r"\s+/$", "", part.strip())  # a text cut after a slash
        if word := as_word(_WRAPPED.sub(r"\2", stripped)):
            start = span[0] + at + part.index(stripped)
            items.setdefault(word, (start, start + len(stripped), word))
        at = gap.end() if gap else len(body)
    return list(items.values())


def as_word(token: str) -> str:
    """A token as an explanation would name it: one line, no spaces around, case forgotten.

    Markup such as ``<|im_end|>`` reads ``[end]``; "" for a token that holds nothing to name.
    """
    if _MARKUP.fullmatch(token.strip()):
        return END
    text = token.replace("\ufffd", "").replace('"', "'").replace("\r", "")
    return text.replace("\n", "\\n").replace("\t", "\\t").strip().casefold()


def quotes(text: str) -> list[str]:
    """Quoted spans that claim to be read from the context, in order; empty ones are left out."""
    return [found for _, _, found in quote_spans(text)]


def without_quotes(text: str) -> str:
    """The prose alone: every quotation taken out with its marks."""
    kept, at = [], 0
    for start, end, _ in quote_spans(text):
        kept.append(text[at:start])
        at = end
    return re.sub(r"\s+", " ", "".join([*kept, text[at:]])).strip()


def only_quotes(text: str) -> str:
    """The quotations alone, without their marks, in order."""
    return " ".join(quotes(text))


def stands_in(quote: str, context: str) -> bool:
    """Whether a quotation stands in the context, forgetting case, spaces and a speaker's name."""
    if wanted := _plain(quote):
        return wanted in _plain(context)
    blank = quote.replace("\\n", "\n").replace("\\t", "\t")  # a quoted line break, or nothing
    return bool(blank) and blank in context


def quote_spans(text: str, *, next_too: bool = False) -> list[tuple[int, int, str]]:
    """(start, end, what is quoted) of each quotation, its marks inside of the range.

    Those in the field ``next`` are left out, unless ``next_too``.
    """
    low, high = (next_span(text) if not next_too else None) or (len(text), len(text))
    found = []
    for match in _quotations(text):
        body = (match[1] if match[1] is not None else match[2]).strip()
        if body and not low <= match.start() < high:
            found.append((match.start(), match.end(), body))
    return found


def next_span(text: str) -> Range | None:
    """Where the body of the field ``next`` stands: up to the next field, line or the end.

    The full stop that closes the field is left out, one that is itself named as next is not. A
    ``next:`` inside a quotation is somebody else's text, not a field; one that begins a sentence
    is preferred to one within a sentence.
    """
    found = _next_field(text, [match.span() for match in _quotations(text)])
    return None if found is None else found[1:]


def _next_field(text: str, quoted: list[Range]) -> tuple[int, int, int] | None:
    """(where its name begins, where its body begins, where that ends)."""
    found = [
        match
        for match in _NEXT.finditer(text)
        if not any(start < match.start() < end for start, end in quoted)
    ]
    if not found:
        return None
    before = {m: text[: m.start()].rstrip()[-1:] for m in found}
    match = next((m for m in found if not before[m] or before[m] in _OPENS_A_FIELD), found[0])
    after = _FIELD_AFTER.search(text, match.end())
    end = after.start() if after else len(_CUT_NAME.sub("", text.rstrip()))
    if after is None or ":" not in after[0]:  # a field that follows has taken the full stop
        body = text[match.end() : end].rstrip()
        if len(body) > 1 and body.endswith(".") and not re.search(r"/\s+\.$", body):
            end = match.end() + len(body) - 1
    return match.start(), match.end(), end


def _plain(text: str) -> str:
    text = re.sub(r"^\[(user|assistant|system)\]", "", text.replace("\\n", " ").replace('"', "'"))
    text = re.sub(r"\s+", " ", text.replace("\\t", " ").replace("\ufffd", "")).strip().casefold()
    return re.sub(r"^(?:…|\.\.\.)\s*|\s*(?:…|\.\.\.)$", "", text)


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


_claims_LIST_MARK = re.compile(r"\s*(?:[-*•–]|\d{1,2}[.)]|#{1,6})\s+")
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
        if mark := _claims_LIST_MARK.match(text, at, stop):
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
