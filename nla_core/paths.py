"""Where the program's own files lie, and where what people make with it is kept.

In a checkout both are the project's folder. An installed package has its pages, its pair and its
demo beside the code, where nothing is written, and keeps runs in the user's own data folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_AROUND: Final = Path(__file__).resolve().parents[1]
INSTALLED: Final = not (_AROUND / "app.py").is_file()
PROJECT: Final = _AROUND / "nla_explorer" if INSTALLED else _AROUND
"""Holds app.py, pages/, data/ and .streamlit/, as the repository does."""

HOME_VARIABLE: Final = "NLA_HOME"
"""Folder of runs, edited watchlists and verdicts."""


def home() -> Path:
    """The folder that is written to: `NLA_HOME`, else `data/` of a checkout or the user's own."""
    if named := os.environ.get(HOME_VARIABLE):
        return Path(named)
    if not INSTALLED:
        return PROJECT / "data"
    shared = os.environ.get("XDG_DATA_HOME")
    return (Path(shared) if shared else Path.home() / ".local" / "share") / "nla-explorer"
