"""What is steered on the Steer page: the prompt, the explanation, its edit and its fidelity.

Knows how the address becomes an experiment. Does not know the other settings (steering_controls.py)
nor what comes of it (steering_results.py). The decision a reader would question: the models are
loaded when a text was edited, not when the page is opened; most visitors and all crawlers only
look.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import pandas as pd
import streamlit as st

from nla_core import opened
from nla_core.data.dataset import Dataset
from nla_core.errors import NLAError
from nla_core.jobs.models import configured
from nla_core.links import SteerView
from nla_core.schema import Role, Section
from nla_core.steering.experiment import (
    DEFAULT_TEMPERATURE,
    LONGEST_EDIT,
    LONGEST_PROMPT,
    Edit,
    Experiment,
    carried_over,
    words_of,
)
from nla_core.ui import beside, controls, shell
from nla_core.ui.edit_box import edit_box
from nla_core.ui.html import draw, fill, hint, join
from nla_core.ui.later import signed

CONTEXT_CHARACTERS: Final = 900
EXAMPLE_PROMPT: Final = "The city that I would most like to visit is"
POLL_S: Final = 1.0
UNTOLD: Final = "steer_link_problems"


@dataclass(frozen=True, slots=True)
class Source:
    """What is steered: the pair, the prompt, the token that was read and what was said there.

    ``before`` and ``token`` are shown; ``others`` are explanations of the tokens beside it,
    ``has_answer`` whether the transcript can go on where its answer begins.
    """

    pair: str
    original: str
    prompt: str = ""
    token_ids: tuple[int, ...] = ()
    read_at: int | None = None
    before: str = ""
    token: str = ""
    after: str = ""
    others: tuple[str, ...] = ()
    has_answer: bool = False


# ---- from the address to an experiment -----------------------------------------------------------


def source_of(dataset: Dataset, view: SteerView) -> Source | None:
    """What the view names; None where it names nothing yet.

    Raises NLAError for a transcript or a reading that is not there.
    """
    if view.transcript is None or view.position is None:
        if not view.prompt.strip():
            return None
        pair = view.pair or default_pair(dataset)
        return Source(pair, view.original, prompt=view.prompt, before=view.prompt)
    tokens = dataset.tokens(view.transcript)
    readings = dataset.readings(view.transcript)
    own = readings[readings["position"] == view.position]
    own = own[own["sample"] == view.sample] if (own["sample"] == view.sample).any() else own
    if own.empty:
        raise NLAError(
            "There is no reading to start from",
            why=f"token {view.position} of the transcript {view.transcript} has none here",
            fix="Open a token in Explore and follow “Steer from here”",
        )
    end = answer_start(tokens, view.position)
    stop = end if view.answer and end is not None else view.position + 1
    also = readings[readings["position"].between(*view.also)] if view.also else readings[:0]
    also = also[(also["position"] != view.position) & (also["sample"] == own["sample"].iloc[0])]
    texts = tokens["text"].astype(str).tolist()
    return Source(
        pair=str(dataset.manifest.pair.get("pair_id", "")),
        original=str(own["explanation"].iloc[0]),
        token_ids=tuple(int(i) for i in tokens["token_id"].iloc[:stop]),
        read_at=view.position,
        before="".join(texts[: view.position]),
        token=texts[view.position],
        after="".join(texts[view.position + 1 : stop]),
        others=tuple(also["explanation"].astype(str)),
        has_answer=end is not None,
    )


def default_pair(dataset: Dataset) -> str:
    """The dataset's own pair where it is on this machine, else the first that is."""
    own = str(dataset.manifest.pair.get("pair_id", ""))
    here = configured()
    return own if own in here or not here else next(iter(here))


def answer_start(tokens: pd.DataFrame, position: int) -> int | None:
    """The first token that the assistant says after ``position``; None where it is answering."""
    said = tokens[(tokens["role"] == Role.ASSISTANT) & (tokens["section"] == Section.CONTENT)]
    here = tokens.loc[tokens["position"] == position, "turn"]
    turn = int(here.iloc[0]) if len(here) else -1
    later = said[(said["position"] > position) & (said["turn"] > turn)]
    return None if later.empty else int(later["position"].iloc[0])


def experiment_of(view: SteerView, source: Source) -> Experiment:
    """The experiment as it stands; it may not be one that can be run."""
    edit = Edit(source.original, view.edited or source.original)
    edits = carried_over(edit, source.others) if source.others else (edit,)
    return Experiment(
        pair=source.pair,
        edits=edits,
        prompt=source.prompt,
        token_ids=source.token_ids,
        read_at=source.read_at,
        place=view.place,
        every=not view.prompt_only,
        alphas=view.alphas,
        words=words_of(view.words),
        first_seed=view.first_seed,
        n_seeds=view.seeds,
        new_tokens=view.new_tokens,
        temperature=DEFAULT_TEMPERATURE if view.temperature is None else view.temperature,
    )


# ---- the text and its edit -----------------------------------------------------------------------


