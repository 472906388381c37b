"""What the tests of search share: an encoder without a model, a walk over pages, drawn filters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from nla_core.data.query import Filters, Query, Results
from nla_core.data.search import Search
from nla_core.schema import Flag, Role
from tests.helpers import hash_vectors, transcript_id_of

FACTS = transcript_id_of("facts-001")


def embed(texts: Sequence[str]) -> np.ndarray:
    return hash_vectors(texts)


def every(search: Search, query: Query, limit: int = 7) -> tuple[list[int], list[Results]]:
    """All rows of a query, page by page."""
    found, pages, after = [], [], None
    while True:
        page = search.search(query, limit, after)
        pages.append(page)
        found += [hit.row for hit in page.hits]
        if (after := page.after) is None:
            return found, pages


filters = st.builds(
    Filters,
    roles=st.lists(st.sampled_from([*Role]), max_size=2).map(tuple),
    categories=st.lists(st.sampled_from(["facts", "code", "no such"]), max_size=2).map(tuple),
    tags=st.lists(st.sampled_from(["geography", "code"]), max_size=1).map(tuple),
    flags=st.lists(st.sampled_from([*Flag]), max_size=1).map(tuple),
    no_flags=st.lists(st.sampled_from([*Flag]), max_size=1).map(tuple),
    fve_min=st.none() | st.floats(-2, 1),
    positions=st.tuples(st.none() | st.integers(), st.none() | st.integers()),
)
