"""Tables of a report in Markdown.

Knows alignment and what has to be escaped in a cell. Knows nothing of figures. The decision a
reader would question: numbers are set right and words left by the name of their column, since a
cell's text does not tell which it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

TEXT_COLUMNS = frozenset({"why", "met"})


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of a table; the first column and TEXT_COLUMNS are set left, the others right."""
    aligned = ["---", *["---" if name in TEXT_COLUMNS else "---:" for name in header[1:]]]
    lines = [header, aligned, *([_cell(c) for c in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
