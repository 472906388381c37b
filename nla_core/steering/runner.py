"""Experiments of this process: one after another in a thread of their own, watched and cancelled.

Knows what waits, what runs and what came of it. Knows no page. The decision a reader would
question: an experiment is known by its key, so that whoever opens the link of one that was run
finds its outcome, and two people who ask the same wait for one run; outcomes are kept in memory
only, since they take seconds to make again and the link says how.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from nla_core.errors import Cancelled, NLAError
from nla_core.steering.experiment import Experiment
from nla_core.steering.outcome import Outcome

if TYPE_CHECKING:
    from nla_core.explain import Explainer

MOST_KEPT: Final = 32
MOST_WAITING: Final = 8

_log = logging.getLogger(__name__)


class Status(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Seen:
    """One experiment as it stands. ``ahead`` are those that run before it."""

    status: Status
    outcome: Outcome | None = None
    error: NLAError | None = None
    ahead: int = 0

    @property
    def active(self) -> bool:
        return self.status in (Status.WAITING, Status.RUNNING)


class Models(Protocol):
    """Where pairs are loaded: `nla_core.jobs.models.ModelCache`, or what a test puts there."""

    def ready(self, name: str) -> bool: ...

    def using(self, name: str) -> AbstractContextManager[Explainer]: ...


class Desk:
    """Safe to share between threads. An experiment uses ``models`` as long as it runs."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._waiting: deque[Experiment] = deque()
        self._stops: dict[str, threading.Event] = {}
        self._not_loaded: dict[str, NLAError] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self, experiment: Experiment) -> str:
        """Queue it and return its key; one that is queued or done already is not run again.

        Raises NLAError for an experiment that cannot be run, and where too many wait.
        """
        key = experiment.checked().key
        with self._changed:
            known = self._seen.get(key)
            if known is not None and (known.active or known.status == Status.DONE):
                return key
            if len(self._waiting) >= MOST_WAITING:
                raise NLAError(
                    "Too many experiments are waiting",
                    why=f"{len(self._waiting)} are queued, and one runs at a time",
                    fix="Try again in a minute",
                )
            self._stops[key] = threading.Event()
            self._put(key, Seen(Status.WAITING))
            self._waiting.append(experiment)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="steering", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return key

    def seen(self, key: str) -> Seen | None:
        """How it stands; None for one that was never asked for, or long ago."""
        with self._changed:
            found = self._seen.get(key)
            if found is not None and found.status == Status.WAITING:
                before = [e.key for e in self._waiting]
                running = sum(s.status == Status.RUNNING for s in self._seen.values())
                return replace(found, ahead=running + before.index(key) if key in before else 0)
            return found

    def cancel(self, key: str) -> None:
        """Stop it between two steps, or take it out of the queue; what was made stays."""
        with self._changed:
            if key in self._stops:
                self._stops[key].set()
            if any(e.key == key for e in self._waiting):
                self._waiting = deque(e for e in self._waiting if e.key != key)
                self._put(key, Seen(Status.CANCELLED))
                self._changed.notify_all()

    def wait(self, key: str, timeout: float) -> Seen | None:
        """``seen`` once it is no longer active, or when ``timeout`` seconds have passed."""
        with self._changed:
            self._changed.wait_for(
                lambda: key not in self._seen or not self._seen[key].active, timeout
            )
            return self._seen.get(key)

    def loaded(self, pair: str) -> bool:
        """Whether the models of ``pair`` can be used at once; the first call begins to load them.

        Raises NLAError where they could not be loaded; the call after that tries again.
        """
        if self._models.ready(pair):
            return True
        with self._changed:
            error = self._not_loaded.pop(pair, None)
            if error is not None:
                raise error
            name = f"steering-load-{pair}"
            if not any(t.name == name for t in threading.enumerate()):
                threading.Thread(target=self._load, args=(pair,), name=name, daemon=True).start()
            return False

    def _load(self, pair: str) -> None:
        try:
            with self._models.using(pair):
                return
        except NLAError as error:
            found = error
        except Exception as error:  # told to whoever asked, not to a log nobody reads
            _log.exception("loading %s failed", pair)
            found = _bug(error)
        with self._changed:
            self._not_loaded[pair] = found

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: bool(self._waiting), timeout=30):
                    self._thread = None  # under the lock: a start after this makes another
                    return
                experiment = self._waiting.popleft()
                key = experiment.key
                stop = self._stops[key]
                self._put(key, Seen(Status.RUNNING))
            self._run(key, experiment, stop)

    def _run(self, key: str, experiment: Experiment, stop: threading.Event) -> None:
        from nla_core.steering.run import steer

        outcome, error, status = None, None, Status.DONE
        try:
            with self._models.using(experiment.pair) as explainer:
                for outcome in steer(explainer, experiment, cancelled=stop.is_set):
                    with self._changed:
                        self._put(key, Seen(Status.RUNNING, outcome))
        except Cancelled:
            status = Status.CANCELLED
        except NLAError as refused:
            status, error = Status.FAILED, refused
        except Exception as broken:
            _log.exception("experiment %s failed", key)
            status, error = Status.FAILED, _bug(broken)
        with self._changed:
            self._put(key, Seen(status, outcome, error))
            self._stops.pop(key, None)
            self._changed.notify_all()

    def _put(self, key: str, seen: Seen) -> None:
        self._seen[key] = seen
        self._seen.move_to_end(key)
        for old in [k for k, s in self._seen.items() if not s.active]:
            if len(self._seen) > MOST_KEPT:
                del self._seen[old]


def _bug(error: Exception) -> NLAError:
    return NLAError(
        "Something went wrong that should not have",
        why=f"{type(error).__name__}: {error}",
        fix="Try again; if it stays, report it with this line",
    )
