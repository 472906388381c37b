"""What is written about a transcript and about one of its tokens.

Knows how a reading is laid out: its text with the quotes as they came, its numbers with what they
are measured against, its flags in plain words. Does not know the URL; steps are reported to the
caller. The decision a reader would question: FVE never stands alone; the panel carries its
denominator one tap away, because the variant with another denominator looks better and is not the
same number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import streamlit as st

from nla_core.schema import FLAG_TEXT, Finish, Flag, Role
from nla_core.ui import charts
from nla_core.ui.copy_link import copy_link
from nla_core.ui.html import Piece, draw, fill, join
from nla_core.ui.token_strip import FLAG_NAME, was_painted
from nla_core.ui.transcript_view import ReadingFacts, TokenFacts, TranscriptView

WHO: Final = {Role.SYSTEM: "system prompt", Role.USER: "user", Role.ASSISTANT: "answer"}
FINISH: Final = {"length": "answer cut at its length limit", "none": "no answer"}

NUMBERS_HELP: Final = """
**FVE**, the fraction of variance explained, says how much of the vector the text carries. The text
is turned back into a vector, and

> FVE = 1 − mse_nrm ÷ rawvar{worked}

*mse_nrm* is the squared distance between the rebuilt and the real vector, both scaled to one
length: 0 is the same direction, 2 is unrelated, 4 is opposite. The denominator *rawvar* is how far
this pair’s vectors of ordinary text lie from their own average{rawvar}. So 1 is a perfect copy, 0
is as good as answering with the average vector, and below 0 the text misleads.

**Cosine** compares the two directions. It is high for almost any pair of vectors of one model, so
compare **centred cosine**, where the average is taken out first.

