"""Datasets, facets, transcripts and readings: what the pages Explore and Browse show.

Knows what each of these answers holds. Does not know paths, HTTP or Streamlit. The decision a
reader would question: a reading has the same columns wherever it appears, those of the store with
its token and title beside them, so that a program needs one type for it.
"""

from __future__ import annotations

import json
from typing import Any, Final, get_args

import pandas as pd

from nla_core import exports
from nla_core.api import wire
from nla_core.api.listing import FORMAT, PAGING, Listing
from nla_core.api.params import Param
from nla_core.api.shelf import Asked, unknown
from nla_core.api.wire import Answer, Stream
from nla_core.errors import NLAError
from nla_core.links import ViewState
from nla_core.schema import Flag, Role, Section
from nla_core.store.dataset import TranscriptSort
from nla_core.store.manifest import Manifest
from nla_core.store.queries import BANDS

FILTERS: Final = (
    Param("category"),
    Param("contains"),
    Param("tag"),
    Param("flag", "choice", tuple(Flag)),
    *(Param(name, "choice", tuple(b.name for b in bands)) for name, bands in BANDS.items()),
)
ORDER: Final = (
    Param("sort", "choice", get_args(TranscriptSort), default="title"),
    Param("descending", "switch", default=False),
)
TRANSCRIPT_PARAMS: Final = (*FILTERS, *ORDER, *PAGING, FORMAT)
READING_FILTERS: Final = (
    Param("transcript_id"),
    Param("category"),
    Param("flag", "choice", tuple(Flag)),
    Param("role", "choice", tuple(Role)),
    Param("section", "choice", tuple(Section)),
    Param("fve_min", "number"),
    Param("fve_max", "number"),
    Param("position", "integer", low=0, high=2**31 - 1),
)
READING_PARAMS: Final = (*READING_FILTERS, *PAGING, FORMAT)

_FILTER_NAMES: Final = tuple(param.name for param in FILTERS)
_ORDER_NAMES: Final = tuple(param.name for param in ORDER)
_READING_FILTER_NAMES: Final = tuple(param.name for param in READING_FILTERS)


def datasets(asked: Asked) -> Answer:
    """Every dataset of this server, the default one first; those that cannot be read, and why."""
    readable: list[dict[str, Any]] = []
    unreadable: list[dict[str, Any]] = []
    for name in asked.shelf.names():
        try:
            readable.append(_summary(name, asked.shelf.manifest(name)))
        except NLAError as error:
            unreadable.append({"dataset": name, "error": wire.error_json(error)})
    return Answer(wire.encode({"datasets": readable, "unreadable": unreadable}))


def one_dataset(asked: Asked) -> Answer:
    name = asked.path["dataset"]
    manifest = asked.shelf.manifest(name)
    return Answer(wire.encode({"dataset": name, "manifest": manifest.to_json()}))


def categories(asked: Asked) -> Answer:
    return wire.answer(asked.source, {"categories": exports.rows(asked.dataset.categories())})


def facets(asked: Asked) -> Answer:
    found: dict[str, list[dict[str, Any]]] = {
        name: [] for name in _FILTER_NAMES if name != "contains"
    }
    labels = {band.name: band.label for bands in BANDS.values() for band in bands}
    for row in exports.rows(asked.dataset.facets(**asked.values(_FILTER_NAMES))):
        name = row.pop("facet")
        label = labels.get(row["value"]) if name in BANDS else None
        found[name].append(row | ({"label": label} if label else {}))
    return wire.answer(asked.source, {"facets": found})


def transcripts(asked: Asked) -> Answer | Stream:
    filters, order = asked.values(_FILTER_NAMES), asked.values(_ORDER_NAMES)

    def page(limit: int, after: Any) -> pd.DataFrame:
        found = asked.dataset.transcripts(limit=limit, after=after, **order, **filters)
        return linked(found, asked)

    listing = Listing(asked, "transcripts", {**filters, **order}, page, "transcript_id", str)
    if asked.query["format"] != "json":
        return listing.answer()
    return listing.answer(total=asked.dataset.count_transcripts(**filters))


def one_transcript(asked: Asked) -> Answer:
    transcript_id = asked.path["transcript_id"]
    row = asked.dataset.transcript(transcript_id)
    if row is None:
        near = asked.dataset.nearest_transcripts(transcript_id)["transcript_id"].tolist()
        raise unknown("transcript", transcript_id, near)
    (summary,) = exports.rows(linked(row.drop("search_text", errors="ignore").to_frame().T, asked))
    summary["messages"] = json.loads(summary["messages"])
    readings = asked.dataset.find_readings(transcript_id=transcript_id)
    return wire.answer(
        asked.source,
        {
            "transcript": summary,
            "tokens": exports.rows(asked.dataset.tokens(transcript_id)),
            "readings": exports.rows(linked(readings, asked)),
        },
    )


def readings(asked: Asked) -> Answer | Stream:
    filters = asked.values(_READING_FILTER_NAMES)

    def page(limit: int, after: Any) -> pd.DataFrame:
        return linked(asked.dataset.find_readings(limit=limit, after=after, **filters), asked)

    return Listing(asked, "readings", filters, page, "row", int).answer()


def one_reading(asked: Asked) -> Answer:
    row = asked.dataset.reading(asked.path["reading_id"])
    if row is None:
        raise unknown("reading", asked.path["reading_id"], [])
    (reading,) = exports.rows(linked(row.to_frame().T, asked))
    tokens = asked.dataset.tokens(reading["transcript_id"])
    (token,) = exports.rows(tokens[tokens["position"] == reading["position"]])
    return wire.answer(asked.source, {"reading": reading, "token": token})


def linked(frame: pd.DataFrame, asked: Asked) -> pd.DataFrame:
    """The rows with ``page``, the path and query of the page that shows each."""
    if "position" in frame:
        places = zip(frame["transcript_id"], frame["position"], frame["sample"], strict=True)
        return frame.assign(page=[page_of(asked, *place) for place in places])
    return frame.assign(page=[page_of(asked, found) for found in frame["transcript_id"]])


def page_of(asked: Asked, transcript: str, position: int | None = None, sample: int = 0) -> str:
    """Path and query of the page that shows a transcript, or a token of it."""
    view = ViewState(
        dataset=asked.query["dataset"],
        transcript=transcript,
        position=None if position is None else int(position),
        sample=int(sample),
    )
    return f"/explore?{view.query}"


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
