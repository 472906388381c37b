"""The progress line: what it counts, and how often it is written."""

from __future__ import annotations

import pytest

from precompute.plan import Plan
from precompute.progress import Progress, duration
from tests.precompute.conftest import PROMPTS


class Stream:
    def __init__(self, *, terminal: bool) -> None:
        self.text, self.terminal = "", terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_tells_rate_and_time_left(plan: Plan, terminal: bool) -> None:
    now = 0.0
    stream = Stream(terminal=terminal)
    progress = Progress(
        list(plan.shards[1:]),
        total=len(PROMPTS),
        answer_tokens=48,
        stream=stream,  # type: ignore[arg-type]
        clock=lambda: now,
    )
    now = 100.0  # loading the models took a while, and counts for nothing
    progress.begin()
    assert progress.line() == "2 of 7 prompts, 0 readings, 0.0 readings/s, time left not known yet"
    for second in range(1, 61):
        now = 100.0 + second
        progress.tick(plan.shards[1], second, 60)
    assert progress.line().startswith("2 of 7 prompts, 60 readings, 1.0 readings/s, ")
    progress.finished(plan.shards[1], 60)
    assert progress.line().startswith("4 of 7 prompts, 60 readings, 1.0 readings/s, ")
    # Three of five prompts are left, of about the same length.
    assert 80 < float(progress.line().split(", ")[-1].split()[0]) < 100
    for shard in plan.shards[2:]:
        progress.finished(shard, 30)
    assert stream.text.removesuffix("\n").removesuffix("\x1b[K").endswith(" 0 s left")
    lines = stream.text.count("\n")
    assert ("\r" in stream.text) == terminal
    assert lines == (1 if terminal else 4), "a log: every 20 s; a terminal: the last"


def test_durations_are_told_as_people_do() -> None:
    assert [duration(s) for s in (7, 89, 300, 5400, 11_100)] == [
        "7 s", "89 s", "5 min", "1 h 30 min", "3 h 05 min",
    ]  # fmt: skip
