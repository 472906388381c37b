"""The contract of engines: whatever their order and however often, the same dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from nla_core.errors import NLAError
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


@pytest.mark.parametrize("engine", [LocalEngine(), LocalEngine(1, 2), ReversedEngine()])
def test_engines_only_schedule(
    plan: Plan, tmp_path: Path, reference: dict[str, bytes], engine: Engine
) -> None:
    run_fake(plan, tmp_path / "engine", engine=engine)
    assert published(tmp_path / "engine") == reference


def test_local_engine_makes_no_worker_for_nothing() -> None:
    def make_worker() -> Worker:
        raise AssertionError

    assert list(LocalEngine().run(make_worker, [])) == []


def test_workers_begin_with_their_own_shards_and_finish_all(plan: Plan) -> None:
    def order(rank: int) -> list[int]:
        done = LocalEngine(rank, 2).run(lambda: lambda shard: shard, plan.shards)  # type: ignore[arg-type,return-value]
        return [shard.index for shard, _ in done]

    everything = [shard.index for shard in plan.shards]
    assert sorted(order(0)) == sorted(order(1)) == everything
    assert order(0)[0] != order(1)[0]


@pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 1), (0, 0)])
def test_ranks_out_of_range_are_refused(rank: int, size: int) -> None:
    with pytest.raises(NLAError, match=f"rank {rank} does not exist"):
        LocalEngine(rank, size)
