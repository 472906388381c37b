"""Two readings side by side: what both say, what only one says.

Knows how two texts are set beside each other. Does not know where they come from: two tokens, two
samples, two layers, or the same prompt with one word changed. The decision a reader would question:
words are compared and not characters; half a word in common means nothing.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

import pandas as pd
import streamlit as st

from nla_core import opened
from nla_core.data.dataset import Dataset
from nla_core.difference import Difference, Place, read_difference
from nla_core.errors import NLAError
from nla_core.ui import gate, notices
from nla_core.ui.html import Piece, draw, fill, hint, join
from nla_core.ui.later import signed

_WORD = re.compile(r"\s+|[^\W_]+|[\W_]")


def beside(left: pd.Series, right: pd.Series) -> None:
    """``left`` and ``right`` are rows of ``Dataset.reading``."""
    marked = difference(str(left["explanation"]), str(right["explanation"]))
    draw(
        '<div class="nla-beside">{left}{right}</div>',
        left=_side(left, marked[0], "Pinned"),
        right=_side(right, marked[1], "This one"),
    )


def of_vectors(dataset: Dataset, left: pd.Series, right: pd.Series) -> None:
    """Ask the verbalizer for the difference of the two vectors; the models are loaded for it."""
    both = (str(left["reading_id"]), str(right["reading_id"]))
    st.button(
        "Read the difference of the two vectors",
        key="read_difference",
        icon=":material/difference:",
        help="Loads the pair, takes both vectors again and lets the verbalizer read their "
        "difference. Seconds on a laptop for the pair that ships.",
        on_click=lambda: st.session_state.update(nla_difference=both),
    )
    if st.session_state.get("nla_difference") != both or not gate.allowed():
        return
    with st.spinner("Loading the pair and reading the difference", show_time=True):
        try:
            found = _read(dataset, dataset.version, *both)
        except NLAError as error:
            notices.problem(error)
            return
    draw(
        '<div><p class="nla-label">What the second has beyond the first</p>'
        '<p class="nla-said">{text}{cut}</p></div>',
        text=found.explanation or "(the verbalizer wrote nothing)",
        cut=" […]" if found.cut else "",
    )
    hint(
        f"Cosine of the rebuilt difference and the real one: {signed(found.cosine)}; of the two "
        f"vectors themselves: {signed(found.alike)}. The pair was not trained on differences."
    )


@st.cache_data(show_spinner=False, max_entries=256)
def _read(_dataset: Dataset, version: str, left: str, right: str) -> Difference:
    places = []
    for reading_id in (left, right):
        row = _dataset.reading(reading_id)
        if row is None:
            raise NLAError(
                f"There is no reading {reading_id}",
                why="this dataset has none of that id",
                fix="Pin another reading",
            )
        ids = _dataset.tokens(row["transcript_id"])["token_id"].tolist()
        places.append(Place(ids, int(row["position"])))
    pair = str(_dataset.manifest.pair.get("pair_id", ""))
    with opened.explainer(pair) as explainer:
        return read_difference(explainer, *places)


def difference(left: str, right: str) -> tuple[Piece, Piece]:
    """Both texts, the words that the other does not have in that place marked."""
    a, b = _WORD.findall(left), _WORD.findall(right)
    sides: tuple[list[Piece], list[Piece]] = ([], [])
    matcher = SequenceMatcher(
        a=[w.casefold() for w in a], b=[w.casefold() for w in b], autojunk=False
    )
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        for side, words, low, high in ((0, a, a0, a1), (1, b, b0, b1)):
            text = "".join(words[low:high])
            if not text:
                continue
            if kind == "equal" or not text.strip():
                sides[side].append(fill("{text}", text=text))
            else:
                template = "<ins>{text}</ins>" if side else "<del>{text}</del>"
                sides[side].append(fill(template, text=text))
    return join(sides[0]), join(sides[1])


def _side(row: pd.Series, text: Piece, name: str) -> Piece:
    return fill(
        '<div><p class="nla-label">{name}: {token} · token {position} of “{title}” · FVE {fve}</p>'
        "<p>{text}</p></div>",
        name=name,
        token=str(row["token"]).strip() or "␣",
        position=int(row["position"]),
        title=row["title"],
        fve=signed(float(row["fve"])),
        text=text,
    )
