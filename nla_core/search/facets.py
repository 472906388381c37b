"""What every reading can be filtered by, in memory: 16 bytes a reading.

Knows columns aligned with the rows of the readings file, and how filters become one mask over them.
Does not know words or vectors. The decision a reader would question: filters are applied before a
search and not to its hits, so a rare filter neither empties a page nor costs recall.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from nla_core.schema import Flag, Role
from nla_core.search.query import Filters
from nla_core.store.dataset import Dataset

KEPT_MASKS = 16
ROLES = [*Role]
FLAGS = [*Flag]


class Facets:
    """Columns by reading: ``transcript`` (a row of the transcripts), ``position``, ``sample``,
    ``role`` (place in ROLES), ``fve``, ``flags`` (a bit each, in the order of FLAGS).

    ``first[t]`` is the first reading of transcript t, ``first[t + 1]`` the end of its readings.
    """

    def __init__(self, dataset: Dataset) -> None:
        columns = dataset.reading_columns()
        self.transcript, self.position = columns["transcript"], columns["position"]
        self.sample, self.role = columns["sample"], columns["role"]
        self.fve, self.flags = columns["fve"], columns["flags"]
        transcripts = dataset.transcript_columns()
        self.ids: list[str] = transcripts["transcript_id"].tolist()
        self.titles: list[str] = transcripts["title"].tolist()
        self.categories = transcripts["category"].to_numpy(object)
        self._tags = [frozenset(tags) for tags in transcripts["tags"]]
        self.number = {name: row for row, name in enumerate(self.ids)}
        self.first = np.searchsorted(self.transcript, np.arange(len(self.ids) + 1))
        self._masks: OrderedDict[Filters, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.transcript)

    def transcripts(self, filters: Filters) -> np.ndarray:
        """[transcript] bool: those of the wanted categories and tags."""
        keep = np.ones(len(self.ids), dtype=bool)
        if filters.categories:
            keep &= np.isin(self.categories, filters.categories)
        if filters.tags:
            wanted = frozenset(filters.tags)
            keep &= np.fromiter((wanted <= tags for tags in self._tags), bool, len(self.ids))
        return keep

    def mask(self, filters: Filters) -> np.ndarray | None:
        """[reading] bool, not to be written to; None where nothing is filtered."""
        if not filters.active:
            return None
        with self._lock:
            if (known := self._masks.get(filters)) is not None:
                self._masks.move_to_end(filters)
                return known
        keep = self._mask(filters)
        keep.flags.writeable = False
        with self._lock:
            self._masks[filters] = keep
            while len(self._masks) > KEPT_MASKS:
                self._masks.popitem(last=False)
        return keep

    def _mask(self, filters: Filters) -> np.ndarray:
        keep = self.transcripts(filters)[self.transcript]
        if filters.roles:
            keep &= np.isin(self.role, [ROLES.index(role) for role in filters.roles])
        for flags, wanted in ((filters.flags, True), (filters.no_flags, False)):
            for flag in flags:
                keep &= ((self.flags >> FLAGS.index(flag) & 1) == 1) == wanted
        if filters.fve_min is not None:
            keep &= self.fve >= filters.fve_min
        low, high = filters.positions
        if low is not None:
            keep &= self.position >= low
        if high is not None:
            keep &= self.position <= high
        return keep

    def flags_of(self, row: int) -> tuple[str, ...]:
        return tuple(flag for bit, flag in enumerate(FLAGS) if self.flags[row] >> bit & 1)
