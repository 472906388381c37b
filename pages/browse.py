"""Browse: the corpus as cards or as a table, narrowed by facets.

Knows the controls of the page and that each of them is a field of the view. Does not know how
transcripts are counted or drawn. The decision a reader would question: opening a transcript goes to
Explore with the same filters in its address, so that Back leads to the same place in the list.
"""

from __future__ import annotations

import streamlit as st

from nla_core.data.dataset import Dataset
from nla_core.links import Parsed, ViewState
from nla_core.ui import browser, controls, facets, notices, shell

shell.ensure()


def browse(dataset: Dataset, link: Parsed[ViewState]) -> None:
    view = link.view
    counts = dataset.facets(**facets.filters(view))
    with st.sidebar:
        facets.mounted(dataset)
        facets.facets(counts, view)
    notices.link_problems(link.problems)
    total = dataset.count_transcripts(**facets.filters(view))
    browser.heading(dataset, view, total)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="list_row"):
        facets.words(view)
        facets.order(view)
        browser.layout(view)
    facets.chosen(view)
    if total == 0:
        browser.nothing(dataset, view)
        return
    rows = dataset.transcripts(
        sort=view.sort,
        descending=view.descending,
        limit=browser.PAGE + 1,
        after=view.after,
        **facets.filters(view),
    )
    if rows.empty and view.after is not None:
        controls.change(ViewState, after=None)
        st.rerun()
    if view.layout == "table":
        browser.table(rows.head(browser.PAGE), view)
    else:
        browser.grid(rows.head(browser.PAGE), view)
    browser.pages(rows, view)
    browser.by_category(counts, view)


browse(shell.dataset(), controls.read(ViewState))
