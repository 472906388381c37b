"""Lists with many rows: a page of JSON with a token for the next, or a stream of everything.

Knows how a list is cut into pages and continued. Does not know what the rows are. The decision a
reader would question: a page of JSON has a largest size while CSV and JSON lines stream everything;
so no request makes the server hold more than a page.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from nla_core import exports
from nla_core.api import params, wire
from nla_core.api.params import Param
from nla_core.api.shelf import Asked
from nla_core.api.wire import Answer, Refusal, Stream
from nla_core.errors import NLAError

PAGE: Final = 50
MOST: Final = 500
"""Rows of one page of JSON."""

STREAMED: Final = 2_000
"""Rows that a stream reads at a time."""

PAGING: Final = (Param("limit", "integer", low=1), Param("next"))
FORMAT: Final = Param("format", "choice", ("json", "jsonl", "csv"), default="json")


def page_size(asked: Asked) -> int:
    """Rows of the page that is asked for. Raises Refusal where there are too many."""
    limit: int = asked.query["limit"] or PAGE
    if limit > MOST:
        raise Refusal(
            400,
            NLAError(
                f"A page of {limit:,} rows is too long",
                why=f"a page holds at most {MOST} of them",
                fix="Ask for fewer and follow `next`; transcripts and readings can also be "
                "streamed whole, with format=jsonl or format=csv",
            ),
        )
    return limit


@dataclass(frozen=True, slots=True)
class Listing:
    """One question whose answer has many rows, and how to ask it.

    ``page(limit, after)`` gives rows; ``key``, of type ``kind``, is the column that names the row
    to go on after. ``question`` holds all that a token is bound to.
    """

    asked: Asked
    name: str
    question: Mapping[str, Any]
    page: Callable[[int, Any], pd.DataFrame]
    key: str
    kind: type

    def answer(self, **more: Any) -> Answer | Stream:
        """The page or stream that is asked for; ``more`` goes into a page beside its rows."""
        after = self._after()
        kind = self.asked.query["format"]
        return self._page(after, more) if kind == "json" else self._stream(after, kind)

    def _page(self, after: Any, more: Mapping[str, Any]) -> Answer:
        limit = page_size(self.asked)
        rows = exports.rows(self.page(limit + 1, after))
        following = None
        if len(rows) > limit:
            last = rows[limit - 1][self.key]
            following = params.token(self.asked.dataset.version, self._bound, last)
        return wire.answer(self.asked.source, {self.name: rows[:limit], "next": following, **more})

    def _stream(self, after: Any, kind: wire.Streamed) -> Stream:
        """All rows that follow, or ``limit`` of them. The first are read before this returns, so
        that what would refuse does so while there is still a status to say it with."""
        pages = self._pages(after, self.asked.query["limit"])
        every = itertools.chain([next(pages)], pages)
        return wire.stream(self.asked.source, self.name, kind, every)

    def _pages(self, after: Any, limit: int | None) -> Iterator[pd.DataFrame]:
        left = limit
        while True:
            size = STREAMED if left is None else min(STREAMED, left)
            frame = self.page(size, after)
            yield frame
            left = None if left is None else left - len(frame)
            if len(frame) < size or left == 0:
                return
            after = self.kind(frame[self.key].iloc[-1])

    def _after(self) -> Any:
        text = self.asked.query["next"]
        if text is None:
            return None
        try:
            return params.after(text, self.asked.dataset.version, self._bound, self.kind)
        except NLAError as error:
            raise Refusal(400, error) from error

    @property
    def _bound(self) -> dict[str, Any]:
        return {"of": self.name, **self.question}
