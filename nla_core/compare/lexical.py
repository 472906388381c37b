"""Words as two texts can share them: normalised, lightly stemmed, numbers and negations kept.

Knows the forms of English inflection that matter for matching, and how words of other scripts are
cut. Knows nothing of claims or transcripts. Its word lists are in
``english.json``. The decision a reader would question: endings are cut by a few rules of our own
instead of by a dictionary. A stem such as ``hop`` for both *hopping* and
*hoping* joins words it should not, which is rarer in one short transcript than an inflected form
that would be missed; and the rules need no download.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NEGATION_REACH = 3
"""Words before a word in which a negation still turns it."""

LONGEST_WORD = 40
"""Longer runs of letters are compared by their first characters only."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(
    rf"[{_CJK}]|\d+(?:[.,]\d+)*|[A-Z]?[a-z]+(?=[A-Z][a-z])|(?:(?![{_CJK}])[^\W\d_])+(?:['’](?:(?![{_CJK}])[^\W\d_])+)*"
)
_CONTRACTED = re.compile(r"^(.+?)n't$")
_CLITIC = re.compile(r"'(?:s|re|ve|ll|d|m)$")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_VOWEL = re.compile(r"[aeiouy]")

_ENGLISH = json.loads(Path(__file__).with_name("english.json").read_text(encoding="utf-8"))

NEGATIONS = frozenset(_ENGLISH["negations"].split())
FUNCTION_WORDS = frozenset(_ENGLISH["function_words"].split())
"""Words that stand in nearly every text, so that finding one says nothing. Negations and number
words are not among them."""

_NUMBERS = {word: str(value) for value, word in enumerate(_ENGLISH["numbers"].split())}
_IRREGULAR = {form: base for base, forms in _ENGLISH["irregular"].items() for form in forms.split()}


@dataclass(frozen=True, slots=True)
class Word:
    """``start`` to ``end`` in the text it was read from; ``negated`` by one of the words before."""

    start: int
    end: int
    text: str  # case and apostrophes normalised, inflection kept
    stem: str
    negated: bool = False

    @property
    def is_number(self) -> bool:
        return self.stem[:1].isdigit()

    @property
    def is_content(self) -> bool:
        """Whether finding the word elsewhere says something: no function word, no lone letter."""
        if self.is_number or ord(self.text[0]) > 0x2E7F:
            return True
        return len(self.text) > 1 and self.text not in FUNCTION_WORDS | NEGATIONS


def words(text: str) -> list[Word]:
    """The words of a text in order. ``isn't`` is one word, read as *is*, that begins a negation;
    ``IndexError`` is two words."""
    found: list[Word] = []
    negated_until = -1
    for match in _WORD.finditer(text):
        form = _normal(match[0])
        contracted = _CONTRACTED.match(form)
        bare = contracted[1] if contracted else _CLITIC.sub("", form)
        index = len(found)
        is_negation = bare in NEGATIONS
        found.append(
            Word(
                match.start(),
                match.end(),
                bare,
                stem(bare),
                negated=not is_negation and index <= negated_until,
            )
        )
        if contracted or is_negation:
            negated_until = index + NEGATION_REACH
        # A clause ends where punctuation does, and with it the reach of a negation.
        if text[match.end() : match.end() + 1] in tuple(",.;:!?\n"):
            negated_until = -1
    return found


def content_stems(items: Iterable[Word]) -> frozenset[str]:
    """The stems of the content words."""
    return frozenset(word.stem for word in items if word.is_content)


def stem(word: str) -> str:
    """What a lower-cased word shares with its inflected forms; numbers as digits, unchanged."""
    if word[:1].isdigit():
        return word.replace(",", "") if _GROUPED.fullmatch(word) else word
    if word in _NUMBERS:
        return _NUMBERS[word]
    if not word.isascii():
        return word
    word = _IRREGULAR.get(word, word)
    return _without_e(_without_ending(word))


def _without_ending(word: str) -> str:
    if len(word) > 4 and word.endswith(("ies", "ied")):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    for ending in ("ing", "ed"):
        base = word[: -len(ending)]
        if word.endswith(ending) and len(base) > 1 and _VOWEL.search(base):
            if ending == "ed" and word.endswith("eed"):
                return word
            doubled = len(base) > 2 and base[-1] == base[-2] and base[-1] not in "lsz"
            return base[:-1] if doubled else base
    return word


def _without_e(word: str) -> str:
    """*make* and *making* meet at ``mak``: what an ending took away is taken everywhere."""
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


_ABOUT_TEXTS = frozenset(map(stem, _ENGLISH["words_about_texts"].split()))


def about_texts(word: Word) -> bool:
    """Whether a word speaks of the text (*phrase*, *suggests*), not of what the text is about."""
    return word.stem in _ABOUT_TEXTS


_ABOUT_SPEECH = frozenset(map(stem, _ENGLISH["words_about_speech"].split()))


def about_speech(word: Word) -> bool:
    """Whether a word says what kind of text or speech a note is about, or its step or mood
    (*complaint*, *naming*, *annoyed*); the text itself hardly ever says so."""
    return word.stem in _ABOUT_SPEECH


def _normal(word: str) -> str:
    return unicodedata.normalize("NFKC", word).casefold().replace("’", "'")[:LONGEST_WORD]
