"""Datasets, transcripts, readings, search: what the pages Explore, Browse and Search show.

A reading has the same columns wherever it appears, those of the dataset with its token and title
beside them, so that a program needs one type for it. Every request looks up the current version
anew; that is one small file, and a new version then needs no restart.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import pandas as pd
from fastapi import Depends, Query, Request, Response

from nla_core import exports, opened
from nla_core.analysis import themes
from nla_core.api import guard, models, wire
from nla_core.api.wire import Refusal
from nla_core.data.dataset import Dataset
from nla_core.data.manifest import Manifest, current_version, read_manifest
from nla_core.data.queries import BANDS
from nla_core.data.query import Filters, read_cursor
from nla_core.data.query import Query as SearchQuery
from nla_core.errors import NLAError
from nla_core.exports import Provenance
from nla_core.links import ViewState

STREAMED: Final = 2_000
"""Rows that a stream reads at a time."""

LISTED: Final = {"dataset", "limit", "next", "format"}
"""Parameters of a list that are no filter and no order."""


@dataclass(frozen=True, slots=True)
class Datasets:
    """``roots()`` gives the folders by name, the default one first. Safe to share by threads."""

    roots: Callable[[], Mapping[str, Path]]

    def manifest(self, name: str) -> Manifest:
        """That of the current version, which is not opened for it. Raises NLAError."""
        root = self._root(name)
        return read_manifest(root / current_version(root))

    def open(self, name: str | None) -> Dataset:
        """The current version of that dataset, or of the default one.

        Raises Refusal where there is none of that name, NLAError where it cannot be opened.
        """
        root = self._root(name)
        return opened.dataset(root, current_version(root))

    def _root(self, name: str | None) -> Path:
        roots = self.roots()
        name = next(iter(roots)) if name is None else name
        if name not in roots:
            raise _unknown("dataset", name, list(roots))
        return roots[name]


async def _served(request: Request) -> Datasets:
    found: Datasets = request.app.state.datasets
    return found


Served = Annotated[Datasets, Depends(_served)]
OfDataset = Annotated[models.OfDataset, Query()]

router = guard.reads()

RAW: Final = "Text that a spreadsheet would run as a formula has an apostrophe in front."


def _streams(row: str) -> dict[int | str, dict[str, Any]]:
    """What a list answers beside a page of JSON."""
    lines = f"One {row} a line, with the fields of Source."
    cells = f"The columns of {row}, then those of Source. {RAW}"
    kinds = (("application/x-ndjson", lines), ("text/csv", cells))
    content = {kind: {"schema": {"type": "string", "description": text}} for kind, text in kinds}
    return {200: {"content": content}}


# ---- datasets ------------------------------------------------------------------------------------


@router.get("/datasets", response_model=models.DatasetList)
def datasets(served: Served) -> Response:
    """The datasets of this server, the default one first; those that cannot be read, and why."""
    readable: list[dict[str, Any]] = []
    unreadable: list[dict[str, Any]] = []
    for name in served.roots():
        try:
            readable.append(_summary(name, served.manifest(name)))
        except NLAError as error:
            unreadable.append({"dataset": name, "error": wire.error_json(error)})
    return wire.answer({"datasets": readable, "unreadable": unreadable})


@router.get("/datasets/{dataset}", response_model=models.DatasetManifest)
def one_dataset(dataset: str, served: Served) -> Response:
    """Its manifest: pair, corpus, settings, hash of each file."""
    return wire.answer({"dataset": dataset, "manifest": served.manifest(dataset).to_json()})


@router.get("/categories", response_model=models.CategoryList)
def categories(served: Served, asked: OfDataset) -> Response:
    """Categories with counts."""
    dataset = served.open(asked.dataset)
    return wire.answer({"categories": exports.rows(dataset.categories())}, Provenance.of(dataset))


@router.get("/facets", response_model=models.Facets)
def facets(served: Served, asked: Annotated[models.FacetParams, Query()]) -> Response:
    """What each further filter would leave; a facet is counted under all filters but its own."""
    dataset, filters = served.open(asked.dataset), asked.model_dump(exclude={"dataset"})
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in filters if name != "contains"}
    labels = {band.name: band.label for bands in BANDS.values() for band in bands}
    for row in exports.rows(dataset.facets(**filters)):
        name = row.pop("facet")
        label = labels.get(row["value"]) if name in BANDS else None
        found[name].append(row | ({"label": label} if label else {}))
    return wire.answer({"facets": found}, Provenance.of(dataset))


def _summary(name: str, manifest: Manifest) -> dict[str, Any]:
    return {
        "dataset": name,
        "version": manifest.version,
        "schema_version": manifest.schema_version,
        "pair": manifest.pair,
        "corpus": {
            key: value for key, value in manifest.corpus.items() if key in ("name", "n_prompts")
        },
        "counts": manifest.counts,
        "git_commit": manifest.git_commit,
    }


# ---- transcripts and readings --------------------------------------------------------------------


@router.get("/transcripts", response_model=models.TranscriptPage, responses=_streams("Transcript"))
def transcripts(served: Served, asked: Annotated[models.TranscriptParams, Query()]) -> Response:
    """Transcripts by page, or as a stream."""
    dataset = served.open(asked.dataset)
    question = asked.model_dump(exclude=LISTED)
    filters = {
        name: value for name, value in question.items() if name not in ("sort", "descending")
    }

    def page(limit: int, after: Any) -> pd.DataFrame:
        return _linked(dataset.transcripts(limit=limit, after=after, **question), asked.dataset)

    def total() -> dict[str, Any]:
        return {"total": dataset.count_transcripts(**filters)}

    return _list(asked, dataset, "transcripts", question, page, "transcript_id", str, total)


@router.get("/transcripts/{transcript_id}", response_model=models.TranscriptInFull)
def one_transcript(transcript_id: str, served: Served, asked: OfDataset) -> Response:
    """One transcript with its messages, tokens and readings."""
    dataset = served.open(asked.dataset)
    row = _transcript(dataset, transcript_id)
    frame = row.drop("search_text", errors="ignore").to_frame().T
    (summary,) = exports.rows(_linked(frame, asked.dataset))
    summary["messages"] = json.loads(summary["messages"])
    readings = dataset.find_readings(transcript_id=transcript_id)
    body = {
        "transcript": summary,
        "tokens": exports.rows(dataset.tokens(transcript_id)),
        "readings": exports.rows(_linked(readings, asked.dataset)),
    }
    return wire.answer(body, Provenance.of(dataset))


@router.get("/readings", response_model=models.ReadingPage, responses=_streams("Reading"))
def readings(served: Served, asked: Annotated[models.ReadingParams, Query()]) -> Response:
    """Readings of all transcripts by page, or as a stream, in the order of the vectors."""
    dataset, question = served.open(asked.dataset), asked.model_dump(exclude=LISTED)

    def page(limit: int, after: Any) -> pd.DataFrame:
        return _linked(dataset.find_readings(limit=limit, after=after, **question), asked.dataset)

    return _list(asked, dataset, "readings", question, page, "row", int, dict)


@router.get("/readings/{reading_id}", response_model=models.ReadingInFull)
def one_reading(reading_id: str, served: Served, asked: OfDataset) -> Response:
    """One reading and the token it explains."""
    dataset = served.open(asked.dataset)
    row = dataset.reading(reading_id)
    if row is None:
        raise _unknown("reading", reading_id)
    (reading,) = exports.rows(_linked(row.to_frame().T, asked.dataset))
    tokens = dataset.tokens(reading["transcript_id"])
    (token,) = exports.rows(tokens[tokens["position"] == reading["position"]])
    return wire.answer({"reading": reading, "token": token}, Provenance.of(dataset))


def _list(
    asked: models.TranscriptParams | models.ReadingParams,
    dataset: Dataset,
    name: str,
    question: Mapping[str, Any],
    page: Callable[[int, Any], pd.DataFrame],
    key: str,
    kind: type,
    more: Callable[[], dict[str, Any]],
) -> Response:
    """A page of JSON, with ``more`` beside its rows, or a stream of everything.

    ``page(limit, after)`` gives rows; ``key``, of type ``kind``, is the column that names the row
    to go on after. A page has a largest size, so that no request makes the server hold more.
    """
    source, bound = Provenance.of(dataset), {"of": name, **question}
    after = None
    if asked.next is not None:
        after = wire.after(asked.next, dataset.version, bound, kind)
    if asked.format == "json":
        limit = asked.page_size()
        rows = exports.rows(page(limit + 1, after))
        following = None
        if len(rows) > limit:
            following = wire.token(dataset.version, bound, rows[limit - 1][key])
        return wire.answer({name: rows[:limit], "next": following, **more()}, source)

    def pages(after: Any, left: int | None) -> Iterator[pd.DataFrame]:
        while True:
            size = STREAMED if left is None else min(STREAMED, left)
            frame = page(size, after)
            yield frame
            left = None if left is None else left - len(frame)
            if len(frame) < size or left == 0:
                return
            after = kind(frame[key].iloc[-1])

    # The first rows are read now: what would refuse does so while there is a status to say it with.
    every = pages(after, asked.limit)
    return wire.rows(source, name, asked.format, itertools.chain([next(every)], every))


def _linked(frame: pd.DataFrame, dataset: str | None) -> pd.DataFrame:
    """The rows with ``page``, the path and query of the page that shows each."""
    if "position" in frame:
        places = zip(frame["transcript_id"], frame["position"], frame["sample"], strict=True)
        return frame.assign(page=[_page_of(dataset, *place) for place in places])
    return frame.assign(page=[_page_of(dataset, found) for found in frame["transcript_id"]])


def _page_of(
    dataset: str | None, transcript: str, position: int | None = None, sample: int = 0
) -> str:
    view = ViewState(
        dataset=dataset,
        transcript=transcript,
        position=None if position is None else int(position),
        sample=int(sample),
    )
    return f"/explore?{view.query}"


def _transcript(dataset: Dataset, transcript_id: str) -> pd.Series[Any]:
    row = dataset.transcript(transcript_id)
    if row is None:
        near = dataset.nearest_transcripts(transcript_id)["transcript_id"].tolist()
        raise _unknown("transcript", transcript_id, near)
    return row


def _unknown(what: str, asked: str, near: list[str] | None = None) -> Refusal:
    """The 404 for an id, with what it may have meant."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in asked[:40])
    return Refusal(
        404,
        NLAError(
            f"There is no {what} “{shown}”",
            why=f"no {what} here has that id",
            fix=f"Take an id from {wire.PREFIX}/{what}s"
            + (f"; near are {', '.join(near)}" if near else ""),
        ),
    )


