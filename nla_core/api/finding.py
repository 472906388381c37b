"""Search, readings alike, recurring themes: what the page Search and a marked range show.

Knows how parameters become a query and what an answer holds. Does not know how anything is found.
The decision a reader would question: the search's own page tokens are handed out as they are; they
are bound to version and query already.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final, get_args

from nla_core import exports, opened, themes
from nla_core.api import wire
from nla_core.api.browsing import page_of
from nla_core.api.listing import PAGING, page_size
from nla_core.api.params import Param
from nla_core.api.shelf import Asked, unknown
from nla_core.api.wire import Answer, Refusal
from nla_core.errors import NLAError
from nla_core.schema import Flag, Role
from nla_core.search.query import Filters, Mode, Query, Results, Within, read_cursor

_POSITION: Final = 2**31 - 1
HIT_FILTERS: Final = (
    Param("category"),
    Param("tag"),
    Param("role", "choice", tuple(Role)),
    Param("flag", "choice", tuple(Flag)),
    Param("without_flag", "choice", tuple(Flag)),
    Param("fve_min", "number", low=-1e6, high=1),
    Param("first", "integer", low=0, high=_POSITION),
    Param("last", "integer", low=0, high=_POSITION),
    Param("per_transcript", "integer", low=1, high=1_000),
)
SEARCH_PARAMS: Final = (
    Param("q"),
    Param("mode", "choice", get_args(Mode), default="hybrid"),
    Param("within", "choice", get_args(Within), default="explanations"),
    Param("unlike"),
    Param("unspoken", "switch", default=False),
    *HIT_FILTERS,
    *PAGING,
)
SIMILAR_PARAMS: Final = (
    Param("reading_id", required=True),
    Param("unlike"),
    *HIT_FILTERS,
    *PAGING,
)
THEME_PARAMS: Final = (
    Param("transcript_id", required=True),
    Param("first", "integer", low=0, high=_POSITION),
    Param("last", "integer", low=0, high=_POSITION),
    Param("limit", "integer", low=1, high=100, default=themes.MOST),
)


def search(asked: Asked) -> Answer:
    """Hits for words, for meaning, or both."""
    query = Query(
        text=asked.query["q"] or "",
        mode=asked.query["mode"],
        within=asked.query["within"],
        unlike=asked.query["unlike"] or "",
        unspoken=asked.query["unspoken"],
        filters=_filters(asked),
        per_transcript=asked.query["per_transcript"],
    )
    return _answer(asked, query)


def similar(asked: Asked) -> Answer:
    """Readings whose explanations mean much the same as that of one reading."""
    reading_id = asked.query["reading_id"]
    if asked.dataset.reading(reading_id) is None:
        raise unknown("reading", reading_id, [])
    query = Query(
        like=reading_id,
        unlike=asked.query["unlike"] or "",
        filters=_filters(asked),
        per_transcript=asked.query["per_transcript"],
    )
    return _answer(asked, query)


def recurring(asked: Asked) -> Answer:
    """What the explanations of a stretch of tokens keep saying."""
    transcript_id = asked.query["transcript_id"]
    if asked.dataset.transcript(transcript_id) is None:
        near = asked.dataset.nearest_transcripts(transcript_id)["transcript_id"].tolist()
        raise unknown("transcript", transcript_id, near)
    frame = asked.dataset.readings(transcript_id)
    first, last = asked.query["first"] or 0, asked.query["last"]
    here = frame["position"].between(first, _POSITION if last is None else last)
    frame = frame[here & (frame["sample"] == 0)]
    stretch = list(zip(frame["position"].tolist(), frame["explanation"], strict=True))
    found = themes.themes(stretch, opened.background(asked.dataset), most=asked.query["limit"])
    rows = [
        {
            "term": theme.term,
            "count": theme.count,
            "expected": theme.expected,
            "positions": list(theme.positions),
        }
        for theme in found
    ]
    return wire.answer(asked.source, {"n_readings": len(stretch), "themes": rows})


def _filters(asked: Asked) -> Filters:
    query = asked.query
    return Filters(
        roles=_some(query["role"]),
        categories=_some(query["category"]),
        tags=_some(query["tag"]),
        flags=_some(query["flag"]),
        no_flags=_some(query["without_flag"]),
        fve_min=query["fve_min"],
        positions=(query["first"], query["last"]),
    )


def _some(value: Any) -> tuple[Any, ...]:
    return () if value is None else (value,)


def _answer(asked: Asked, query: Query) -> Answer:
    limit, after = page_size(asked), asked.query["next"]
    if after is not None:
        try:
            read_cursor(after, asked.dataset.version, query)
        except NLAError as error:
            raise Refusal(400, error) from error
    found = opened.search(asked.dataset).search(query, limit, after)
    return wire.answer(asked.source, _body(asked, found))


def _body(asked: Asked, found: Results) -> dict[str, Any]:
    hits = [
        {
            **exports.jsonable(asdict(hit)),
            "page": page_of(asked, hit.transcript_id, hit.position, hit.sample or 0),
        }
        for hit in found.hits
    ]
    return {
        "hits": hits,
        "next": found.after,
        "total": found.total,
        "exact": found.exact,
        "found": dict(found.found),
        "categories": dict(found.categories),
        "notes": list(found.notes),
        "why": list(found.why),
        "near": [
            {"label": near.label, "q": near.query.text, "hits": near.hits, "exact": near.exact}
            for near in found.near
        ],
    }
