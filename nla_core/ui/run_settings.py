"""How a run is made: pair, positions, samples, temperatures, seeds, and how long it will take.

Knows the controls and what they become. Does not know how anything is run. The decision a reader
would question: positions are marked on the prompt as the target's tokenizer cuts it, in the same
strip that readings are shown in, so that what is marked is what is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import streamlit as st

from nla_core.errors import NLAError
from nla_core.jobs.request import Positions, RunPrompt, RunRequest, Sampling, Which
from nla_core.readings import Said, Token
from nla_core.ui import transcripts
from nla_core.ui.html import hint
from nla_core.ui.token_strip import Drawing, token_strip

if TYPE_CHECKING:
    from nla_core.jobs.estimate import Estimate
    from nla_core.jobs.runner import JobRunner

WHICH: Final[dict[Which, str]] = {
    Which.ALL: "Every token",
    Which.ANSWER: "The answer only",
    Which.LAST: "The last tokens",
    Which.EVERY: "Every k-th token",
    Which.LIST: "Marked tokens",
}
MARKED: Final = "_nla_marked"
HOTTEST: Final = 2.0
_LAST: Final = "_nla_last_request"


def begin_with(request: RunRequest) -> None:
    """The controls as this request has them, when they are drawn next.

    What is not drawn forgets, and an edited prompt must differ from the first one in nothing else.
    """
    st.session_state[_LAST] = replace(request, prompts=request.prompts[:1])


def settings(runner: JobRunner, prompts: Sequence[RunPrompt]) -> RunRequest | None:
    """Draw the controls; the request they make, None while there are no prompts.

    Raises NLAError for settings that contradict each other.
    """
    names = list(runner.pairs.names())
    if not names:
        raise NLAError(
            "There is no pair to run",
            why="data/nla is empty and NLA_PAIRS names no folder",
            fix="Put a pair under data/nla, or name its folder in NLA_PAIRS",
        )
    last: RunRequest | None = st.session_state.get(_LAST)
    begun = Positions() if last is None else last.positions
    with st.container(horizontal=True, gap="small", key="run_main_settings"):
        pair = st.selectbox(
            "Pair",
            names,
            index=names.index(last.pair) if last is not None and last.pair in names else 0,
            key="run_pair",
            help="The model that answers, and the verbalizer and reconstructor that were trained "
            "on one layer of it. Pairs lie under data/nla, or where NLA_PAIRS says. "
            f"Runs on {' and '.join(runner.settings.device_names)}.",
        )
        which = st.selectbox(
            "Tokens to read",
            list(WHICH),
            index=list(WHICH).index(begun.which),
            key="run_which",
            format_func=lambda value: WHICH[value],
            help="Each token that is read costs a text of its own, and so the time. Reading the "
            "answer or the last tokens only is quicker.",
        )
        n = 0
        if which in (Which.LAST, Which.EVERY):
            words = "How many" if which is Which.LAST else "k"
            usual = begun.n if which is begun.which else 8 if which is Which.LAST else 4
            n = st.number_input(words, 1, 10_000, min(usual, 10_000), key=f"run_n_{which}")
        new = st.number_input(
            "New tokens",
            0,
            runner.limits.new_tokens,
            min(32 if last is None else last.target.max_tokens, runner.limits.new_tokens),
            key="run_new",
            help="Longest answer of the model; with 0 the prompt is read as it stands.",
        )
    at = _marked(runner, pair, prompts) if which is Which.LIST else ()
    with st.expander("Sampling", key="run_sampling"):
        target, verbalizer, samples = _sampling(runner, new, last)
    if not prompts:
        return None
    if which is Which.LIST and not at:
        hint("Drag over the tokens above to mark those to be read, or hold Shift and press arrows.")
        return None
    request = RunRequest(
        pair=pair,
        prompts=tuple(prompts),
        positions=Positions(which, n, at),
        samples=samples,
        target=target,
        verbalizer=verbalizer,
    )
    begin_with(request)
    return request


def _sampling(
    runner: JobRunner, new: int, last: RunRequest | None
) -> tuple[Sampling, Sampling, int]:
    limits = runner.limits
    model = Sampling(new) if last is None else last.target
    begun = Sampling(56) if last is None else last.verbalizer
    most = 1 if last is None else last.samples
    with st.container(horizontal=True, gap="small", key="target_settings"):
        temperature = st.number_input(
            "Temperature of the model",
            0.0,
            HOTTEST,
            min(model.temperature, HOTTEST),
            0.1,
            key="run_target_temperature",
            help="Of the answer. 0 is greedy: the likeliest token each time.",
        )
        seed = st.number_input("Seed of the model", 0, 2**31 - 1, model.seed, key="run_target_seed")
    with st.container(horizontal=True, gap="small", key="verbalizer_settings"):
        samples = st.number_input(
            "Samples a token",
            1,
            limits.samples,
            min(most, limits.samples),
            key="run_samples",
            help="How many texts are written of each vector. What several of them say is worth "
            "more than what one says.",
        )
        usual = begun.temperature if (samples > 1) == (most > 1) else 0.7 if samples > 1 else 0.0
        own = st.number_input(
            "Temperature of the verbalizer",
            0.0,
            HOTTEST,
            min(usual, HOTTEST),
            0.1,
            key=f"run_verbalizer_temperature_{samples > 1}",
            help="0 is greedy: the one text it finds most likely.",
        )
        own_seed = st.number_input(
            "Seed of the verbalizer", 0, 2**31 - 1, begun.seed, key="run_seed"
        )
        longest = st.number_input(
            "Longest explanation, tokens",
            1,
            limits.explanation_tokens,
            min(begun.max_tokens, limits.explanation_tokens),
            key="run_longest",
        )
    return Sampling(new, temperature, seed), Sampling(longest, own, own_seed), samples


def _marked(runner: JobRunner, pair: str, prompts: Sequence[RunPrompt]) -> tuple[int, ...]:
    """The positions that are marked on the one prompt there is."""
    if len(prompts) != 1:
        hint("Tokens can be marked where there is one prompt.")
        return ()
    with st.spinner("Opening the tokenizer"):
        pieces = runner.pairs.tokens(pair).pieces(prompts[0])
    tokens = tuple(
        Token(i, p.token_id, p.chip, p.text, p.role, p.section, p.turn, 0.0, 0.0, None, (), ())
        for i, p in enumerate(pieces)
    )
    view = transcripts.live_view(Said("prompt", (), tokens, 0, "none"), "", ())
    strip_id = f"prompt/{pair}/{hash(tuple((p.token_id, p.section) for p in pieces))}"
    marked: dict[str, tuple[int, ...]] = st.session_state.setdefault(MARKED, {})
    at = marked.get(strip_id, ())

    def mark(span: tuple[int, int] | None) -> None:
        found = () if span is None else tuple(range(span[0], span[1] + 1))
        st.session_state[MARKED] = {strip_id: found}

    token_strip(
        Drawing.of(view, strip_id=strip_id, unread="Drag over tokens to mark those to be read."),
        colour=_PLAIN | {"values": [None] * len(view.chips)},
        locked=None,
        span=(at[0], at[-1]) if at else None,
        markup=True,
        reveal=False,
        on_lock=lambda position: mark(None if position is None else (position, position)),
        on_span=mark,
        key="prompt_strip",
    )
    if at:
        many = f"{len(at)} tokens are marked: {at[0]} to {at[-1]}."
        hint(many if len(at) > 1 else f"Token {at[0]} is marked.")
    return at


_PLAIN: Final = {
    "id": "prompt",
    "name": "The prompt as the model reads it",
    "short": "",
    "low": 0.0,
    "high": 1.0,
    "zero": 0.0,
    "ends": ["", ""],
    "hits": [],
    "hitWords": "",
}


def in_words(request: RunRequest) -> str:
    """The settings of a run in one line."""
    where, new = request.positions, request.target.max_tokens
    which = {
        Which.LAST: f"the last {where.n} tokens" if where.n > 1 else "the last token",
        Which.EVERY: f"one token of {where.n}",
        Which.LIST: f"{len(where.at)} marked token" + "s" * (len(where.at) > 1),
    }.get(where.which, WHICH[where.which].lower())
    own = request.verbalizer.temperature
    samples = f"{request.samples} samples a token, " if request.samples > 1 else ""
    heat = f"verbalizer at temperature {own:g}" if own else "greedy"
    answer = f"at most {new} new token{'' if new == 1 else 's'}" if new else "without an answer"
    return f"{which} · {answer} · {samples}{heat}"


def told(estimate: Estimate) -> str:
    """How long it will take, in words."""
    if estimate.seconds is None or estimate.low is None or estimate.high is None:
        return (
            "Not known yet how long it will take: this machine has not run the pair before. "
            "The first batch is measured."
        )
    basis = {
        "past runs": "from past runs on this machine",
        "warm-up": "a first guess, from a few steps",
    }
    return (
        f"About {duration(estimate.seconds)} ({duration(estimate.low)} to "
        f"{duration(estimate.high)}; {basis.get(estimate.basis, '')})."
    )


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
