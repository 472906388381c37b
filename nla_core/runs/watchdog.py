"""Threads that die or fall silent are replaced; what they held is done by others.

Knows workers, the publisher, and how long silence may last. Knows no model and no run. The decision
a reader would question: a thread cannot be killed in Python, so one that hangs is left behind: its
lease is taken away, it ends at its next step if it ever gets there, and the new worker loads the
models afresh, since those of a hung thread may still be in use.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from nla_core.errors import NLAError
from nla_core.runs.desk import Desk
from nla_core.runs.publishing import Publisher
from nla_core.runs.schedule import pair_key
from nla_core.runs.settings import WorkerSettings
from nla_core.runs.shelf import Models
from nla_core.runs.worker import Worker

LOG = logging.getLogger(__name__)
LOOK_SECONDS: Final = 0.5


class Watchdog(threading.Thread):
    """One worker a device, and one publisher: always there until ``stop``.

    ``shelf_of`` gives a device's models, ``renewed`` the same afresh, without what may be in the
    hands of a thread that hangs.
    """

    def __init__(
        self,
        desk: Desk,
        settings: WorkerSettings,
        shelf_of: Callable[[str], Models],
        renewed: Callable[[str], Models],
        make_worker: Callable[[Models], Worker],
        make_publisher: Callable[[], Publisher],
    ) -> None:
        super().__init__(name="runs-watchdog", daemon=True)
        self.desk, self.settings = desk, settings
        self._renewed, self._make_worker = renewed, make_worker
        self._make_publisher = make_publisher
        self._stopping = threading.Event()
        self.workers = [make_worker(shelf_of(name)) for name in settings.device_names]
        self.publisher = make_publisher()
        self.n_replaced = 0

    def run(self) -> None:
        for thread in (*self.workers, self.publisher):
            thread.start()
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:
                LOG.exception("The watchdog stumbled")

    def look(self) -> None:
        """Replace what is dead or silent."""
        for slot, worker in enumerate(self.workers):
            silent, loading = worker.silent_for()
            limit = self.settings.load_s if loading else self.settings.stall_s
            if not worker.is_alive():
                LOG.error("The worker of %s died and is replaced", worker.shelf.device)
                self._replace(slot, worker, worker.shelf)
            elif silent > limit:
                LOG.error("The worker of %s gave no sign for %.0f s", worker.shelf.device, silent)
                self._replace(slot, worker, self._renewed(worker.shelf.device))
        self._refuse_orphans()
        if not self.publisher.is_alive():
            LOG.error("The publisher died and is replaced")
            self.publisher = self._make_publisher()
            self.publisher.start()

    def _refuse_orphans(self) -> None:
        """Runs of a pair that no worker can have end with a reason, instead of waiting for ever."""
        held = [worker.shelf.serves for worker in self.workers]
        if None in held:  # one takes any pair, or is not known yet
            return
        for key in {pair_key(run) for run in self.desk.open_runs()} - set(held):
            there = ", ".join(f"{serves[0]} at {serves[1]}" for serves in set(held) if serves)
            error = NLAError(
                f"No worker has the pair {key[0]} at revision {key[1]}",
                why=f"those in NLA_RUN_WORKER hold {there}",
                fix="Start one with this pair (python -m nla_core.api.worker), then retry the run",
            )
            self.desk.fail_runs(key, error)

    def stop(self, timeout_s: float) -> None:
        """Ask all threads to end, and wait for them; what they held is done at the next start."""
        self._stopping.set()
        for worker in self.workers:
            worker.retire()
        self.publisher.stop()
        with self.desk.changed:
            self.desk.changed.notify_all()
        for thread in (self, *self.workers, self.publisher):
            if thread.is_alive():
                thread.join(timeout_s)

    def _replace(self, slot: int, worker: Worker, shelf: Models) -> None:
        worker.retire()
        self.workers[slot] = self._make_worker(shelf)
        self.workers[slot].batch_size = worker.batch_size
        if worker.lease is not None:
            self.desk.finish(worker.lease, blame=True)
        self.n_replaced += 1
        self.workers[slot].start()
