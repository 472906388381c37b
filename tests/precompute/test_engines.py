"""The contract of engines: whatever their order and however often, the same dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from precompute.engines.base import Engine, Worker
from precompute.engines.local import LocalEngine
from precompute.plan import Plan, Shard
from precompute.workspace import Receipt
from tests.precompute.fake import published, run_fake


class ReversedEngine:
    """Another order, and every shard twice: an engine may do both."""

    def run(
        self, make_worker: Callable[[], Worker], shards: Sequence[Shard]
    ) -> Iterator[tuple[Shard, Receipt]]:
        worker = make_worker()
        for shard in reversed(shards):
            worker(shard)
            yield shard, worker(shard)


@pytest.mark.parametrize("engine", [LocalEngine(), ReversedEngine()], ids=type)
def test_engines_only_schedule(
    plan: Plan, tmp_path: Path, reference: dict[str, bytes], engine: Engine
) -> None:
    run_fake(plan, tmp_path / "engine", engine=engine)
    assert published(tmp_path / "engine") == reference


def test_local_engine_makes_no_worker_for_nothing() -> None:
    def make_worker() -> Worker:
        raise AssertionError

    assert list(LocalEngine().run(make_worker, [])) == []
