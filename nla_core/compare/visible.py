"""What a transcript visibly says up to a token and after it, and where in it something stands.

Knows how tokens become one text without the chat template's markup, how characters and token
positions map onto each other, and how to look up words and quotations on either side of a token.
Does not know what explanations claim. The decision a reader would question: a template's markup is
replaced by a line break, not kept; nobody says ``<|im_start|>``, and a claim must not be counted as
said because the markup holds the word.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nla_core.compare.lexical import Word, words
from nla_core.schema import Role, Section

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
