"""Which characters of a text are the words that were searched for.

Knows how to ask SQLite's own tokenizer. Does not know where the texts come from. The decision a
reader would question: each call makes a small FTS5 table in memory (a millisecond or two for a page
of hits) instead of matching in Python, because two tokenizers that nearly agree would light what
was not found.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Sequence

from nla_core.store.words import TOKENIZER, indexable, original_places

Spans = list[tuple[int, int]]


def lit(texts: Sequence[str], any_match: str) -> list[Spans]:
    """For each text the character ranges that match, by the tokenizer that searches.

    ``any_match`` is an FTS5 expression of `words.Words`; texts that match nothing have no ranges.
    """
    spans: list[Spans] = [[] for _ in texts]
    if not any_match or not texts:
        return spans
    indexed = [indexable(text) for text in texts]
    shown = [text.translate({2: " ", 3: " "}) for text in indexed]
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(f"CREATE VIRTUAL TABLE t USING fts5(text, tokenize='{TOKENIZER}')")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t (rowid, text) VALUES (?, ?)", enumerate(shown))
        found = connection.execute(
            "SELECT rowid, highlight(t, 0, ?, ?) FROM t WHERE t MATCH ?",
            ["\x02", "\x03", any_match],
        ).fetchall()
    for row, marked in found:
        places = original_places(indexed[row])
        offset = 0
        for number, part in enumerate(re.split("[\x02\x03]", marked)):
            if number % 2:  # between an opening and a closing mark
                spans[row].append((places[offset], places[offset + len(part)]))
            offset += len(part)
    return spans
