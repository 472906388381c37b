"""All models of this process, by device: one copy for the queue, for steering, for whoever asks.

Knows which shelf a request is best served from, and that models nobody uses are let go after a
while although no worker looks. Knows no run. The decision a reader would question: who does not
choose a device gets the one that has the pair already, else the queue's first of this machine; so a
server that reads prompts and steers loads a pair once, and its settings hold for both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from nla_core.errors import Cancelled
from nla_core.nla.threads import spare_cores
from nla_core.runs.pairs import Pairs
from nla_core.runs.remote_link import is_address
from nla_core.runs.schedule import PairKey
from nla_core.runs.settings import WorkerSettings
from nla_core.runs.shelf import LoadExplainer, LoadState, Shelf

if TYPE_CHECKING:
    from nla_core.explain import Explainer

LONGEST_LOOK: Final = 30.0


class Shelves:
    """One shelf a device, made when it is first asked for. Safe from any thread."""

    def __init__(
        self, pairs: Pairs, settings: WorkerSettings, load: LoadExplainer | None = None
    ) -> None:
        self.pairs, self.settings = pairs, settings
        self._load = load or pairs.load
        self._shelves: dict[str, Shelf] = {}
        self._lock = threading.Lock()
        self._keeper: threading.Thread | None = None

    def of(self, device: str) -> Shelf:
        """The device's shelf, the same for all who ask."""
        with self._lock:
            return self._shelf(device)

    def renewed(self, device: str) -> Shelf:
        """An empty one in its place; whoever uses models of the old one keeps those."""
        with self._lock:
            old = self._shelves.pop(device, None)
            new = self._shelf(device)
        if old is not None:
            old.retire()
        return new

    def ready(self, name: str) -> bool:
        """Whether that pair is loaded somewhere. May raise NLAError for an unknown pair."""
        here = self._here()
        if all(shelf.is_empty() for shelf in here):  # said without loading the model library
            return False
        key = self._key(name)
        return any(shelf.has(key) for shelf in here)

    @contextmanager
    def using(
        self, name: str, progress: Callable[[str], None] = lambda _: None
    ) -> Iterator[Explainer]:
        """The models of that pair, loaded if they are not (seconds to minutes).

        They may be in use by others, who notice nothing; while the queue is at work, whoever else
        uses them computes with one core. Raises NLAError where there is no such
        pair, or it cannot be loaded; see `nla_core.runs.shelf.Shelf.using`.
        """
        key = self._key(name)
        with ExitStack() as held:
            explainer = None
            while explainer is None:
                try:
                    shelf = self._nearest(key)
                    explainer = held.enter_context(shelf.using(key, name, progress))
                except Cancelled:  # it was replaced meanwhile
                    continue
            spare_cores()
            try:
                yield explainer
            finally:
                self._keep_watch()

    def _key(self, name: str) -> PairKey:
        pair = self.pairs.get(name)
        return pair.pair_id, pair.revision

    def _shelf(self, device: str) -> Shelf:
        if device not in self._shelves:
            asked = self.settings
            self._shelves[device] = Shelf(
                self._load,
                device=device,
                dtype=asked.dtype,
                memory_mb=asked.memory_mb,
                idle_s=asked.idle_unload_s,
            )
        return self._shelves[device]

    def _here(self) -> list[Shelf]:
        """Those of this machine, in the order of the settings."""
        names = [name for name in self.settings.device_names if not is_address(name)]
        with self._lock:
            return [self._shelf(name) for name in names or ["auto"]]

    def _nearest(self, key: PairKey) -> Shelf:
        here = self._here()
        for wanted in (LoadState.READY, LoadState.LOADING):
            for shelf in here:
                if shelf.state(key).state is wanted:
                    return shelf
        return here[0]

    # ---- where no worker looks -------------------------------------------------------------------

    def _keep_watch(self) -> None:
        with self._lock:
            if not self.settings.idle_unload_s or self._keeper is not None:
                return
            self._keeper = threading.Thread(target=self._keep, name="models-idle", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        """Let idle models go, until there are none."""
        pause = threading.Event()
        while True:
            pause.wait(min(LONGEST_LOOK, self.settings.idle_unload_s))
            for shelf in self._here():
                shelf.unload_idle()
            with self._lock:
                if all(shelf.is_empty() for shelf in self._shelves.values()):
                    self._keeper = None  # under the lock: who comes after this makes another
                    return