**‖h‖** is the length of the vector and its percentile among ordinary vectors. **Surprisal** says
how unexpected this token was to the model, in nats (0 = certain).
"""


def heading(view: TranscriptView) -> None:
    facts = [view.category, f"{len(view.tokens)} tokens"] if view.tokens else [view.category]
    if view.readings:
        facts.append(f"{sum(map(len, view.readings.values()))} readings")
    if not view.failed and view.answer_finish in FINISH:
        facts.append(FINISH[view.answer_finish])
    facts += [view.prompt_id, *(f"#{tag}" for tag in view.tags)]
    draw(
        '<div class="nla-head"><h1>{title}</h1><div class="facts">{facts}</div></div>',
        title=view.title,
        facts=join([fill("<span>{fact}</span>", fact=fact) for fact in facts]),
    )


def fidelity_along(view: TranscriptView, locked: int | None) -> None:
    """FVE over the whole transcript: where it can be read well, and where the reader stands."""
    with st.container(key="along", gap=None):
        draw('<p class="nla-label">Fidelity (FVE) along the transcript</p>')
        _chart(
            charts.fidelity_line(*view.fidelity_line(), locked=locked),
            key="fidelity_line",
            config=charts.CONFIG,
            alt="Fidelity (FVE) of each reading along the transcript",
        )


def failed_transcript(view: TranscriptView) -> None:
    """A prompt that could not be processed: its error, and the messages as they were sent."""
    draw(
        '<div class="nla-notice" role="status"><p><b>This prompt could not be processed, so there '
        "are no tokens to read.</b></p><p>{error}</p></div>",
        error=view.error or "The run did not say why.",
    )
    for role, content in view.messages:
        draw(
            '<div class="nla-message"><div class="role">{role}</div>'
            '<div class="said">{content}</div></div>',
            role=role.capitalize(),
            content=content,
        )


def token_panel(
    view: TranscriptView,
    position: int,
    sample: int,
    *,
    pair: Mapping[str, Any],
    markup: bool,
    link: str,
    on_step: Callable[[int, int], None],
) -> None:
    """All that is known about one token. ``on_step(position, sample)`` asks for another one."""
    token = view.tokens[position]
    reading = view.reading(position, sample)
    _token_line(view, token, markup=markup, on_step=on_step)
    _choices(view, token, sample if reading is None else reading.sample, on_step=on_step)
    if reading is None:
        draw(
            '<p class="nla-empty">There is no reading here: this token is part of the chat '
            "template, and only the text of the conversation is explained.</p>"
        )
    else:
        _explanation(reading)
    _numbers(token, reading, pair)
    _expected_next(view, token)
    copy_link(link)


def invitation() -> None:
    """What stands in the panel while no token is locked."""
    draw(
        '<p class="nla-empty"><b>No token is locked.</b><br>Point at a token to see what the model '
        "represents there; click it, or press Enter, to lock it and read the numbers beside it.</p>"
    )


def _token_line(
    view: TranscriptView,
    token: TokenFacts,
    *,
    markup: bool,
    on_step: Callable[[int, int], None],
) -> None:
    chip = view.chip_of(token.position)
    with st.container(
        horizontal=True, vertical_alignment="center", gap="small", wrap=False, key="token_line"
    ):
        draw(
            '<div class="nla-token"><code>{text}</code><span>token {position} · {who}</span></div>',
            text=charts.visible(chip.text),
            position=token.position,
            who=WHO.get(Role(token.role), token.role),
        )
        for by, icon, words in ((-1, "chevron_left", "Previous"), (1, "chevron_right", "Next")):
            target = view.step(token.position, by, markup=markup)
            st.button(
                f"{words} token",
                key=f"step_{by}",
                icon=f":material/{icon}:",
                type="tertiary",
                disabled=target is None,
                on_click=on_step,
                args=(target, 0),
            )


def _choices(
    view: TranscriptView, token: TokenFacts, sample: int, *, on_step: Callable[[int, int], None]
) -> None:
    """Which token of a character made of several, and which of several samples."""
    chip = view.chip_of(token.position)
    if len(chip.positions) > 1:
        st.session_state["piece"] = token.position
        st.segmented_control(
            f"This character is {len(chip.positions)} tokens",
            chip.positions,
            key="piece",
            required=True,
            format_func=lambda position: f"token {position}",
            on_change=lambda: on_step(st.session_state["piece"], 0),
        )
    samples = [reading.sample for reading in view.readings.get(token.position, ())]
    if len(samples) > 1:
        st.session_state["sample"] = sample
        st.segmented_control(
            "Samples of the verbalizer",
            samples,
            key="sample",
            required=True,
            format_func=lambda number: str(number + 1),
            on_change=lambda: on_step(token.position, st.session_state["sample"]),
        )


def _explanation(reading: ReadingFacts) -> None:
    cut = reading.finish == Finish.CUT
    draw(
        '<div><p class="nla-label">What the model represents here</p>'
        '<p class="nla-said">{text}{cut}</p></div>',
        text=reading.explanation or "(the verbalizer wrote nothing)",
        cut=" […]" if cut else "",
    )
    if reading.flags:
        draw(
            '<ul class="nla-flags">{items}</ul>', items=join([flag_item(f) for f in reading.flags])
        )


def flag_item(name: str) -> Piece:
    """A flag as a list item: two words, then the sentence that goes with them."""
    if name not in set(Flag):  # a dataset of a later minor version may know more of them
        return fill("<li>{name}</li>", name=name)
    flag = Flag(name)
    title = FLAG_NAME[flag].capitalize()
    text = FLAG_TEXT[flag].removeprefix(f"{title}: ")  # said once is enough
    return fill("<li><b>{title}.</b> {text}</li>", title=title, text=text[:1].upper() + text[1:])


def _numbers(token: TokenFacts, reading: ReadingFacts | None, pair: Mapping[str, Any]) -> None:
    rows: list[tuple[str, str, str]] = []
    if reading is not None:
        rows += [
            ("FVE", signed(reading.fve), ""),
            ("cosine", signed(reading.cosine), ""),
            ("centred cosine", signed(reading.centred_cosine), ""),
        ]
    rows.append(("‖h‖", f"{token.norm:.4g}", f"{ordinal(token.norm_pct)} pct"))
    if token.surprisal is not None:
        likely = charts.percent(charts.probability(token.surprisal) or 0.0)
        rows.append(("surprisal", f"{token.surprisal:.1f}", f"nats, p {likely}"))
    draw(
        '<dl class="nla-numbers">{rows}</dl>',
        rows=join(
            [
                fill(
                    "<div><dt>{name}</dt><dd>{value}<small>{unit}</small></dd></div>",
                    name=name,
                    value=value,
                    unit=unit,
                )
                for name, value, unit in rows
            ]
        ),
    )
    with st.popover("What these numbers mean", type="tertiary", icon=":material/help:"):
        st.markdown(numbers_help(reading, pair.get("rawvar")))


def numbers_help(reading: ReadingFacts | None, rawvar: float | None) -> str:
    """What the numbers are measured against, worked out for this reading where there is one."""
    worked = ""
    if reading is not None and rawvar is not None:
        worked = f" = 1 − {reading.mse_nrm:.3f} ÷ {rawvar:.3f} = {signed(reading.fve)}"
    return NUMBERS_HELP.format(
        worked=worked, rawvar="" if rawvar is None else f", here {rawvar:.3f}"
    )


def _expected_next(view: TranscriptView, token: TokenFacts) -> None:
    if not token.top_tokens:
        return
    after = view.tokens[token.position + 1] if token.position + 1 < len(view.tokens) else None
    draw(
        '<p class="nla-label">What the model expects next{came}</p>',
        came=", ◂ what came" if after else "",
    )
    _chart(
        charts.next_tokens(
            token.top_tokens,
            token.top_probs,
            came=None if after is None else after.text,
            came_probability=None if after is None else charts.probability(after.surprisal),
        ),
        key="expected_next",
        config={**charts.CONFIG, "staticPlot": True},
        alt="The model's most likely next tokens and their probabilities",
    )


def _chart(figure: charts.Figure, **settings: Any) -> None:
    """A chart, or the place for it as long as the strip has not been painted.

    Plotly's script has megabytes: fetched along with the strip, it would keep the first token from
    the screen for as long as it takes to compile.
    """
    if was_painted():
        st.plotly_chart(figure, **settings)
    else:
        draw(
            '<div class="nla-later" style="height: {height}px"></div>',
            height=str(figure["layout"]["height"]),
        )


def signed(value: float) -> str:
    """Two decimals and a real minus sign; never −0.00."""
    text = f"{value:.2f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def ordinal(percentile: float) -> str:
    """61.4 as 61st."""
    n = min(max(round(percentile), 0), 100)
    suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"
