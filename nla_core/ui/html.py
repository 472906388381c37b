"""Small pieces of HTML with text put into them, never markup.

Knows how to escape. Does not know what is drawn. The decision a reader would question: templates
are constants of this project and every value is escaped on its way in, so that forgetting to is not
possible; pieces that were built this way carry their own type.
"""

from __future__ import annotations

from html import escape
from typing import LiteralString

import streamlit as st


class Piece(str):
    """HTML made by ``fill``; not escaped again."""

    __slots__ = ()


def fill(template: LiteralString, **values: object) -> Piece:
    """``template`` with each value escaped, numbers and pieces included as they are."""
    return Piece(template.format(**{name: _text(value) for name, value in values.items()}))


def join(pieces: list[Piece]) -> Piece:
    return Piece("".join(pieces))


def draw(template: LiteralString, **values: object) -> None:
    """Show ``fill(template, ...)``."""
    st.html(fill(template, **values))


def hint(text: str) -> None:
    """A sentence beside a control, quiet and still easy to read."""
    draw('<p class="nla-hint">{text}</p>', text=text)


def _text(value: object) -> str:
    return value if isinstance(value, Piece) else escape(str(value), quote=True)
