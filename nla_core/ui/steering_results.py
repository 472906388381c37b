"""The pieces of the Steer page that answer: progress, charts, rates with intervals, texts.

Knows how an outcome is laid out while it grows and when it is whole. Does not know how it is made.
The decision a reader would question: outcomes of other settings than those on the screen are shown
with a note instead of vanishing, since people change one thing at a time and compare.
"""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Final

import streamlit as st

from nla_core import opened
from nla_core.errors import NLAError
from nla_core.steering.experiment import Arm, Experiment, hits_at
from nla_core.steering.outcome import Outcome
from nla_core.steering.runner import Seen, Status
from nla_core.ui import charts, notices, shell
from nla_core.ui.html import Piece, draw, fill, hint, join
from nla_core.ui.later import signed
from nla_core.ui.sweep_chart import Point, sweep

POLL_S: Final = 0.8
LAST: Final = "steer_last"
MOST_SHOWN: Final = 40
NAMES: Final = {Arm.STEERED: "steered", Arm.RANDOM: "random direction", Arm.BASELINE: "baseline"}


def start(experiment: Experiment) -> None:
    """Queue it and remember it as this session's latest. For callbacks: a refusal is kept."""
    st.session_state.pop("steer_refusal", None)
    try:
        st.session_state[LAST] = opened.steering().start(experiment)
    except NLAError as error:
        st.session_state["steer_refusal"] = error


def at_a_glance(experiment: Experiment) -> None:
    """Beside the button, where it was pressed: whether anything goes on further down."""
    seen = opened.steering().seen(experiment.key)
    if "steer_refusal" in st.session_state:
        hint("It was not started; the reason stands below.")
    elif seen is not None and seen.active:
        hint("At work. What comes of it grows below.")
    elif seen is not None and seen.status == Status.DONE:
        hint("Done. The outcome stands below.")


def results(experiment: Experiment) -> None:
    """What came of the experiment on the screen, else of this session's latest one."""
    refusal = st.session_state.pop("steer_refusal", None)
    if refusal is not None:
        notices.problem(refusal)
    desk = opened.steering()
    key = experiment.key
    seen = desk.seen(key)
    if seen is None and LAST in st.session_state:
        key = st.session_state[LAST]
        seen = desk.seen(key)
        if seen is not None:
            hint("The settings have changed since the run below.")
    if seen is None:
        hint(
            "Not run yet. Steering takes seconds to a minute on a laptop with the pair that ships; "
            "the page can be used meanwhile."
        )
        return
    if seen.active:
        _watched(key)
    else:
        _shown(key, seen)


def _watched(key: str) -> None:
    """The growing outcome, looked at again and again; the page runs once more at its end."""

    @st.fragment(run_every=POLL_S)
    @shell.guarded
    def look() -> None:
        seen = opened.steering().seen(key)
        if seen is None or not seen.active:
            st.rerun()
        else:
            _shown(key, seen)

    look()


def _shown(key: str, seen: Seen) -> None:
    _state(key, seen)
    if seen.error is not None:
        notices.problem(seen.error)
    if seen.outcome is not None:
        outcome(seen.outcome)


def _state(key: str, seen: Seen) -> None:
    if seen.status == Status.CANCELLED:
        hint("Cancelled. What was finished before stands below.")
    if not seen.active:
        return
    done = 0 if seen.outcome is None else len(seen.outcome.continuations)
    total = 1 if seen.outcome is None else seen.outcome.experiment.n_continuations
    if seen.status == Status.WAITING:
        words = f"Waiting; {seen.ahead} before it"
    elif seen.outcome is None:
        words = "Loading the models and reading the prompt"
    else:
        words = f"{done} of {total} texts"
    with st.container(horizontal=True, vertical_alignment="center", key="steer_progress"):
        st.progress(min(done / total, 1.0), text=words)
        st.button(
            "Cancel",
            key="steer_cancel",
            icon=":material/close:",
            on_click=lambda: opened.steering().cancel(key),
        )


