"""The one pair of a worker on another machine: there, gone, or another than was asked for.

Knows when a worker is asked who it is, and how long to wait after it was not there. Knows no run.
The decision a reader would question: work is only taken for a worker that has just answered; one
that is away costs nobody a place, and is asked again ever more rarely, half a minute at the most.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from nla_core.errors import NLAError
from nla_core.runs.models import LoadState, ModelState
from nla_core.runs.queue import PairKey
from nla_core.runs.remote_link import Address, WorkerLost
from nla_core.runs.remote_wire import IDENTITY, Identity

if TYPE_CHECKING:
    from nla_core.runs.remote import RemoteExplainer

LOG = logging.getLogger(__name__)
REMOTE_BATCH: Final = 64
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
FRESH_SECONDS: Final = 10.0


class RemoteShelf:
    """Used by one worker thread; its states are read from any thread."""

    def __init__(self, address: Address, clock: Callable[[], float] = time.monotonic) -> None:
        self.address, self._clock = address, clock
        self._identity: Identity | None = None
        self._trouble = "not asked yet"
        self._pause = FIRST_PAUSE
        self._next_try = 0.0
        self._asked = 0.0
        self._lock = threading.Lock()

    @property
    def device(self) -> str:
        return self.address.url

    @property
    def serves(self) -> PairKey | None:
        """The pair it holds; None while that is not known."""
        identity = self._identity
        return identity.key if identity else None

    def batch_size(self) -> int:
        """A worker elsewhere halves what does not fit."""
        return REMOTE_BATCH

    def reach(self) -> bool:
        """Whether work can be taken for it; asks again where it was away."""
        if self._identity is None and self._clock() >= self._next_try:
            self._ask()
        return self._identity is not None

    def state(self, key: PairKey) -> ModelState:
        with self._lock:
            held = self._identity
            if held is None:
                return ModelState(LoadState.ABSENT, self._trouble)
            if held.key != key:
                note = f"{self.device} holds {held.pair_id} at revision {held.revision}"
                return ModelState(LoadState.FAILED, note)
            return ModelState(LoadState.READY, f"on {held.device}", megabytes=held.megabytes)

    def has(self, key: PairKey) -> bool:
        return self.serves == key

    @contextmanager
    def using(
        self, key: PairKey, name: str, progress: Callable[[str], None] = lambda _: None
    ) -> Iterator[RemoteExplainer]:
        """Raises WorkerLost where it is away, or was started with another pair since."""
        identity = self._identity
        if identity is None or identity.key != key:
            raise WorkerLost(f"{self.device} does not hold {name} any more", at_work=False)
        from nla_core.runs.remote import RemoteExplainer

        yield RemoteExplainer(self.address, identity)

    def pace(self, explainer: object) -> float:
        """Tokens a second that the worker has measured when it started."""
        return self._identity.tokens_per_s if self._identity else 0.0

    def unload_idle(self) -> list[PairKey]:
        """Nothing is held here; an idle moment is used to see whether it is still there."""
        if self._identity is not None and self._clock() - self._asked > FRESH_SECONDS:
            self._ask()
        return []

    def lost(self, error: WorkerLost) -> None:
        """It was found to be away."""
        LOG.warning("%s", error)
        with self._lock:
            self._identity, self._trouble = None, str(error)
            self._next_try = self._clock() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _ask(self) -> None:
        try:
            found = Identity.from_json(self.address.ask(IDENTITY))
        except WorkerLost as error:
            self.lost(error)
        except NLAError as error:
            self.lost(WorkerLost(str(error), at_work=False))
        else:
            with self._lock:
                self._identity, self._asked = found, self._clock()
                self._pause = FIRST_PAUSE
