"""What a page shows of a prompt while its readings arrive.

Knows how a list of events becomes texts, scores and failures by position. Knows no page. The
decision a reader would question: all events are folded at every look instead of being remembered
between looks; a few thousand of them cost milliseconds, and a page that was away needs no catching
up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nla_core.readings import Reading
from nla_core.runs.state import Event


@dataclass(slots=True)
class LivePrompt:
    """``texts`` are explanations whose score has not come; all by (position, sample)."""

    texts: dict[tuple[int, int], str] = field(default_factory=dict)
    readings: dict[tuple[int, int], Reading] = field(default_factory=dict)
    failures: dict[tuple[int, int], str] = field(default_factory=dict)
    failed: str | None = None  # why the whole prompt was not read


def folded(events: Iterable[Event], prompt: int) -> LivePrompt:
    """The state of one prompt after ``events``, which begin with the first one of the run."""
    live = LivePrompt()
    for event in events:
        if event.prompt != prompt:
            continue
        if event.position is None:
            live.failed = event.reason if event.kind == "failure" else None
            continue
        at = (event.position, event.sample)
        if event.kind == "text":
            live.texts[at] = event.explanation
        elif event.kind == "reading" and event.reading is not None:
            live.readings[at] = event.reading
            live.texts.pop(at, None)
            live.failures.pop(at, None)
        elif event.kind == "failure":
            live.failures[at] = event.reason
        elif event.kind == "retry":
            live.texts.pop(at, None)
            live.readings.pop(at, None)
            live.failures.pop(at, None)
    return live
