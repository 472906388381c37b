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

Worker = Callable[[Shard], Receipt]
"""Computes one shard and commits it; safe to repeat, and safe beside another on the same shard."""


class Engine(Protocol):
    def run(
        self, make_worker: Callable[[], Worker], shards: Sequence[Shard]
    ) -> Iterator[tuple[Shard, Receipt]]:
        """Every shard once, in any order, each yielded when it is committed.

        A worker is made only if there is a shard to do. What a worker raises ends the run.
        """
        ...