def own_prompt(dataset: Dataset, view: SteerView) -> None:
    """A text of one's own instead of a transcript."""

    def begin(**changes: str) -> None:
        controls.change(SteerView, **changes, original="", edited="")

    st.text_area(
        "A text of your own, to be continued",
        max_chars=LONGEST_PROMPT,
        height=80,
        placeholder=EXAMPLE_PROMPT,
        help="The model continues it as it stands; the explanation is that of its last token.",
        **controls.bound("steer_prompt", view.prompt, lambda text: begin(prompt=text.rstrip())),
    )
    pairs = list(configured())
    if len(pairs) > 1:
        now = view.pair or default_pair(dataset)
        st.selectbox(
            "Pair", pairs, **controls.bound("steer_pair", now, lambda pair: begin(pair=pair))
        )


def context(source: Source) -> None:
    """The end of the text up to the token that is read, and what follows it in the prompt."""
    before = source.before
    cut = len(before) > CONTEXT_CHARACTERS
    draw(
        '<div><p class="nla-label">The text so far</p><p class="nla-context">{cut}{before}{token}'
        "{after}</p></div>",
        cut="… " if cut else "",
        before=before[-CONTEXT_CHARACTERS:] if cut else before,
        token=fill("<mark>{text}</mark>", text=source.token) if source.token else "",
        after=source.after,
    )


def missing_reading(view: SteerView, source: Source) -> bool:
    """Ask the verbalizer what the last token of one's own text says; True while that is open."""
    if source.original or not source.prompt:
        return False
    if _models(source.pair):
        _read(view, source)
    return True


def _read(view: SteerView, source: Source) -> None:
    """Put what the verbalizer says of the last token into the address, and begin again."""
    from nla_core.steering.run import said_at

    with st.spinner("Reading the last token"):
        bare = Experiment(source.pair, (), prompt=source.prompt)
        with opened.explainer(source.pair) as explainer:
            said = said_at(explainer, bare)
    if not said:
        raise NLAError(
            "The verbalizer wrote nothing",
            why="its text for the last token is empty",
            fix="Try another text",
        )
    st.session_state[UNTOLD] = controls.read(SteerView).problems  # a tidy link no longer shows them
    controls.show(replace(view, original=said))
    st.rerun()


def editing(view: SteerView, source: Source) -> None:
    """The original, the box, what changed, and how faithful each text is to the vector."""
    draw(
        '<div><p class="nla-label">What the verbalizer says of this token</p>'
        '<p class="nla-said nla-original">{text}</p></div>',
        text=source.original,
    )
    edit_box(
        "What it should say instead",
        view.edited or source.original,
        of=f"{view.transcript}/{view.position}/{view.sample}/{view.preset}/{source.original}"
        f"/{st.session_state.get('steer_resets', 0)}",
        longest=LONGEST_EDIT,
        key="steer_edit",
        # An emptied box is an edit of its own, which is refused; it is not the original again.
        on_change=lambda text: controls.change(
            SteerView, edited="" if text == source.original else text or " "
        ),
    )
    if view.edited and view.edited != source.original:
        old, new = beside.difference(source.original, view.edited)
        draw(
            '<div class="nla-beside nla-edit"><div><p class="nla-label">Taken out</p><p>{old}</p>'
            '</div><div><p class="nla-label">Put in</p><p>{new}</p></div></div>',
            old=old,
            new=new,
        )
        st.button(
            "Back to the original",
            key="steer_reset",
            type="tertiary",
            icon=":material/undo:",
            on_click=_reset,
        )


def _reset() -> None:
    st.session_state["steer_resets"] = st.session_state.get("steer_resets", 0) + 1
    controls.change(SteerView, edited="")


def fidelities(view: SteerView, source: Source, experiment: Experiment) -> None:
    """FVE and cosines of AR(original) and AR(edited) against the true vector."""
    if not view.edited.strip():
        hint("Change a word to see how far the text still fits the vector.")
        return
    if not _models(source.pair):
        return
    from nla_core.steering.run import fidelity_of

    with opened.explainer(source.pair) as explainer:
        found = fidelity_of(explainer, experiment, source.original, view.edited.strip())
    rows = [
        fill(
            "<tr><th scope='row'>{name}</th><td>{fve}</td><td>{cosine}</td><td>{centred}</td></tr>",
            name=name,
            fve=signed(f.fve),
            cosine=signed(f.cosine),
            centred=signed(f.centred_cosine),
        )
        for name, f in zip(("original", "edited"), found, strict=True)
    ]
    draw(
        '<table class="nla-figures"><caption>Rebuilt from the text, against the true vector; '
        "1 would be all of it</caption><thead><tr><td></td>"
        "<th scope='col'>FVE</th><th scope='col'>cosine</th>"
        "<th scope='col'>centred cosine</th></tr></thead><tbody>{rows}</tbody></table>",
        rows=join(rows),
    )
    if len(experiment.edits) > 1 or view.also:
        hint(
            f"Averaged over the edits of {len(experiment.edits)} readings: this one, and those of "
            "the other tokens in which a replaced word stands."
        )


def _models(pair: str) -> bool:
    """Whether the models are there; else says that they are coming, and looks again."""
    if opened.steering().loaded(pair):
        return True

    @st.fragment(run_every=POLL_S)
    @shell.guarded
    def look() -> None:
        if opened.steering().loaded(pair):
            st.rerun()
        hint("Loading the models of the pair (seconds on a laptop for the one that ships) …")

    look()
    return False
