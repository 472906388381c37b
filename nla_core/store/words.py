"""What a person types into the search box, read into FTS5 terms; and text as it is indexed.

Knows the small language of the box (words, "phrases", -minus, word*) and which signs SQLite's
tokenizer can and cannot see. Does not know tables or rankings. The decision a reader would
question: no FTS5 syntax passes through, not even AND or NEAR; every word is quoted, so that any
input is a search for its words, and what cannot be searched for is said instead of raised.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TOKENIZER = "unicode61 remove_diacritics 2"
"""Letters and digits make words, case and accents do not count. No stemming: the texts quote
single tokens, and a reader who looks for "ring" does not want "ringing"; "ring*" is there."""

LONGEST_QUERY = 400
MOST_TERMS = 24

# Scripts written without spaces: each character is its own word, and a run of them a phrase.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_EMOJI = "\u2600-\u27bf\U0001f000-\U0001faff"
_SINGLE = re.compile(f"[{_UNSPACED}{_EMOJI}]")
_SEPARATOR = "\x1f"
_UNSAFE = re.compile("[\x00\x1f\ud800-\udfff]")
_PRIVATE = 0xF0000
_TO_PRIVATE = {
    code: _PRIVATE + (code & 0xFFFF) for code in (*range(0x2600, 0x27C0), *range(0x1F000, 0x1FB00))
}

_QUOTES = '"“”„‟«»'
_TERM = re.compile(
    rf"(?P<minus>[-−–])?(?:[{_QUOTES}](?P<phrase>[^{_QUOTES}]*)(?P<closed>[{_QUOTES}]?)"
    rf"|(?P<word>[^\s{_QUOTES}]+))(?P<star>\*)?"
)


def indexable(text: str) -> str:
    """``text`` as the tokenizer is to see it; ``original_places`` maps its offsets back.

    NUL and lone surrogates become spaces. Characters of scripts without spaces, and emoji, are
    set apart, so that each can be found inside a run; emoji move to a private-use plane, which
    the tokenizer takes for letters.
    """
    if text.isascii() and "\x00" not in text and _SEPARATOR not in text:
        return text
    text = _UNSAFE.sub(" ", text)
    return _SINGLE.sub(rf"{_SEPARATOR}\g<0>{_SEPARATOR}", text).translate(_TO_PRIVATE)


def original_places(indexed: str) -> Sequence[int]:
    """For each offset into ``indexable(text)``, its end included, the offset into ``text``."""
    if _SEPARATOR not in indexed:
        return range(len(indexed) + 1)
    places, place = [], 0
    for sign in indexed:
        places.append(place)
        place += sign != _SEPARATOR
    return [*places, place]


@dataclass(frozen=True, slots=True)
class Term:
    """A word or phrase; ``prefix`` takes every word that begins as its last one does."""

    text: str
    prefix: bool = False

    @property
    def fts(self) -> str:
        """An FTS5 string; the parser lets no quote into ``text``."""
        return f'"{indexable(self.text)}"' + (" *" if self.prefix else "")


@dataclass(frozen=True, slots=True)
class Words:
    """What was understood: all of ``wanted`` and none of ``unwanted``. ``plain`` is the text
    without its operators, for search by meaning. ``notes`` say what was left out, in sentences."""

    wanted: tuple[Term, ...] = ()
    unwanted: tuple[Term, ...] = ()
    plain: str = ""
    notes: tuple[str, ...] = ()

    @property
    def match(self) -> str:
        """The FTS5 expression of the wanted terms; empty where there is none."""
        return " AND ".join(term.fts for term in self.wanted)

    @property
    def any_match(self) -> str:
        """The FTS5 expression that lights each wanted term, wherever it stands."""
        return " OR ".join(term.fts for term in self.wanted)

    @property
    def unwanted_match(self) -> str:
        return " OR ".join(term.fts for term in self.unwanted)


def read_words(text: str, *, typing: bool = True) -> Words:
    """Read any text whatsoever; never raises.

    With ``typing``, a last bare word that is still being typed (nothing follows it) also matches
    the words it begins.
    """
    notes = []
    if len(text) > LONGEST_QUERY:
        notes.append(
            f"Only the first {LONGEST_QUERY} of {len(text):,} characters were searched for"
        )
        text = text[:LONGEST_QUERY]
    terms = list(_terms(text, typing=typing))
    lost = [term.text for term, _ in terms if not searchable(term.text)]
    if lost:
        notes.append(f"No letters or digits to search for in: {' '.join(lost)[:80]}")
    kept = list(dict.fromkeys(pair for pair in terms if searchable(pair[0].text)))
    if len(kept) > MOST_TERMS:
        notes.append(f"Only the first {MOST_TERMS} of {len(kept)} words were searched for")
        kept = kept[:MOST_TERMS]
    wanted = tuple(term for term, minus in kept if not minus)
    return Words(
        wanted,
        tuple(term for term, minus in kept if minus),
        " ".join(term.text for term, minus in terms if not minus),
        tuple(notes),
    )


def _terms(text: str, *, typing: bool) -> Iterator[tuple[Term, bool]]:
    """(term, is it to be left out) in order; terms without anything searchable included."""
    text = _UNSAFE.sub(" ", text)
    for found in _TERM.finditer(text):
        at_start = found.start() == 0 or text[found.start() - 1].isspace()
        minus = found["minus"] is not None and at_start
        word, phrase = found["word"], found["phrase"]
        if word is None:
            if phrase.strip():
                yield Term(phrase.strip(), prefix=found["star"] is not None), minus
            continue
        star = word.endswith("*") or found["star"] is not None
        unfinished = typing and not minus and found.end() == len(text)
        if word := word.rstrip("*"):
            yield Term(word, prefix=star or (unfinished and _ends_in_word(word))), minus


def searchable(text: str) -> bool:
    """Whether the tokenizer finds a word in ``text``."""
    return any(unicodedata.category(sign)[0] in "LN" for sign in text) or bool(
        re.search(f"[{_EMOJI}\ue000-\uf8ff]", text)
    )


def _ends_in_word(word: str) -> bool:
    return unicodedata.category(word[-1])[0] in "LNM"
