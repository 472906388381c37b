"""A gate that a test closes in front of the pair, so that a run is not over before it is looked at.

The gate is a file with the number of batches that may still be read; without the file it is open.
A file, since the queue that is held may be in another process: `Gate.environment` has a server's
interpreter load `hook/sitecustomize.py`, which puts the same gate there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VARIABLE = "TEST_GATE"
HOOK = Path(__file__).parent / "hook"


class Gate:
    """Holds batches of readings of this process, and of servers started with `environment`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def close(self, batches: int = 0) -> None:
        """Let ``batches`` more through, and hold the next until the gate is opened."""
        new = self.path.with_suffix(".new")
        new.write_text(str(batches), encoding="utf-8")
        new.replace(self.path)

    def open(self) -> None:
        """Let everything through."""
        self.path.unlink(missing_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a server needs in its environment to be held by this gate."""
        paths = [str(HOOK), os.environ.get("PYTHONPATH", "")]
        return {VARIABLE: str(self.path), "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def in_front_of(self, explain_each: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
        """``Explainer.explain_each`` behind this gate; a batch that was given up is not held."""

        def held(
            explainer: Any,
            wanted: Any,
            *,
            cancelled: Callable[[], bool] = lambda: False,
            still_wanted: Callable[[int], bool] = lambda _: True,
            **options: Any,
        ) -> Iterator[Any]:
            while not self._take():
                if cancelled() or not any(map(still_wanted, range(len(wanted)))):
                    break
                time.sleep(0.01)
            yield from explain_each(
                explainer, wanted, cancelled=cancelled, still_wanted=still_wanted, **options
            )

        return held

    def _take(self) -> bool:
        """Whether a batch may pass; it is counted where the gate is closed."""
        with self._lock:
            try:
                left = int(self.path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                return True
            if left > 0:
                self.close(left - 1)
            return left > 0
