"""The routes under /api/v1/: which questions may be asked, and who answers them.

Knows paths, the parameters of each, and how a refusal becomes a status. Does not know HTTP servers
or Streamlit. The decision a reader would question: parameters are declared in this table and not
read where they are used, so that they can be compared with the OpenAPI file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from nla_core.api import browsing, finding, params, running, wire
from nla_core.api.guard import NOBODY, Sent
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
    """``path`` is below ``PREFIX``, with names in braces that ``handler`` gets by name.

    What is not asked with GET costs something or changes something, and is guarded.
    """

    path: str
    handler: Callable[[Asked], Reply]
    params: tuple[Param, ...] = ()
    method: Literal["GET", "POST", "PATCH", "DELETE"] = "GET"

    @property
    def is_guarded(self) -> bool:
        return self.method != "GET"


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
    Route("/runs", running.runs, running.LIST_PARAMS),
    Route("/runs", running.submit, method="POST"),
    Route("/runs/estimate", running.estimate, method="POST"),
    Route("/runs/limits", running.limits),
    Route("/runs/pairs", running.pairs),
    Route("/runs/{run_id}", running.one_run),
    Route("/runs/{run_id}", running.rename, method="PATCH"),
    Route("/runs/{run_id}", running.delete, method="DELETE"),
    Route("/runs/{run_id}/events", running.events, running.EVENT_PARAMS),
    Route("/runs/{run_id}/export", running.export),
    Route("/runs/{run_id}/cancel", running.cancel, method="POST"),
    Route("/runs/{run_id}/retry", running.retry, method="POST"),
)


def respond(
    route: Route,
    shelf: Shelf,
    path: Mapping[str, str],
    pairs: Iterable[tuple[str, str]],
    sent: Sent = NOBODY,
) -> Reply:
    """Answer one request; every refusal comes back as an answer with its status."""
    try:
        try:
            query = params.read(pairs, route.params)
        except NLAError as error:
            raise Refusal(400, error) from error
        return route.handler(Asked(shelf, path, query, sent))
    except Refusal as refused:
        return wire.refusal(refused.status, refused.error)
    except NLAError as error:  # no dataset, a damaged one, one that is too slow to answer, no queue
        return wire.refusal(503, error)
