"""The contract of engines: whatever their order and however often, the same dataset."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from nla_core.errors import NLAError
from precompute.engines import Engine, LocalEngine, Worker, device_of
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


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"engine": "ray", "device": "split"}, "--device split means nothing"),
        ({"engine": "ray", "device": "split", "ray_address": "10.0.0.2:6379"}, "--device split"),
        ({"engine": "ray", "world_size": 2}, "--world-size 2 means nothing"),
        ({"ray_address": "10.0.0.2:6379"}, "--ray-address means nothing"),
        ({"workers": 2}, "--workers means nothing"),
        ({"engine": "ray", "ray_address": "auto", "device": "auto"}, "--device auto cannot be"),
        ({"engine": "ray", "ray_address": "auto", "device": "gpu"}, "'gpu' names no device"),
        ({"device": "gpu"}, "'gpu' names no device"),
    ],
)
def test_flags_that_mean_nothing_are_refused(flags: dict[str, object], said: str) -> None:
    args = Namespace(
        **{"engine": "local", "device": "auto", "ray_address": None, "workers": None}
        | {"rank": 0, "world_size": 1}
        | flags
    )
    with pytest.raises(NLAError, match=said):
        device_of(args)
