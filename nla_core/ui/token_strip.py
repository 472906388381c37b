"""The transcript as chat, one chip a token, coloured by a measure; hover shows, click locks.

Knows what the browser side needs (chips, numbers, the scale) and mounts it. Does not know the URL
or what is beside the strip: it reports the position that was locked, or the range that was marked.
The decision a reader would question: explanations travel with the chips, so that hovering needs no
answer from the server, and both are a component of their own whose bytes stay the same from run to
run: they are sent once a transcript (4,000 tokens are a megabyte). What changes with a click
(colour, lock, range) is a second component, which draws nothing and hands it to the first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from nla_core.analysis.claims import split
from nla_core.schema import Flag
from nla_core.ui import palette
from nla_core.ui.transcript_view import Chip, TranscriptView

_HERE = Path(__file__).parent
_PAINTED = "_nla_strip_was_painted"

FLAG_NAME: dict[Flag, str] = {
    Flag.EARLY: "early position",
    Flag.HIGH_NORM: "attention sink",
    Flag.CUT: "cut short",
    Flag.LOW_FIDELITY: "low fidelity",
}
"""Two words a flag, for places too small for ``schema.FLAG_TEXT``."""

TEMPLATE_TOKEN = "No reading: a token of the chat template."
Late = tuple[int, float | None, str, tuple[str, ...], str]
"""A reading that comes after the strip: position, FVE, explanation, flags, why it failed."""

_HTML = """
<div class="strip">
  <div class="bar-top">
    <div class="legend" role="img" aria-label="Colour and bar scale of fidelity"></div>
    <div class="keys">
      <kbd>←</kbd><kbd>→</kbd> move <kbd>Enter</kbd> lock
      <kbd>Shift</kbd> range <kbd>?</kbd> all keys
    </div>
  </div>
  <div class="map" aria-hidden="true" hidden></div>
  <div class="turns" role="listbox" aria-label="Tokens of the transcript"></div>
  <div class="card" role="tooltip" hidden></div>
</div>
"""

_component = st.components.v2.component(
    "nla_token_strip",
    html=_HTML,
    css=(_HERE / "token_strip.css").read_text(encoding="utf-8") + palette.css(),
    js="\n".join(
        (_HERE / name).read_text(encoding="utf-8")
        for name in ("token_strip_draw.js", "token_strip.js")
    ),
)


_state = st.components.v2.component(
    "nla_token_strip_state",
    html="""
<span hidden></span>
""",
    js=(_HERE / "token_strip_state.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What the browser draws of a transcript, as JSON; ``strip_id`` changes when it must."""

    strip_id: str
    data: bytes

    @classmethod
    def of(cls, view: TranscriptView, *, strip_id: str, unread: str = TEMPLATE_TOKEN) -> Drawing:
        """``unread`` is what is said of a token without a reading."""
        data = {**strip_data(view, strip_id=strip_id), "unread": unread}
        return cls(strip_id, json.dumps(data, separators=(",", ":")).encode())


def strip_data(view: TranscriptView, *, strip_id: str) -> dict[str, Any]:
    """What the browser draws, in JSON types.

    Leaves out what changes while it is read (``locked``, ``markup``, ``colour``, ``range``).
    """
    return {
        "id": strip_id,
        "chips": [_chip(view, chip) for chip in view.chips],
        "flags": {str(flag): name for flag, name in FLAG_NAME.items()},
        "scale": {"steps": palette.STEPS, "bar": palette.BAR_MAX_PX},
    }


def token_strip(
    drawing: Drawing,
    *,
    colour: dict[str, Any],
    locked: int | None,
    span: tuple[int, int] | None,
    markup: bool,
    reveal: bool,
    on_lock: Callable[[int | None], None],
    on_span: Callable[[tuple[int, int] | None], None],
    late: Sequence[Late] = (),
    key: str = "token_strip",
) -> None:
    """Mount the strip. ``on_lock`` gets the position a person chose, ``on_span`` the first and last
    position of a range they marked; None when they let go.

    ``late`` are readings that the drawing was made without; a page that watches them arrive sends
    all of them each time. ``reveal`` scrolls a newly drawn strip to its locked token. The first
    strip of a session tells when the browser has painted it, and the run that follows finds
    ``was_painted()`` true.
    """

    heard = f"{key}_heard"  # of all that was sent, the last: the browser knows it again

    def report() -> None:
        lock = st.session_state[key].get("lock")
        if isinstance(lock, dict):
            st.session_state[heard] = lock.get("sent")
            position = lock.get("position")
            on_lock(position if isinstance(position, int) else None)

    def mark() -> None:
        marked = st.session_state[key].get("range")
        if isinstance(marked, dict):
            match marked.get("range"):
                case [int(first), int(last)]:
                    on_span((first, last))
                case _:
                    on_span(None)

    def painted() -> None:
        st.session_state[_PAINTED] = True

    _component(
        key=key,
        data=drawing.data,
        on_lock_change=report,
        on_range_change=mark,
        on_painted_change=painted,
    )
    _state(
        key=f"{key}_state",
        data={
            "strip": drawing.strip_id,
            "colour": colour,
            "locked": locked,
            "heard": st.session_state.get(heard),
            "range": None if span is None else list(span),
            "markup": markup,
            "reveal": reveal,
            "tell": not was_painted(),
            "late": [[*item, split(item[2]).quiet_from] for item in late],
        },
    )


def was_painted() -> bool:
    """Whether a strip of this session is on the screen: what is heavy may come now."""
    return bool(st.session_state.get(_PAINTED))


def _chip(view: TranscriptView, chip: Chip) -> dict[str, Any]:
    reading = view.reading(chip.position)
    return {
        "text": chip.text,
        "turn": chip.turn,
        "role": chip.role,
        "markup": chip.markup,
        "position": chip.position,
        "positions": list(chip.positions),
        "fve": None if reading is None else round(reading.fve, 4),
        "explanation": "" if reading is None else reading.explanation,
        "quiet": None if reading is None else split(reading.explanation).quiet_from,
        "flags": [] if reading is None else list(reading.flags),
    }
