"""Search: readings by words, by meaning or by both, each hit a permalink.

Knows how the URL becomes a query and back. Does not know how anything is found or drawn. The
decision a reader would question: it searches as one types; what is typed is the address, so every
result list can be passed on.
"""

from __future__ import annotations

import streamlit as st

from nla_core.data.dataset import Dataset
from nla_core.errors import NLAError
from nla_core.links import Parsed, SearchView
from nla_core.ui import controls, facets, finder, hits, notices, shell

shell.ensure()


def search(dataset: Dataset, link: Parsed[SearchView]) -> None:
    view = link.view
    with st.sidebar:
        facets.mounted(dataset)
        finder.filters(dataset, view)
    notices.link_problems(link.problems)
    finder.box(view)
    finder.reference(dataset, view)
    if view.empty:
        finder.invitation(dataset)
        return
    place = st.empty()
    first = finder.at_once(dataset, view)
    if first is not None and first.hits:
        with place.container():
            hits.hits(first, view, key="first_hits")
    try:
        found = finder.results(dataset, view)
    except NLAError as error:
        notices.problem(error)
        return
    place.empty()
    hits.summary(dataset, view, found)
    if not found.hits:
        hits.nothing(found, view)
        return
    hits.hits(found, view)
    hits.pages(found, view)


search(shell.dataset(), controls.read(SearchView))
