"""The frame around every page: navigation, the open dataset, the view in the URL, refusals.

Knows which pages there are, where datasets lie, and how an error is shown. Does not know what a
page draws. The decision a reader would question: `ensure()` stands first on every page, because the
first deep link to a fresh server runs the page file without app.py; it then starts over the proper
way. Security checks belong into it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Final, Literal, ParamSpec

import streamlit as st

from nla_core.data.dataset import Dataset, is_run, mounted, root_of
from nla_core.data.manifest import DATABASE, current_version
from nla_core.errors import NLAError
from nla_core.jobs.store import RunFolder
from nla_core.links import Parsed, ViewState
from nla_core.opened import dataset as open_once
from nla_core.paths import PROJECT
from nla_core.ui.collector import settle
from nla_core.ui.html import draw
from nla_core.ui.keys import keys

ICON: Final = Path(__file__).with_name("icon.svg")
STYLE: Final = Path(__file__).with_name("style.css")

PageName = Literal["explore", "browse", "search", "compare", "audit", "run", "steer", "about"]

P = ParamSpec("P")

MOST_OTHERS: Final = 8
_FRAMED = "_nla_page_is_framed"


def run() -> None:
    """Draw the frame and the page that was asked for. Called by app.py only."""
    st.html(STYLE)
    st.logo(str(ICON), size="small")
    chosen = _navigation()
    st.set_page_config(page_title=f"{chosen.title} · NLA Explorer", page_icon=str(ICON))
    st.session_state[_FRAMED] = True
    keys()
    guarded(chosen.run)()


def ensure() -> None:
    """The first statement of every page: returns if app.py is running it, else starts over."""
    if st.session_state.pop(_FRAMED, False):
        return
    _navigation()
    st.rerun()


# Without icons: Streamlit fetches the icon of a page for the tab from a font server.
_PAGES: Final[dict[PageName, str]] = {
    "explore": "Explore",
    "browse": "Browse",
    "search": "Search",
    "compare": "Compare",
    "audit": "Audit",
    "run": "Run",
    "steer": "Steer",
    "about": "About",
}


def page(name: PageName, *, hidden: bool = False) -> st.Page:
    """A page as Streamlit knows it; its url_path is the file's stem, so that links mean the same
    to Streamlit's own page finder."""
    return st.Page(
        PROJECT / f"pages/{name}.py",
        title=_PAGES[name],
        url_path=name,
        visibility="hidden" if hidden else "visible",
    )


def _navigation() -> st.Page:
    # The default page answers at / alone, hence the second entry for /explore.
    home = st.Page(
        PROJECT / "pages/explore.py", title=_PAGES["explore"], url_path="home", default=True
    )
    others = [page(name) for name in _PAGES if name != "explore"]
    return st.navigation(
        [home, page("explore", hidden=True), *others],
        position="hidden" if embedded() else "top",
    )


def embedded() -> bool:
    """Whether the page is a frame in another one (``?embed=true``): no navigation, no list."""
    return bool(st.context.is_embedded)


# ---- the dataset ---------------------------------------------------------------------------------


def dataset() -> Dataset:
    """The current version of the dataset that the address names, opened once a process.

    The first start builds its database and says so meanwhile. Ends the run with a message where
    there is no dataset to open.
    """
    try:
        return opened(root_of(ViewState.parse(st.query_params).view.dataset))
    except NLAError as error:
        refuse(error)
        st.stop()


def opened(root: Path) -> Dataset:
    """The current version under ``root``. Raises NLAError where there is none to open."""
    version = current_version(root)
    if (root / version / DATABASE).exists():
        return open_once(root, version)
    with st.spinner(
        "Building the database of this dataset. Only the first start does this.", show_time=True
    ):
        return open_once(root, version)


def others(current: Dataset) -> dict[str, Dataset]:
    """Other mounted datasets that open without complaint, by name: ``MOST_OTHERS`` of them, corpora
    before runs and new runs before old ones."""
    found: dict[str, Dataset] = {}
    for name, root in mounted().items():
        if len(found) == MOST_OTHERS:
            break
        if root != current.root:
            with contextlib.suppress(NLAError):
                found[name] = opened(root)
    return found


def dataset_name(root: Path) -> str:
    """What people call it: a run by the name it was given, a corpus by its folder."""
    if is_run(root):
        record = RunFolder(root).read_record() or {}
        name = str((record.get("request") or {}).get("name") or "")
        return f"Run: {name}" if name else root.name
    return root.name


# ---- the view ------------------------------------------------------------------------------------


def resolved(dataset: Dataset) -> Parsed[ViewState]:
    """What the address bar says; a short link to a reading becomes its transcript and token."""
    link = ViewState.parse(st.query_params)
    short = link.view.reading
    if short is None:
        return link
    row = dataset.reading(short)
    view = replace(link.view, reading=None)
    if row is None:
        problem = f"This dataset has no reading “{short}”."
        return replace(link, view=view, problems=(*link.problems, problem))
    view = view.opened(str(row["transcript_id"])).at(int(row["position"]), int(row["sample"]))
    st.query_params.from_dict(view.params())
    return replace(link, view=view)


# ---- refusals ------------------------------------------------------------------------------------


def guarded(draw_it: Callable[P, None]) -> Callable[P, None]:
    """The same function, with a refusal drawn where it raises one. For pages and fragments."""

    @wraps(draw_it)
    def run_it(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            draw_it(*args, **kwargs)
        except NLAError as error:
            refuse(error)
        finally:
            settle()

    return run_it


def refuse(error: NLAError) -> None:
    """What, why and what to do, in place of a traceback."""
    with st.container(key="refusal"):
        draw(
            '<div class="nla-refusal" role="alert"><h2>{what}</h2><p>{why}.</p>'
            '<p class="fix"><b>What to do</b> {fix}.</p></div>',
            what=error.what,
            why=error.why,
            fix=error.fix,
        )


def as_label(text: str) -> str:
    """``text`` for a widget's label, which Streamlit takes for Markdown: every sign escaped."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!$:<>~|&^=])", r"\\\1", " ".join(text.split()))