def outcome(found: Outcome) -> None:
    """Charts, rates, texts and files of one outcome, as far as it goes."""
    facts, experiment = found.facts, found.experiment
    n = len(facts.positions)
    draw(
        '<p class="nla-hint">‖h‖ {norm} · pushed at {where}{every} · cosine of the direction and '
        "the vector {along} · FVE of the original {original}, of the edit {edited}</p>",
        norm=f"{facts.norm:.4g}",
        where="1 token" if n == 1 else f"{n} tokens",
        every=" of the prompt and at every new one" if experiment.every else " of the prompt",
        along=signed(facts.along),
        original=signed(facts.original.fve),
        edited=signed(facts.edited.fve),
    )
    if not experiment.words:
        hint("No words were named, so there is nothing to count: compare the texts.")
    else:
        _charts(found)
        _rates(found)
    _texts(found)
    _take_away(found)


def _charts(found: Outcome) -> None:
    words = ["+".join(charts.visible(token) for token in tokens) for tokens in found.facts.tokens]
    one, other = st.columns(2, gap="medium")
    with one:
        draw('<p class="nla-label">Probability of a named word right after the prompt</p>')
        st.plotly_chart(
            sweep(_probabilities(found), alphas=found.experiment.alphas, level=_level(found)),
            key="steer_probability",
            config=charts.CONFIG,
            alt="Probability of the named words against α, steered, random and baseline",
        )
        hint(
            "Sum over the words, as these tokens: " + ", ".join(words) + ". The band holds the "
            "middle 95 % of the random directions."
        )
    with other:
        draw('<p class="nla-label">Share of texts that hold a named word</p>')
        rate = found.rate(Arm.BASELINE)
        st.plotly_chart(
            sweep(
                _shares(found),
                alphas=found.experiment.alphas,
                level=(NAMES[Arm.BASELINE], rate.share) if rate.n else None,
                top=1.05,
            ),
            key="steer_share",
            config=charts.CONFIG,
            alt="Share of continuations that hold a named word against α, with 95 % intervals",
        )
        hint("The bands are 95 % intervals of each share.")


def _probabilities(found: Outcome) -> dict[str, list[Point]]:
    lines: dict[str, list[Point]] = {}
    start = found.band(Arm.BASELINE)
    for arm in (Arm.STEERED, Arm.RANDOM):
        bands = {a: found.band(arm, a) for a in found.experiment.alphas}
        points = [(a, b.mean, b.low, b.high) for a, b in bands.items() if b is not None]
        if start is not None and points:
            points.append((0.0, start.mean, start.mean, start.mean))
        lines[NAMES[arm]] = points
    return lines


def _level(found: Outcome) -> tuple[str, float] | None:
    band = found.band(Arm.BASELINE)
    return None if band is None else (NAMES[Arm.BASELINE], band.mean)


def _shares(found: Outcome) -> dict[str, list[Point]]:
    lines: dict[str, list[Point]] = {}
    for arm in (Arm.STEERED, Arm.RANDOM):
        rates = {a: found.rate(arm, a) for a in found.experiment.alphas}
        lines[NAMES[arm]] = [(a, r.share, r.low, r.high) for a, r in rates.items() if r.n]
    return lines


def _rates(found: Outcome) -> None:
    rows = []
    base = found.rate(Arm.BASELINE)
    for alpha in sorted(found.experiment.alphas):
        one, other = found.rate(Arm.STEERED, alpha), found.rate(Arm.RANDOM, alpha)
        if not one.n or not other.n:
            continue
        contrast = found.contrast(alpha)
        rows.append(
            fill(
                "<tr><th scope='row'>{alpha}</th><td>{one}</td><td>{other}</td><td>{base}</td>"
                "<td>{difference} <small>{low} to {high}</small></td><td>{verdict}</td></tr>",
                alpha=f"{alpha:g}".replace("-", "−"),
                one=f"{one.hits}/{one.n}",
                other=f"{other.hits}/{other.n}",
                base=f"{base.hits}/{base.n}",
                difference=points(contrast.difference),
                low=points(contrast.low),
                high=points(contrast.high),
                verdict="beats random" if contrast.beats else "not beyond random",
            )
        )
    if rows:
        draw(
            '<table class="nla-figures"><caption>Texts that hold a named word; the difference is '
            "steered minus random, in points, with its 95 % interval</caption><thead><tr>"
            "<th scope='col'>α</th><th scope='col'>steered</th><th scope='col'>random</th>"
            "<th scope='col'>baseline</th><th scope='col'>difference</th><td></td></tr></thead>"
            "<tbody>{rows}</tbody></table>",
            rows=join(rows),
        )


