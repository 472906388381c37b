"""Shards one after another in this process.

Knows the order of shards and nothing else. The decision a reader would question: no pool of
processes; one model already uses all cores, and a second copy would only cost its memory. More than
one machine may run the same command on one folder: what one has finished, the other skips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from precompute.engines.base import Worker
from precompute.plan import Shard
from precompute.workspace import Receipt


class LocalEngine:
    def run(
        self, make_worker: Callable[[], Worker], shards: Sequence[Shard]
    ) -> Iterator[tuple[Shard, Receipt]]:
        """See `precompute.engines.base.Engine`."""
        worker: Worker | None = None
        for shard in shards:
            worker = worker or make_worker()
            yield shard, worker(shard)
