"""Keeps what imports have made out of the garbage collections that follow every run of a page.

Knows that Streamlit collects all generations after each run of a script, and that what a collection
costs follows from how many objects there are: half a million once the sentence encoder is loaded,
a third of a second a click, during which no other session is served. Does not know pages. The
decision a reader would question: objects are frozen after each wave of imports and not on a clock;
what is frozen is never searched for garbage again, so there has to be an end to it.
"""

from __future__ import annotations

import gc
import sys
from typing import Final

A_WAVE: Final = 20
"""So many modules more than last time mean that something large was imported."""

_modules_when_frozen = 0


def settle() -> None:
    """Freeze what is there, if modules came since the last time. To be called after a run."""
    global _modules_when_frozen
    modules = len(sys.modules)
    if modules >= _modules_when_frozen + A_WAVE:
        _modules_when_frozen = modules
        gc.freeze()
