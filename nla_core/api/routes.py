"""The routes under /api/v1/: which questions may be asked, and who answers them.

Knows paths, the parameters of each, and how a refusal becomes a status. Does not know HTTP servers
or Streamlit. The decision a reader would question: parameters are declared in this table and not
read where they are used, so that they can be compared with the OpenAPI file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nla_core.api import browsing, finding, params, wire
from nla_core.api.params import Param
from nla_core.api.shelf import Asked, Shelf
from nla_core.api.wire import Answer, Refusal, Stream
from nla_core.errors import NLAError

PREFIX: Final = "/api/v1"
OPENAPI: Final = Path(__file__).with_name("openapi.json")
DATASET: Final = Param("dataset")

Reply = Answer | Stream


@dataclass(frozen=True, slots=True)
class Route:
    """``path`` is below ``PREFIX``, with names in braces that ``handler`` gets by name."""

    path: str
    handler: Callable[[Asked], Reply]
    params: tuple[Param, ...] = ()


def openapi(asked: Asked) -> Answer:
    return Answer(OPENAPI.read_bytes())


ROUTES: Final = (
    Route("/openapi.json", openapi),
    Route("/datasets", browsing.datasets),
    Route("/datasets/{dataset}", browsing.one_dataset),
    Route("/categories", browsing.categories, (DATASET,)),
    Route("/facets", browsing.facets, (DATASET, *browsing.FILTERS)),
    Route("/transcripts", browsing.transcripts, (DATASET, *browsing.TRANSCRIPT_PARAMS)),
    Route("/transcripts/{transcript_id}", browsing.one_transcript, (DATASET,)),
    Route("/readings", browsing.readings, (DATASET, *browsing.READING_PARAMS)),
    Route("/readings/{reading_id}", browsing.one_reading, (DATASET,)),
    Route("/search", finding.search, (DATASET, *finding.SEARCH_PARAMS)),
    Route("/similar", finding.similar, (DATASET, *finding.SIMILAR_PARAMS)),
    Route("/themes", finding.recurring, (DATASET, *finding.THEME_PARAMS)),
)


def respond(
    route: Route, shelf: Shelf, path: Mapping[str, str], pairs: Iterable[tuple[str, str]]
) -> Reply:
    """Answer one request; every refusal comes back as an answer with its status."""
    try:
        try:
            query = params.read(pairs, route.params)
        except NLAError as error:
            raise Refusal(400, error) from error
        return route.handler(Asked(shelf, path, query))
    except Refusal as refused:
        return wire.refusal(refused.status, refused.error)
    except NLAError as error:  # no dataset, a damaged one, or one that is too slow to answer
        return wire.refusal(503, error)
