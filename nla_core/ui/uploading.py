"""Prompts from a file: chosen, looked at before anything is run, columns mapped by hand.

Knows how an upload is shown. Does not know how a file is read. The decision a reader would
question: a file with mistakes is shown with its good prompts, and can be run without the bad ones
only after a person has said so.
"""

from __future__ import annotations

from typing import Final

import pandas as pd
import streamlit as st

from nla_core.errors import NLAError
from nla_core.jobs.request import RunPrompt
from nla_core.jobs.settings import Limits
from nla_core.jobs.uploads import SUFFIXES, Columns, Split, Upload, read_upload
from nla_core.schema import Role
from nla_core.ui.html import draw, fill, hint, join

SPLITS: Final[dict[Split, str]] = {
    "line": "Every line is a prompt",
    "paragraph": "Every paragraph is a prompt",
    "file": "The whole file is one prompt",
}
SHOWN: Final = 50
LONGEST_SHOWN: Final = 160
_NONE: Final = "—"


def upload(limits: Limits) -> tuple[RunPrompt, ...]:
    """Draw the chooser and the preview; the prompts to run. Raises NLAError for a file that cannot
    be read at all."""
    file = st.file_uploader(
        "File with prompts",
        key="upload",
        help=f"{', '.join(SUFFIXES)}; up to {limits.upload_bytes / 1e6:g} MB and "
        f"{limits.prompts} prompts. A table needs a column with the prompt, or one with messages "
        'in the form [{"role": "user", "content": "…"}].',
    )
    if file is None:
        hint(
            "Text, Markdown, JSON lines, CSV, Parquet, or the log of an evaluation in Inspect’s "
            "JSON form. Nothing is run before you have seen what was found in it."
        )
        return ()
    data = file.getvalue()
    split: Split | None = None
    if file.name.lower().endswith((".txt", ".md")):
        split = st.segmented_control(
            "How it is cut",
            list(SPLITS),
            default="file" if file.name.lower().endswith(".md") else "line",
            required=True,
            key="upload_split",
            format_func=lambda name: SPLITS[name],
        )
    found = read_upload(file.name, data, limits, split=split)
    mapping = _mapping(found, file.file_id)
    if mapping != found.mapping:
        found = read_upload(file.name, data, limits, split=split, mapping=mapping)
    return _preview(found)


def _mapping(found: Upload, file_id: str) -> Columns:
    if not found.columns:
        return found.mapping
    guess = found.mapping
    options = [_NONE, *found.columns]
    chosen: dict[str, str | None] = {}
    with st.container(horizontal=True, gap="small", key="upload_columns"):
        for field, words in (
            ("text", "Prompt"),
            ("messages", "Messages"),
            ("system", "System prompt"),
            ("title", "Title"),
        ):
            at = getattr(guess, field)
            value = st.selectbox(
                words,
                options,
                index=options.index(at) if at in options else 0,
                key=f"upload_{field}_{file_id}",  # what was chosen for one file is not for the next
            )
            chosen[field] = None if value == _NONE else value
    if not (chosen["text"] or chosen["messages"]):
        raise NLAError(
            f"It is not clear which column of {found.name} holds the prompts",
            why=f"its columns are {', '.join(c[:40] for c in found.columns[:20])}",
            fix="Choose one for Prompt, or one for Messages",
        )
    return Columns(**chosen)


def _preview(found: Upload) -> tuple[RunPrompt, ...]:
    prompts = found.prompts
    repeated = f", {found.repeated} repeated and taken once" if found.repeated else ""
    draw(
        '<p class="nla-label">{n} prompt{s} in {name}{repeated}</p>',
        n=len(prompts),
        s="" if len(prompts) == 1 else "s",
        name=found.name,
        repeated=repeated,
    )
    if prompts:
        shown = prompts[:SHOWN]
        titled = {"title": [p.title for p in shown]} if any(p.title for p in shown) else {}
        st.dataframe(
            pd.DataFrame(
                {
                    "where": [p.where.removeprefix(f"{found.name} ") for p in shown],
                    **titled,
                    "prompt": [_words(p) for p in shown],
                    "turns": [len(p.messages) or 1 for p in shown],
                    "characters": [p.n_characters for p in shown],
                }
            ),
            hide_index=True,
            height="auto" if len(prompts) <= 6 else 240,
            key="upload_preview",
        )
        if len(prompts) > SHOWN:
            hint(f"The first {SHOWN} are shown.")
    if not found.n_problems:
        return prompts
    draw(
        '<div class="nla-notice" role="status"><p><b>{n} line{s} cannot be used.</b></p>'
        "<ul>{items}</ul></div>",
        n=found.n_problems,
        s="" if found.n_problems == 1 else "s",
        items=join([fill("<li>{text}</li>", text=text) for text in found.problems]),
    )
    if prompts and st.checkbox("Run the others without them", key="upload_without"):
        return prompts
    return ()


def _words(prompt: RunPrompt) -> str:
    """The last thing that a person says in it, on one line; the system prompt is not it."""
    said = [m["content"] for m in prompt.messages if m["role"] == Role.USER]
    text = " ".join((prompt.text if prompt.text is not None else (said or [""])[-1]).split())
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
