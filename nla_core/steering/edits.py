"""An edit of one explanation carried over to others: the same words changed in the same way.

Knows words and how two texts differ in them. Knows no model. The decision a reader would question:
an explanation that holds none of the changed words takes no part, instead of being replaced as a
whole; a direction averaged with texts the reader never saw would not be the reader's edit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import Final

from nla_core.steering.experiment import Edit

WORD: Final = re.compile(r"\s+|[^\W_]+|[\W_]")


def changes(edit: Edit) -> list[tuple[str, str]]:
    """Runs of words that the edit replaced, each with what stands there now."""
    old, new = WORD.findall(edit.original), WORD.findall(edit.edited)
    found = SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes()
    return [
        ("".join(old[a0:a1]), "".join(new[b0:b1]))
        for kind, a0, a1, b0, b1 in found
        if kind != "equal"
    ]


def carried_over(edit: Edit, others: Iterable[str]) -> tuple[Edit, ...]:
    """``edit`` itself, then one for each of ``others`` that holds a word it replaced.

    Only replacements and deletions of whole words are carried over: an insertion has no place in
    another text.
    """
    replaced = [(old, new) for old, new in changes(edit) if re.search(r"\w", old)]
    found = [edit]
    for text in others:
        edited = text
        for old, new in replaced:
            pieces = re.split(rf"(?<!\w){re.escape(old)}(?!\w)", edited)
            edited = new.join(pieces)
        if edited != text and edited.strip():
            found.append(Edit(text, edited))
    return tuple(found)


def words_of(text: str) -> tuple[str, ...]:
    """Named words out of what somebody typed: parted by commas or lines, each once."""
    return tuple(dict.fromkeys(w.strip() for w in re.split(r"[,;\n]", text) if w.strip()))


def hits(text: str, words: Sequence[str]) -> tuple[str, ...]:
    """Which of ``words`` stand in ``text`` as whole words, whatever their case."""
    return tuple(word for word in words if _pattern(word).search(text))


def hits_at(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Where they stand, in order and without overlaps."""
    found = sorted(match.span() for word in words for match in _pattern(word).finditer(text))
    kept: list[tuple[int, int]] = []
    for low, high in found:
        if not kept or low >= kept[-1][1]:
            kept.append((low, high))
    return kept


def _pattern(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
