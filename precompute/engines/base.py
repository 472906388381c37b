"""The contract of an engine: it hands shards to workers, and nothing more.

Knows neither models nor files. The decision a reader would question: an engine gets a *maker* of
workers, not a worker, because a worker holds models that cannot travel between processes; each
process that an engine starts makes its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from precompute.plan import Shard
from precompute.workspace import Receipt


class Worker(Protocol):
    def __call__(self, shard: Shard) -> Receipt:
        """Compute one shard and commit it; safe to repeat, and beside another on the same shard."""
        ...

    def rehearse(self, shard: Shard) -> None:
        """Compute it and commit nothing: to see whether that can be survived."""
        ...


class Engine(Protocol):
    def run(
        self, make_worker: Callable[[], Worker], shards: Sequence[Shard]
    ) -> Iterator[tuple[Shard, Receipt]]:
        """Every shard once, in any order, each yielded when it is committed.

        A worker is made only if there is a shard to do. What a worker raises ends the run.
        """
        ...
