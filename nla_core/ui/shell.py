"""The frame around every page: navigation, the open dataset, the view in the URL, refusals.

Knows which pages there are, where the dataset lies, and how an error is shown. Does not know what a
page draws. The decision a reader would question: `ensure()` stands first on every page, because the
first deep link to a fresh server runs the page file without app.py; it then starts over the proper
way. Security checks belong into it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Final, ParamSpec

import streamlit as st

from nla_core import refs
from nla_core.errors import NLAError
from nla_core.store.dataset import Dataset
from nla_core.store.manifest import DATABASE, current_version
from nla_core.ui.html import draw

PROJECT: Final = Path(__file__).resolve().parents[2]
ICON: Final = Path(__file__).with_name("icon.svg")
STYLE: Final = Path(__file__).with_name("style.css")
DATA_VARIABLE: Final = "NLA_DATA"

P = ParamSpec("P")

_FRAMED = "_nla_page_is_framed"


def run() -> None:
    """Draw the frame and the page that was asked for. Called by app.py only."""
    st.html(STYLE)
    st.logo(str(ICON), size="small")
    page = _navigation()
    st.session_state[_FRAMED] = True
    guarded(page.run)()


def ensure() -> None:
    """The first statement of every page: returns if app.py is running it, else starts over."""
    if st.session_state.pop(_FRAMED, False):
        return
    _navigation()
    st.rerun()


def _navigation() -> st.Page:
    # url_path is the file's stem, so that links mean the same to Streamlit's own page finder. The
    # default page answers at / alone, hence the second entry for /explore.
    explore = PROJECT / "pages/explore.py"
    return st.navigation(
        [
            st.Page(
                explore,
                title="Explore",
                icon=":material/grid_view:",
                url_path="home",
                default=True,
            ),
            st.Page(explore, title="Explore", url_path="explore", visibility="hidden"),
            st.Page(
                PROJECT / "pages/about.py",
                title="About",
                icon=":material/info:",
                url_path="about",
            ),
        ],
        position="top",
    )


# ---- the dataset ---------------------------------------------------------------------------------


def dataset_root() -> Path:
    """Where the dataset lies that this server shows."""
    return Path(os.environ.get(DATA_VARIABLE) or PROJECT / "data/demo")


def dataset() -> Dataset:
    """The current version of the dataset, opened once a process.

    The first start builds its database and says so meanwhile. Ends the run with a message where
    there is no dataset to open.
    """
    root = dataset_root()
    try:
        version = current_version(root)
        if (root / version / DATABASE).exists():
            return _open(str(root), version)
        with st.spinner(
            "Building the database of this dataset. Only the first start does this.", show_time=True
        ):
            return _open(str(root), version)
    except NLAError as error:
        refuse(error)
        st.stop()


@st.cache_resource(show_spinner=False, max_entries=2)
def _open(root: str, version: str) -> Dataset:
    return Dataset.open(Path(root), version)


# ---- the view ------------------------------------------------------------------------------------


def read_link() -> refs.Parsed:
    """What the address bar says, and what was wrong with it."""
    return refs.parse(st.query_params)


def go(change: Callable[[refs.ViewState], refs.ViewState]) -> None:
    """Put a changed view into the address bar. For callbacks: the run that follows draws it."""
    st.query_params.from_dict(change(read_link().view).params())


# ---- refusals ------------------------------------------------------------------------------------


def guarded(draw_it: Callable[P, None]) -> Callable[P, None]:
    """The same function, with a refusal drawn where it raises one. For pages and fragments."""

    @wraps(draw_it)
    def run_it(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            draw_it(*args, **kwargs)
        except NLAError as error:
            refuse(error)

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
