"""The routes under /api/v1/: which questions may be asked, and how a dataset answers them.

Knows paths, parameters, page sizes and what each answer holds. Does not know HTTP servers or
Streamlit: a handler takes a dataset and checked values. The decision a reader would question: a
page of JSON has a largest size and a token for the next, while CSV and JSON lines stream
everything; so no request makes the server hold more than a page.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import pandas as pd

from nla_core.api import params, wire
from nla_core.api.params import Param
from nla_core.api.wire import Answer, Provenance, Refusal, Stream
from nla_core.errors import NLAError
from nla_core.refs import TokenRef, ViewState
from nla_core.schema import Flag, Role, Section
from nla_core.store.dataset import Dataset, TranscriptSort
from nla_core.store.queries import BANDS

PREFIX: Final = "/api/v1"
OPENAPI: Final = Path(__file__).with_name("openapi.json")
PAGE: Final = 50
MOST: Final = 500
"""Rows of one page of JSON."""

STREAMED: Final = 2_000
"""Rows that a stream reads at a time."""

Reply = Answer | Stream
Handler = Callable[[Dataset, Mapping[str, str], dict[str, Any]], Reply]


@dataclass(frozen=True, slots=True)
class Route:
    """``path`` is below ``PREFIX``, with names in braces; ``handler`` gets them as a mapping."""

    path: str
    handler: Handler
    params: tuple[Param, ...] = ()


FILTERS: Final = (
    Param("category"),
    Param("contains"),
    Param("tag"),
    Param("flag", "choice", tuple(Flag)),
    *(Param(name, "choice", tuple(band.name for band in bands)) for name, bands in BANDS.items()),
)
READING_FILTERS: Final = (
    Param("transcript_id"),
    Param("category"),
    Param("flag", "choice", tuple(Flag)),
    Param("role", "choice", tuple(Role)),
    Param("section", "choice", tuple(Section)),
    Param("fve_min", "number"),
    Param("fve_max", "number"),
    Param("position", "integer", low=0),
)
PAGING: Final = (
    Param("limit", "integer", low=1),
    Param("next"),
    Param("format", "choice", ("json", "jsonl", "csv"), default="json"),
)


# ---- the dataset as a whole ----------------------------------------------------------------------


def openapi(dataset: Dataset, path: Mapping[str, str], query: dict[str, Any]) -> Reply:
    return Answer(OPENAPI.read_bytes())


def datasets(dataset: Dataset, path: Mapping[str, str], query: dict[str, Any]) -> Reply:
    return wire.answer(Provenance.of(dataset), {"datasets": [_summary(dataset)]})


def one_dataset(dataset: Dataset, path: Mapping[str, str], query: dict[str, Any]) -> Reply:
    source = Provenance.of(dataset)
    if path["dataset_id"] != source.dataset:
        raise _unknown("dataset", path["dataset_id"], [source.dataset])
    return wire.answer(source, {"manifest": dataset.manifest.to_json()})


def categories(dataset: Dataset, path: Mapping[str, str], query: dict[str, Any]) -> Reply:
    rows = wire.records(dataset.categories())
    return wire.answer(Provenance.of(dataset), {"categories": rows})


def facets(dataset: Dataset, path: Mapping[str, str], query: dict[str, Any]) -> Reply:
    found: dict[str, list[dict[str, Any]]] = {
        param.name: [] for param in FILTERS if param.name != "contains"
    }
    labels = {band.name: band.label for bands in BANDS.values() for band in bands}
    for row in wire.records(dataset.facets(**query)):
        name = row.pop("facet")
        label = labels.get(row["value"]) if name in BANDS else None
        found[name].append(row | ({"label": label} if label else {}))
    return wire.answer(Provenance.of(dataset), {"facets": found})


# ---- transcripts ---------------------------------------------------------------------------------


def transcripts(dataset: Dataset, path: Mapping[str, str], query: dict[str, Any]) -> Reply:
    filters = {param.name: query[param.name] for param in FILTERS}
    order = {"sort": query["sort"], "descending": query["descending"]}
    question = {"of": "transcripts", **filters, **order}

    def page(limit: int, after: Any) -> pd.DataFrame:
        return dataset.transcripts(limit=limit, after=after, **order, **filters)

    listing = _Listing(dataset, "transcripts", question, page, _transcript, "transcript_id", str)
    if query["format"] != "json":
        return listing.stream(query)
    return listing.page_of(query, total=dataset.count_transcripts(**filters))


def one_transcript(dataset: Dataset, path: Mapping[str, str], query: dict[str, Any]) -> Reply:
    transcript_id = path["transcript_id"]
    row = dataset.transcript(transcript_id)
    if row is None:
        near = dataset.nearest_transcripts(transcript_id)["transcript_id"].tolist()
        raise _unknown("transcript", transcript_id, near)
    (summary,) = wire.records(row.to_frame().T)
    summary["messages"] = json.loads(summary["messages"])
    readings = wire.records(dataset.find_readings(transcript_id=transcript_id))
    return wire.answer(
        Provenance.of(dataset),
        {
            "transcript": _transcript(summary),
            "tokens": wire.records(dataset.tokens(transcript_id)),
            "readings": [_reading(reading) for reading in readings],
        },
    )


# ---- readings ------------------------------------------------------------------------------------


def readings(dataset: Dataset, path: Mapping[str, str], query: dict[str, Any]) -> Reply:
    filters = {param.name: query[param.name] for param in READING_FILTERS}

    def page(limit: int, after: Any) -> pd.DataFrame:
        return dataset.find_readings(limit=limit, after=after, **filters)

    question = {"of": "readings", **filters}
    listing = _Listing(dataset, "readings", question, page, _reading, "row", int)
    return listing.page_of(query) if query["format"] == "json" else listing.stream(query)


def one_reading(dataset: Dataset, path: Mapping[str, str], query: dict[str, Any]) -> Reply:
    row = dataset.reading(path["reading_id"])
    if row is None:
        raise _unknown("reading", path["reading_id"], [])
    (reading,) = wire.records(row.to_frame().T)
    tokens = dataset.tokens(reading["transcript_id"])
    (token,) = wire.records(tokens[tokens["position"] == reading["position"]])
    return wire.answer(Provenance.of(dataset), {"reading": _reading(reading), "token": token})


ROUTES: Final = (
    Route("/openapi.json", openapi),
    Route("/datasets", datasets),
    Route("/datasets/{dataset_id}", one_dataset),
    Route("/categories", categories),
    Route("/facets", facets, FILTERS),
    Route(
        "/transcripts",
        transcripts,
        (
            *FILTERS,
            Param("sort", "choice", get_args(TranscriptSort), default="title"),
            Param("descending", "switch", default=False),
            *PAGING,
        ),
    ),
    Route("/transcripts/{transcript_id}", one_transcript),
    Route("/readings", readings, (*READING_FILTERS, *PAGING)),
    Route("/readings/{reading_id}", one_reading),
)


def respond(
    route: Route,
    open_dataset: Callable[[], Dataset],
    path: Mapping[str, str],
    pairs: Iterable[tuple[str, str]],
) -> Reply:
    """Answer one request; every refusal comes back as an answer with its status."""
    try:
        try:
            query = params.read(pairs, route.params)
        except NLAError as error:
            raise Refusal(400, error) from error
        return route.handler(open_dataset(), path, query)
    except Refusal as refused:
        return wire.refusal(refused.status, refused.error)
    except NLAError as error:  # no dataset, a damaged one, or one that is too slow to answer
        return wire.refusal(503, error)


# ---- pages and streams ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Listing:
    """One question whose answer has many rows; ``key`` is the column that a token names."""

    dataset: Dataset
    name: str
    question: Mapping[str, Any]
    page: Callable[[int, Any], pd.DataFrame]
    item: Callable[[dict[str, Any]], dict[str, Any]]
    key: str
    kind: type

    def page_of(self, query: Mapping[str, Any], **more: Any) -> Answer:
        limit = query["limit"] or PAGE
        if limit > MOST:
            raise Refusal(
                400,
                NLAError(
                    f"A page of {limit:,} rows is too long",
                    why=f"a page holds at most {MOST} of them",
                    fix="Ask for fewer and follow `next`, or stream everything with format=jsonl "
                    "or format=csv",
                ),
            )
        rows = wire.records(self.page(limit + 1, self._after(query)))
        shown = rows[:limit]
        following = None
        if len(rows) > limit:
            following = params.token(self.dataset.version, self.question, shown[-1][self.key])
        items = [self.item(row) for row in shown]
        body = {self.name: items, "next": following, **more}
        return wire.answer(Provenance.of(self.dataset), body)

    def stream(self, query: Mapping[str, Any]) -> Stream:
        """All rows after the token, or ``limit`` of them. The first are read before this returns,
        so that what would refuse does so while there is still a status to say it with."""
        pages = self._pages(self._after(query), query["limit"])
        first = next(pages)
        source = Provenance.of(self.dataset)
        every = itertools.chain([first], pages)
        items = ([self.item(row) for row in wire.records(page)] for page in every)
        if query["format"] == "jsonl":
            return wire.json_lines(source, self.name, items)
        columns = [*map(str, first.columns), "page"]
        return wire.comma_separated(source, self.name, columns, items)

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

    def _after(self, query: Mapping[str, Any]) -> Any:
        if query["next"] is None:
            return None
        try:
            return params.after(query["next"], self.dataset.version, self.question, self.kind)
        except NLAError as error:
            raise Refusal(400, error) from error


# ---- rows ----------------------------------------------------------------------------------------


def _summary(dataset: Dataset) -> dict[str, Any]:
    manifest = dataset.manifest
    return {
        "id": Provenance.of(dataset).dataset,
        "version": dataset.version,
        "schema_version": manifest.schema_version,
        "pair": manifest.pair,
        "corpus": {
            name: value for name, value in manifest.corpus.items() if name in ("name", "n_prompts")
        },
        "counts": manifest.counts,
        "git_commit": manifest.git_commit,
    }


def _transcript(row: dict[str, Any]) -> dict[str, Any]:
    row.pop("search_text", None)
    view = ViewState(transcript=row["transcript_id"])
    return row | {"page": f"/explore?{view.query}"}


def _reading(row: dict[str, Any]) -> dict[str, Any]:
    token = TokenRef(row["transcript_id"], row["position"], row["sample"])
    return row | {"page": f"/explore?{token.query}"}


def _unknown(what: str, asked: str, near: list[str]) -> Refusal:
    return Refusal(
        404,
        NLAError(
            f"There is no {what} {params.shown(asked)}",
            why=f"no {what} of this version has that id",
            fix=f"Did you mean {' or '.join(near)}?"
            if near
            else f"Take an id from {PREFIX}/{what}s",
        ),
    )
