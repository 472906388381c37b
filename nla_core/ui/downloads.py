"""Taking readings away: the format chosen, the file made when it is asked for.

Knows the formats in words. Does not know how a file is written. The decision a reader would
question: a file is made at the click, not with the page, so that browsing does not pay for files
nobody wants.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import pandas as pd
import streamlit as st

from nla_core.data.dataset import Dataset
from nla_core.exports import MIME, Format, Provenance, encoded, readings_of
from nla_core.ui.html import hint

FORMATS: Final[dict[Format, str]] = {
    "csv": "CSV, for a spreadsheet",
    "jsonl": "JSON lines, for a program",
    "parquet": "Parquet, for pandas and DuckDB",
    "txt": "Plain dump, for grep and for agents",
}


def popover(dataset: Dataset, transcript_id: str, span: tuple[int, int] | None) -> None:
    """Downloads of a transcript's readings, or of those in the marked range."""
    what = f"transcript-{transcript_id}"
    if span is not None:
        what += f"-tokens-{span[0]}-{span[1]}"
    with st.popover("Download", icon=":material/download:", key="download_popover"):
        hint(
            "Every reading of "
            + ("this transcript" if span is None else f"tokens {span[0]} to {span[1]}")
            + ". Each file says which dataset and which pair it comes from."
        )
        buttons(dataset, what, lambda: readings_of(dataset, transcript_id, span))


def buttons(
    dataset: Dataset,
    name: str,
    rows: Callable[[], pd.DataFrame],
    formats: tuple[Format, ...] = ("csv", "jsonl", "parquet", "txt"),
    key: str = "download",
) -> None:
    """One button a format; ``rows`` is asked when one is pressed."""
    source = Provenance.of(dataset)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{source.dataset}-{name}")[:80]

    def maker(kind: Format) -> Callable[[], bytes]:
        return lambda: encoded(rows(), source, kind)

    for kind in formats:
        st.download_button(
            FORMATS[kind],
            data=maker(kind),
            file_name=f"{stem}.{kind}",
            mime=MIME[kind],
            key=f"{key}_{kind}",
            type="tertiary",
            on_click="ignore",
        )
