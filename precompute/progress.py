"""How far a run is, in one line on stderr: prompts, readings, rate, time left.

Time left goes by the text still to read, not by prompts: one long story costs as much as twenty
questions.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from precompute.plan import Shard

CHARACTERS_A_TOKEN = 4
LOG_SECONDS = 20.0
"""Where stderr is no terminal, at most one line in this many seconds."""
TERMINAL_SECONDS = 0.2


class Progress:
    """Counts the work of this session; ``before`` are prompts finished by earlier ones."""

    def __init__(
        self,
        todo: list[Shard],
        *,
        total: int,
        answer_tokens: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._answer_tokens = answer_tokens
        self._total = total
        self._prompts = total - sum(len(shard.prompts) for shard in todo)
        self._left = len(todo)
        self._weight = sum(self._cost(shard) for shard in todo)
        self._done = 0.0
        self._readings = 0
        self._started = clock()
        self._shown = float("-inf")
        self._current = (0.0, 0)  # weight and readings of the shard at work

    def say(self, text: str) -> None:
        """A line of its own."""
        end = "\x1b[K\n" if self._stream.isatty() else "\n"
        print(text, file=self._stream, end=end, flush=True)

    def begin(self) -> None:
        """The models are loaded: rates count from here."""
        self._started = self._clock()

    def tick(self, shard: Shard, done: int, total: int) -> None:
        """``done`` of ``total`` readings of the shard at work are there."""
        self._current = (self._cost(shard) * done / max(total, 1), done)
        self._show()

    def finished(self, shard: Shard, readings: int) -> None:
        self._current = (0.0, 0)
        self._done += self._cost(shard)
        self._prompts += len(shard.prompts)
        self._readings += readings
        self._left -= 1
        self._show(last=self._left == 0)

    def line(self) -> str:
        """The state in words."""
        elapsed = max(self._clock() - self._started, 1e-9)
        weight, readings = self._done + self._current[0], self._readings + self._current[1]
        left = elapsed * max(self._weight - weight, 0) / weight if weight else None
        return (
            f"{self._prompts} of {self._total} prompts, {readings:,} readings, "
            f"{readings / elapsed:.1f} readings/s, "
            + ("time left not known yet" if left is None else f"{duration(left)} left")
        )

    def _cost(self, shard: Shard) -> float:
        """Tokens to read and explain, about."""
        read = sum(prompt.n_characters for prompt in shard.prompts) / CHARACTERS_A_TOKEN
        return read + self._answer_tokens * len(shard.prompts)

    def _show(self, *, last: bool = False) -> None:
        terminal = self._stream.isatty()
        now = self._clock()
        if not last and now - self._shown < (TERMINAL_SECONDS if terminal else LOG_SECONDS):
            return
        self._shown = now
        start, end = ("\r", "\x1b[K\n" if last else "\x1b[K") if terminal else ("", "\n")
        print(start + self.line(), file=self._stream, end=end, flush=True)


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 05 min``: no more digits than anyone can use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
