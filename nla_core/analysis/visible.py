"""What is visible up to a token and after it, and whether words of a claim stand there.

Two texts share words by stems; numbers and negations have to agree.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nla_core.schema import Role, Section

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


LONGEST_RUN = 40
"""Words of a quotation that ``longest_run`` looks for; longer ones go by their beginning."""

_ROLE_MARK = re.compile(r"^\s*\[(?:user|assistant|system)\]\s*", re.IGNORECASE)
_DOTS = re.compile(r"^(?:…|\.\.\.)\s*|\s*(?:…|\.\.\.)$")


def joined(
    texts: Sequence[str], sections: Sequence[str]
) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """(the visible text, where each token begins in it, where each ends), one entry a position.

    Template tokens take no room; between two turns stands a line break in their stead.
    """
    parts: list[str] = []
    begins: list[int] = []
    ends: list[int] = []
    size, open_gap = 0, False
    for text, section in zip(texts, sections, strict=True):
        if section == Section.CONTENT:
            if open_gap and size:
                parts.append("\n")
                size += 1
            open_gap = False
            begins.append(size)
            parts.append(text)
            size += len(text)
        else:
            open_gap = True
            begins.append(size)
        ends.append(size)
    return "".join(parts), tuple(begins), tuple(ends)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the visible text: characters ``[start, end)``, and the token positions (both
    inclusive) that they belong to."""

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Visible:
    """The visible text of one transcript, made ready for many look-ups.

    ``ends[p]`` is the number of characters that are visible once token ``p`` has been read;
    ``begins[p]`` is where its own text starts. ``roles[p]`` says whose turn the token is in.
    """

    text: str
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    roles: tuple[str, ...]
    words: tuple[Word, ...]
    _where: dict[str, list[int]] = field(repr=False)  # stem -> indices into words, ascending
    _plain: str = field(repr=False)  # case and runs of blanks forgotten
    _plain_at: tuple[int, ...] = field(repr=False)  # character of text for each of plain

    @classmethod
    def of(cls, texts: Sequence[str], sections: Sequence[str], roles: Sequence[str]) -> Visible:
        """From the token table's columns, one entry a position."""
        whole, begins, ends = joined(texts, sections)
        found = tuple(words(whole))
        where: dict[str, list[int]] = {}
        for index, word in enumerate(found):
            where.setdefault(word.stem, []).append(index)
        plain, at = _plain_with_map(whole)
        whose = tuple(map(str, roles))
        return cls(whole, begins, ends, whose, found, where, plain, at)

    @classmethod
    def of_text(
        cls,
        before: str,
        after: str,
        *,
        role: str = Role.USER,
        roles_after: Sequence[str] = (),
        ends_turn: bool = False,
    ) -> Visible:
        """A transcript whose tokens are not known, cut at position 0.

        ``before`` is one token; markup follows where the turn ends with it, then ``after``.
        """
        texts, sections, roles = [before], [Section.CONTENT], [role]
        if ends_turn:
            texts, sections, roles = [*texts, ""], [*sections, Section.TEMPLATE], [*roles, role]
            after = after.removeprefix("\n")
        later = list(roles_after) or [role]
        if after:
            texts.append(after)
            texts += [""] * (len(later) - 1)
            sections += [Section.CONTENT] * len(later)
            roles += later
        return cls.of(texts, sections, roles)

    def __len__(self) -> int:
        return len(self.ends)

    def cut(self, position: int) -> int:
        """Characters that are visible once the token at ``position`` has been read."""
        return self.ends[position]

    def span(self, start: int, end: int) -> Span:
        """The token positions that characters ``[start, end)`` of the text belong to."""
        first = bisect_right(self.ends, start)
        last = bisect_left(self.ends, end)
        top = len(self.ends) - 1
        return Span(start, end, min(first, top), min(max(first, last), top))

    def indices(self, stem: str) -> list[int]:
        """Indices into ``words`` of every word with this stem, ascending; [] without any."""
        return self._where.get(stem, [])

    def words_before(self, position: int) -> int:
        """How many words end at or before the token at ``position``."""
        cut = self.cut(position)
        return bisect_right(self.words, cut, key=_end_of)

    def find_word(self, stem: str, position: int) -> tuple[Word | None, Word | None]:
        """(the last such word up to ``position``, the first one after it); None without one.

        Where a token ends inside a word, what is visible of that word counts as one.
        """
        found = self.indices(stem)
        limit = self.words_before(position)
        at = bisect_left(found, limit)
        before = self.words[found[at - 1]] if at else None
        after = self.words[found[at]] if at < len(found) else None
        cut = self.cut(position)
        if limit < len(self.words) and self.words[limit].start < cut:
            begun = words(self.text[self.words[limit].start : cut])
            if begun and begun[-1].stem == stem:
                before = replace(self.words[limit], end=cut)
        return before, after

    def find_quote(self, quote: str, position: int) -> tuple[Span | None, Span | None]:
        """(the last verbatim place up to ``position``, the first one that reaches beyond it).

        Case, runs of blanks, a speaker's name in brackets and punctuation at both ends are
        forgotten. A quotation begins where a word does; it may end inside a word only where the
        visible text is cut by the token itself.
        """
        wanted = plain_quote(quote)
        if not wanted:
            return None, None
        cut = bisect_left(self._plain_at, self.cut(position))
        before = self._plain.rfind(wanted, 0, cut)
        while before >= 0 and not self._bounded(wanted, before, cut):
            before = self._plain.rfind(wanted, 0, before + len(wanted) - 1)
        after = self._plain.find(wanted, max(0, cut - len(wanted) + 1))
        while after >= 0 and not self._bounded(wanted, after, len(self._plain)):
            after = self._plain.find(wanted, after + 1)
        return self._plain_span(wanted, before), self._plain_span(wanted, after)

    def longest_run(self, quote: str, position: int) -> tuple[float, Span | None]:
        """Share of a quotation's words in its longest run up to ``position``, and where it is.

        For quotations that are not verbatim: how much of them is.
        """
        stems = [word.stem for word in words(plain_quote(quote))[:LONGEST_RUN]]
        limit = self.words_before(position)
        best, where = 0, (0, 0)
        for start in range(len(stems)):
            if len(stems) - start <= best:
                break
            for index in self.indices(stems[start]):
                if index >= limit:
                    break
                length = 1
                while (
                    start + length < len(stems)
                    and index + length < limit
                    and self.words[index + length].stem == stems[start + length]
                ):
                    length += 1
                if length > best:
                    last = self.words[index + length - 1]
                    best, where = length, (self.words[index].start, last.end)
        if not best:
            return 0.0, None
        return best / len(stems), self.span(*where)

    def _bounded(self, wanted: str, at: int, cut: int) -> bool:
        """No match begins or ends inside of a word, unless the token's cut is what ends it."""
        text, end = self._plain, at + len(wanted)
        starts = at == 0 or not (text[at - 1].isalnum() and wanted[0].isalnum())
        return starts and (
            end >= min(cut, len(text)) or not (text[end].isalnum() and wanted[-1].isalnum())
        )

    def _plain_span(self, wanted: str, at: int) -> Span | None:
        if at < 0:
            return None
        return self.span(self._plain_at[at], self._plain_at[at + len(wanted) - 1] + 1)


def plain_quote(quote: str) -> str:
    """A quotation as it is looked up; one of punctuation alone keeps it, one of blanks is ""."""
    text = _ROLE_MARK.sub("", quote).replace("\\n", "\n").replace("\\t", "\t").replace("\ufffd", "")
    text, _ = _plain_with_map(text)
    text = _DOTS.sub("", text.strip()).strip()
    return re.sub(r"^[^\w]+|[^\w]+$", "", text) or text


def _end_of(word: Word) -> int:
    return word.end


def _plain_with_map(text: str) -> tuple[str, tuple[int, ...]]:
    """Case folded, runs of blanks one space, quotation marks of one kind; and where each
    character came from. Long casefolds (``ß``) map all their characters to the one."""
    kept: list[str] = []
    at: list[int] = []
    for index, char in enumerate(text):
        if char.isspace():
            if kept and kept[-1] == " ":
                continue
            folded = " "
        else:
            folded = {'"': "'", "“": "'", "”": "'", "’": "'", "‘": "'"}.get(char) or char.casefold()
        kept.extend(folded)
        at.extend([index] * len(folded))
    return "".join(kept), tuple(at)
