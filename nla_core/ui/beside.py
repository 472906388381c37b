"""Two readings side by side: what both say, what only one says.

Knows how two texts are set beside each other. Does not know where they come from: two tokens, two
samples, two layers, or the same prompt with one word changed. The decision a reader would question:
words are compared and not characters; half a word in common means nothing.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

import pandas as pd

from nla_core.ui.html import Piece, draw, fill, join
from nla_core.ui.later import signed

_WORD = re.compile(r"\s+|[^\W_]+|[\W_]")


def beside(left: pd.Series, right: pd.Series) -> None:
    """``left`` and ``right`` are rows of ``Dataset.reading``."""
    marked = difference(str(left["explanation"]), str(right["explanation"]))
    draw(
        '<div class="nla-beside">{left}{right}</div>',
        left=_side(left, marked[0], "Pinned"),
        right=_side(right, marked[1], "This one"),
    )


def difference(left: str, right: str) -> tuple[Piece, Piece]:
    """Both texts, the words that the other does not have in that place marked."""
    a, b = _WORD.findall(left), _WORD.findall(right)
    sides: tuple[list[Piece], list[Piece]] = ([], [])
    matcher = SequenceMatcher(
        a=[w.casefold() for w in a], b=[w.casefold() for w in b], autojunk=False
    )
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        for side, words, low, high in ((0, a, a0, a1), (1, b, b0, b1)):
            text = "".join(words[low:high])
            if not text:
                continue
            if kind == "equal" or not text.strip():
                sides[side].append(fill("{text}", text=text))
            else:
                template = "<ins>{text}</ins>" if side else "<del>{text}</del>"
                sides[side].append(fill(template, text=text))
    return join(sides[0]), join(sides[1])


def _side(row: pd.Series, text: Piece, name: str) -> Piece:
    return fill(
        '<div><p class="nla-label">{name}: {token} · token {position} of “{title}” · FVE {fve}</p>'
        "<p>{text}</p></div>",
        name=name,
        token=str(row["token"]).strip() or "␣",
        position=int(row["position"]),
        title=row["title"],
        fve=signed(float(row["fve"])),
        text=text,
    )