# ---- search --------------------------------------------------------------------------------------


@router.get("/search", response_model=models.Hits)
def search(served: Served, asked: Annotated[models.SearchParams, Query()]) -> Response:
    """Readings or messages for words, for meaning, or both."""
    query = SearchQuery(
        text=asked.q,
        mode=asked.mode,
        within=asked.within,
        unlike=asked.unlike or "",
        unspoken=asked.unspoken,
        filters=_filters(asked),
        per_transcript=asked.per_transcript,
    )
    return _hits(asked, served.open(asked.dataset), query)


@router.get("/similar", response_model=models.Hits)
def similar(served: Served, asked: Annotated[models.SimilarParams, Query()]) -> Response:
    """Readings whose explanations mean much the same as that of one reading."""
    dataset = served.open(asked.dataset)
    if dataset.reading(asked.reading_id) is None:
        raise _unknown("reading", asked.reading_id)
    query = SearchQuery(
        like=asked.reading_id,
        unlike=asked.unlike or "",
        filters=_filters(asked),
        per_transcript=asked.per_transcript,
    )
    return _hits(asked, dataset, query)


@router.get("/themes", response_model=models.Themes)
def recurring(served: Served, asked: Annotated[models.ThemeParams, Query()]) -> Response:
    """What the explanations of a stretch of tokens keep saying."""
    dataset = served.open(asked.dataset)
    _transcript(dataset, asked.transcript_id)
    frame = dataset.readings(asked.transcript_id)
    last = models.LAST_POSITION if asked.last is None else asked.last
    here = frame["position"].between(asked.first or 0, last)
    frame = frame[here & (frame["sample"] == 0)]
    stretch = list(zip(frame["position"].tolist(), frame["explanation"], strict=True))
    found = themes.themes(stretch, opened.background(dataset), most=asked.limit)
    rows = [
        {
            "term": theme.term,
            "count": theme.count,
            "expected": theme.expected,
            "positions": list(theme.positions),
        }
        for theme in found
    ]
    return wire.answer({"n_readings": len(stretch), "themes": rows}, Provenance.of(dataset))


def _filters(asked: models.HitParams) -> Filters:
    def some(value: Any) -> tuple[Any, ...]:
        return () if value is None else (value,)

    return Filters(
        roles=some(asked.role),
        categories=some(asked.category),
        tags=some(asked.tag),
        flags=some(asked.flag),
        no_flags=some(asked.without_flag),
        fve_min=asked.fve_min,
        positions=(asked.first, asked.last),
    )


def _hits(asked: models.HitParams, dataset: Dataset, query: SearchQuery) -> Response:
    """A page of hits; the search's own page tokens are bound to version and query already."""
    limit = asked.page_size()
    if asked.next is not None:
        try:
            read_cursor(asked.next, dataset.version, query)
        except NLAError as error:
            raise Refusal(400, error) from error
    found = opened.search(dataset).search(query, limit, asked.next)
    hits = []
    for hit in found.hits:
        page = _page_of(asked.dataset, hit.transcript_id, hit.position, hit.sample or 0)
        hits.append({**exports.jsonable(asdict(hit)), "page": page})
    body = {
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
    return wire.answer(body, Provenance.of(dataset))