def _texts(found: Outcome) -> None:
    alphas = [a for a in sorted(found.experiment.alphas) if found.texts(Arm.STEERED, a)]
    if not alphas:
        return
    with st.container(
        horizontal=True, vertical_alignment="center", gap="small", key="steer_texts_row"
    ):
        draw('<h2 class="nla-h2">What it writes</h2>')
        if st.session_state.get("steer_alpha") not in alphas:
            st.session_state["steer_alpha"] = alphas[len(alphas) // 2]
        st.segmented_control(
            "α",
            alphas,
            key="steer_alpha",
            required=True,
            label_visibility="collapsed",
            format_func=lambda a: f"α = {a:g}".replace("-", "−"),
        )
    chosen = float(st.session_state["steer_alpha"])
    arms = [(Arm.BASELINE, 0.0), (Arm.STEERED, chosen), (Arm.RANDOM, chosen)]
    by_seed = {arm: {c.seed: c for c in found.texts(arm, a)} for arm, a in arms}
    seeds = sorted(set(by_seed[Arm.BASELINE]) & set(by_seed[Arm.STEERED]))[:MOST_SHOWN]
    rows = []
    for seed in seeds:
        cells = []
        for arm, _ in arms:
            text = by_seed[arm].get(seed)
            cells.append(
                fill(
                    "<td><span class='arm'>{arm}</span>{text}</td>",
                    arm=NAMES[arm],
                    text="…" if text is None else shown(text.text, found.experiment.words),
                )
            )
        rows.append(
            fill("<tr><th scope='row'>{seed}</th>{cells}</tr>", seed=seed, cells=join(cells))
        )
    draw(
        '<div class="nla-steered" tabindex="0" role="region" aria-label="Continuations">'
        "<table><thead><tr><th scope='col'>seed</th>{heads}</tr></thead>"
        "<tbody>{rows}</tbody></table></div>",
        heads=join([fill("<th scope='col'>{name}</th>", name=NAMES[arm]) for arm, _ in arms]),
        rows=join(rows),
    )


def shown(text: str, words: tuple[str, ...]) -> Piece:
    """A text without blank lines, the named words marked."""
    text = re.sub(r"\s*\n\s*", "\n", text).strip()
    pieces, at = [], 0
    for low, high in hits_at(text, words):
        pieces.append(fill("{text}<mark>{hit}</mark>", text=text[at:low], hit=text[low:high]))
        at = high
    return join([*pieces, fill("{text}", text=text[at:])])


def points(share: float) -> str:
    """A difference of shares in points: +45, −3."""
    value = round(100 * share)
    return "0" if value == 0 else f"{value:+d}".replace("-", "−")


def _take_away(found: Outcome) -> None:
    name = f"steering-{found.experiment.key}"
    with st.popover("Download", icon=":material/download:", key="download_popover"):
        hint("The whole experiment with every text, chance and rate.")
        st.download_button(
            "JSON",
            data=lambda: json.dumps(found.as_json(), ensure_ascii=False, indent=1).encode(),
            file_name=f"{name}.json",
            mime="application/json",
            key="steer_json",
            type="tertiary",
            on_click="ignore",
        )
        st.download_button(
            "CSV of the texts",
            data=lambda: as_csv(found),
            file_name=f"{name}.csv",
            mime="text/csv",
            key="steer_csv",
            type="tertiary",
            on_click="ignore",
        )


def as_csv(found: Outcome) -> bytes:
    """One row a text, with the experiment's key and the pair's revision in each."""
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["experiment", "revision", "arm", "alpha", "seed", "hits", "text"])
    for text in found.continuations:
        # The apostrophe keeps a spreadsheet from taking a text for a formula.
        formula = text.text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n")
        rows.writerow(
            [
                found.experiment.key,
                found.facts.revision,
                text.arm,
                f"{text.alpha:g}",
                text.seed,
                "; ".join(text.hits),
                f"'{text.text}" if formula else text.text,
            ]
        )
    return out.getvalue().encode("utf-8-sig")
