"""What the Explore page says about a link, a dataset or itself when that needs words.

Knows the wording. Does not know how a link is read or a transcript found. The decision a reader
would question: a bad link is answered inside the page, with the list beside it and the nearest
transcripts to go to, because whoever follows one wants to get somewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from nla_core.data.dataset import Dataset
from nla_core.errors import NLAError
from nla_core.links import ViewState
from nla_core.ui import controls, shell
from nla_core.ui.html import draw, fill, join


def welcome(dataset: Dataset) -> None:
    """Two sentences for whoever comes without a link."""
    draw(
        '<p class="nla-intro">A natural language autoencoder puts into words what a language model '
        "represents at each token of a conversation, here {target} after block {layer}, and "
        "measures how much of the model’s inner vector those words carry. Point at a token to see "
        "its reading and click it to lock it; the stronger its colour and the thicker its bar, the "
        "more faithful the words.</p>",
        target=target_name(str(dataset.manifest.pair.get("target", "a language model"))),
        layer=dataset.manifest.pair.get("layer", "?"),
    )


def link_problems(problems: Sequence[str]) -> None:
    if problems:
        draw(
            '<div class="nla-notice" role="status"><p><b>This link could not be followed to the '
            "letter.</b></p><ul>{items}</ul></div>",
            items=join([fill("<li>{text}</li>", text=text) for text in problems]),
        )


def problem(error: NLAError) -> None:
    """A refusal that leaves the rest of the page standing."""
    draw(
        '<div class="nla-notice" role="status"><p><b>{what}.</b> {why}.</p><p>{fix}.</p></div>',
        what=error.what,
        why=error.why[:1].upper() + error.why[1:],
        fix=error.fix,
    )


def unknown_transcript(dataset: Dataset, wanted: str) -> None:
    """Says that there is no such transcript, and offers those that may have been meant."""
    draw(
        '<div class="nla-notice" role="alert"><p><b>There is no transcript “{wanted}” in this '
        "dataset.</b></p><p>The link may have been cut or mistyped, or it belongs to another "
        "dataset than {name} {version}.</p></div>",
        wanted=wanted if len(wanted) <= 80 else wanted[:79] + "…",
        name=dataset.root.name,
        version=dataset.version,
    )
    nearest = dataset.nearest_transcripts(wanted)
    if nearest.empty:
        return
    with st.container(key="nearest", gap=None):
        draw('<p class="nla-label">Nearest transcripts</p>')
        for row in nearest.to_dict("records"):
            st.button(
                shell.as_label(f"{row['title']} ({row['prompt_id']})"),
                key=f"nearest_{row['transcript_id']}",
                icon=":material/arrow_forward:",
                type="tertiary",
                on_click=_open,
                args=(row["transcript_id"],),
            )


def position_beyond(asked: int | None, position: int | None) -> None:
    """Says so where a link asks for a token that its transcript does not have."""
    if asked is None or position is None or asked == position:
        return
    draw(
        '<div class="nla-notice" role="status"><p>This transcript has no token {asked}: its tokens '
        "are numbered 0 to {last}. The last one is shown instead.</p></div>",
        asked=asked,
        last=position,
    )


def empty_dataset() -> None:
    draw(
        '<div class="nla-refusal" role="alert"><h2>This dataset has no transcripts.</h2>'
        '<p class="fix"><b>What to do</b> Explain some prompts with '
        "<code>python -m precompute run</code>; its <code>--help</code> has an example.</p></div>"
    )


def target_name(spec: str) -> str:
    """The model in a target's spec: its file or folder, without the way to it."""
    return spec.rsplit("#", 1)[-1].rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf")


def _open(transcript_id: str) -> None:
    controls.go(ViewState, lambda view: view.opened(transcript_id))
