"""What is written about one token: its explanation, its numbers, its flags, what comes next.

Knows how a reading is laid out and what each number is measured against. Does not know the URL;
steps are reported to the caller. The decision a reader would question: FVE never stands alone; the
panel carries its denominator one tap away, because the variant with another denominator looks
better and is not the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import streamlit as st

from nla_core.readings import UNREADABLE
from nla_core.schema import FLAG_TEXT, Flag, Role, Section
from nla_core.ui import charts
from nla_core.ui.explanation import explanation, note_first
from nla_core.ui.html import Piece, draw, fill, join
from nla_core.ui.later import chart, ordinal, signed
from nla_core.ui.token_strip import FLAG_NAME
from nla_core.ui.transcript_view import ReadingFacts, TokenFacts, TranscriptView

WHO: Final = {Role.SYSTEM: "system prompt", Role.USER: "user", Role.ASSISTANT: "answer"}
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


def token_panel(
    view: TranscriptView,
    position: int,
    sample: int,
    *,
    pair: Mapping[str, Any],
    markup: bool,
    paragraph: int | None,
    on_step: Callable[[int, int], None],
) -> None:
    """All that is known about one token. ``on_step(position, sample)`` asks for another one;
    ``paragraph`` is the one that a link points at."""
    token = view.tokens[position]
    reading = view.reading(position, sample)
    token_line(view, token, markup=markup, on_step=on_step)
    _choices(view, token, sample if reading is None else reading.sample, on_step=on_step)
    if reading is None:
        no_reading(token)
    else:
        explanation(view, reading, paragraph=paragraph)
        flags(reading)
        _samples(view, reading)
    _numbers(token, reading, pair)
    _expected_next(view, token)


def no_reading(token: TokenFacts) -> None:
    if not token.norm:
        why = UNREADABLE
    elif token.section == Section.CONTENT:
        why = "There is no reading here: this token was not among those that were read."
    else:
        why = (
            "There is no reading here: this token is part of the chat template, and only the text "
            "of the conversation is explained."
        )
    draw('<p class="nla-empty">{why}</p>', why=why)


def invitation() -> None:
    """What stands in the panel while no token is locked."""
    draw(
        '<p class="nla-empty nla-invitation"><span class="point"><b>No token is locked.</b><br>'
        "Point at a token to see what the model represents there; click it, or press Enter, to "
        'lock it and read the numbers beside it.</span><span class="touch">Tap a token to see what '
        "the model represents there.</span></p>"
    )


def token_line(
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


def flags(reading: ReadingFacts) -> None:
    if reading.flags:
        draw(
            '<ul class="nla-flags">{items}</ul>', items=join([flag_item(f) for f in reading.flags])
        )


def _samples(view: TranscriptView, reading: ReadingFacts) -> None:
    """Every sample of this token side by side: what they share is worth more than what one says."""
    every = view.readings[reading.position]
    if len(every) < 2:
        return
    with st.expander(f"All {len(every)} samples of this token", key="all_samples"):
        draw(
            '<div class="nla-samples">{samples}</div>',
            samples=join(
                [
                    fill(
                        '<div class="{kind}"><p class="nla-label">Sample {number} · FVE {fve}</p>'
                        "<p>{text}</p></div>",
                        kind="chosen" if other.sample == reading.sample else "",
                        number=other.sample + 1,
                        fve=signed(other.fve),
                        text=note_first(other.explanation or "(nothing)"),
                    )
                    for other in every
                ]
            ),
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
    if token.norm:
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
    chart(
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
