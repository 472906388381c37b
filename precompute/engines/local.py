"""Shards one after another in this process.

Knows the order of shards and nothing else. The decision a reader would question: no pool of
processes. The same command may run several times on one folder, on one machine or many, each with
a ``rank`` of its own: it begins with its share and then helps with what the others have not
finished, so that a worker that dies costs time and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nla_core.errors import NLAError
from precompute.engines.base import Worker
from precompute.plan import Shard
from precompute.workspace import Receipt


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """``rank`` counts from 0 to ``world_size`` - 1 and decides the order of shards, never rows."""

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise NLAError(
                f"--rank {self.rank} does not exist",
                why=f"With --world-size {self.world_size} the last rank is {self.world_size - 1}",
                fix="Give each of the workers another rank of these",
            )

    def run(
        self, make_worker: Callable[[], Worker], shards: Sequence[Shard]
    ) -> Iterator[tuple[Shard, Receipt]]:
        """See `precompute.engines.base.Engine`."""
        worker: Worker | None = None
        own = [s for s in shards if s.index % self.world_size == self.rank]
        # The others' shards from the far end: there they are least likely to be at work.
        others = [s for s in reversed(shards) if s.index % self.world_size != self.rank]
        for shard in own + others:
            worker = worker or make_worker()
            yield shard, worker(shard)
