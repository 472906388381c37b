"""Audit: one question over a whole corpus; what is held, what was said, what never was.

Knows how the URL becomes what is on the page. Does not know how anything is counted. The decision a
reader would question: concepts, foresight and unspoken claims stand on one page, because an auditor
comes with a suspicion and not with a method.
"""

from __future__ import annotations

import streamlit as st

from nla_core.analysis import concepts as watchlist
from nla_core.data.dataset import Dataset
from nla_core.errors import NLAError
from nla_core.links import AuditView, Parsed
from nla_core.ui import auditing, controls, facets, meaning, notices, shell
from nla_core.ui.html import draw, hint
from nla_core.ui.matches import matches
from nla_core.ui.watchlist_editor import editor

shell.ensure()


def audit(dataset: Dataset, link: Parsed[AuditView]) -> None:
    view = link.view
    with st.sidebar:
        facets.mounted(dataset)
        auditing.sidebar(dataset, view)
    notices.link_problems(link.problems)
    concepts, own = watchlist.watchlist()
    with st.container(horizontal=True, vertical_alignment="bottom", key="title_row"):
        draw(
            '<div class="nla-head"><h1>What the explanations hold, over the whole corpus</h1></div>'
        )
        editor(concepts, own)
    if dataset.manifest.counts["readings"] == 0:
        notices.empty_dataset()
        return
    try:
        scores = meaning.scores(dataset, concepts)
    except NLAError as error:
        notices.problem(error)
        return
    table = auditing.table_of(scores, view)
    auditing.concepts(dataset, scores, table, view)
    matches(dataset, scores, view)
    try:
        claims = meaning.claims(dataset)
    except NLAError as error:
        hint(f"{error.fix}.")
    else:
        auditing.leaderboard(dataset, claims, view)
    auditing.foreseen(dataset, view)


audit(shell.dataset(), controls.read(AuditView))
