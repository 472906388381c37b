"""Who does the shards of a run: this process, or a pool of Ray actors here or on a cluster.

An engine is given a *maker* of workers, not a worker: a worker holds models, which cannot travel
between processes, so each process that an engine starts makes its own. Ray is imported only where
it was asked for, since it is an optional dependency. Ray never restarts an actor here: the driver
starts new ones, up to what there is room for now, so that a worker that died, a node that joined
and a node that left are one case. The driver also counts the deaths over each shard, which is how
a prompt that kills its workers is found and given up alone.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from nla_core.errors import NLAError
from nla_core.models.devices import SPLIT
from precompute.plan import Shard
from precompute.workspace import Receipt

if TYPE_CHECKING:
    import torch
ROOT: Final = Path(__file__).parents[1]
TICK_SECONDS: Final = 1.0
CONNECT_SECONDS: Final = 10.0
PLACE_SECONDS: Final = 60.0
"""How long no worker may be there before the driver says that there is no room."""
MAX_DEATHS: Final = 3
"""Of workers over one shard before its prompts are tried alone, and over one prompt alone."""


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
        """See `precompute.engines.Engine`."""
        worker: Worker | None = None
        own = [s for s in shards if s.index % self.world_size == self.rank]
        # The others' shards from the far end: there they are least likely to be at work.
        others = [s for s in reversed(shards) if s.index % self.world_size != self.rank]
        for shard in own + others:
            worker = worker or make_worker()
            yield shard, worker(shard)


@dataclass(frozen=True, slots=True)
class Need:
    """What one worker takes of a node."""

    cpus: float
    gpus: float = 0.0

    def room(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """How many workers fit on these nodes, given the resources of each."""
        fitting = 0
        for node in nodes:
            by_cpu = node.get("CPU", 0.0) / self.cpus
            fitting += int(min(by_cpu, node.get("GPU", 0.0) / self.gpus) if self.gpus else by_cpu)
        return fitting

    def __str__(self) -> str:
        return f"{self.gpus:g} GPU and {self.cpus:g} CPU" if self.gpus else f"{self.cpus:g} CPU"


@dataclass(frozen=True, slots=True)
class RayEngine:
    """``address`` is that of a cluster, ``ray://`` too; without one, this machine is the cluster.

    ``workers`` at once; without it, one a GPU, or one a node where ``gpu`` is false.
    """

    address: str | None = None
    workers: int | None = None
    gpu: bool = False
    place_s: float = PLACE_SECONDS

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise NLAError(
                f"--workers {self.workers} is none", why="Expected 1 or more", fix="Change it"
            )

    def run(
        self, make_worker: Callable[[], Worker], shards: Sequence[Shard]
    ) -> Iterator[tuple[Shard, Receipt]]:
        """See `precompute.engines.Engine`; ``make_worker`` is pickled.

        Raises NLAError where there is no Ray, no room for the workers, or no life in them.
        """
        if not shards:
            return
        ray = connected(self.address)
        try:
            yield from _Pool(ray, self, make_worker, shards).work()
        finally:
            ray.shutdown()

    def need(self, nodes: Sequence[Mapping[str, float]]) -> Need:
        """What each worker is given: a GPU, or an even share of CPUs. Raises NLAError."""
        wanted = self.workers or 1
        most = int(max((node.get("CPU", 0.0) for node in nodes), default=0))
        least = int(min((node.get("CPU", 0.0) for node in nodes), default=0))
        if self.gpu:
            need = Need(1.0, 1.0)
        elif self.workers is None:
            need = Need(float(max(1, least)))
        else:
            shares = (Need(float(cpus)) for cpus in range(most, 1, -1))
            need = next((share for share in shares if share.room(nodes) >= wanted), Need(1.0))
        if need.room(nodes) < wanted:
            raise NLAError(
                f"The Ray cluster has no room for {wanted} workers of {need} each",
                why=f"its nodes have {_shown(nodes)}, which is room for {need.room(nodes)}",
                fix="Lower --workers, choose another --device, or add nodes to the cluster",
            )
        return need


class ShardActor:
    """One worker's process. Errors are returned as values: not every exception can be pickled."""

    def __init__(self, make_worker: Callable[[], Worker]) -> None:
        self.make_worker = make_worker
        self.worker: Worker | None = None

    def pid(self) -> int:
        return os.getpid()

    def load(self) -> Receipt | NLAError | str | None:
        return self._answer(self._load)

    def do(self, shard: Shard) -> Receipt | NLAError | str | None:
        return self._answer(lambda: self._load()(shard))

    def rehearse(self, shard: Shard) -> Receipt | NLAError | str | None:
        return self._answer(lambda: self._load().rehearse(shard))

    def _load(self) -> Worker:
        self.worker = self.worker or self.make_worker()
        return self.worker

    def _answer(self, work: Callable[[], Any]) -> Receipt | NLAError | str | None:
        import traceback

        try:
            done = work()
        except NLAError as error:
            return error
        except Exception:
            return traceback.format_exc()
        return done if isinstance(done, Receipt) else None


@dataclass(slots=True, eq=False)
class _Task:
    """A shard, or after too many deaths the prompts of it, each by itself."""

    shard: Shard
    deaths: int = 0
    trial: deque[int] | None = None  # prompts still to be tried alone

    @property
    def part(self) -> Shard:
        """What is to be done next."""
        if not self.trial:
            return self.shard
        return replace(self.shard, prompts=(self.shard.prompts[self.trial[0]],))


@dataclass(slots=True, eq=False)
class _Actor:
    """A Ray actor, and what it was asked last."""

    handle: Any
    placed: Any  # resolved as soon as it has a process
    task: _Task | None = None
    ready: bool = False


@dataclass(slots=True, eq=False)
class _Pool:
    ray: Any
    engine: RayEngine
    make_worker: Callable[[], Worker]
    shards: Sequence[Shard]
    asked: dict[Any, _Actor] = field(default_factory=dict)  # by the result that is awaited
    failed_starts: int = 0

    def work(self) -> Iterator[tuple[Shard, Receipt]]:
        queue = deque(_Task(shard) for shard in self.shards)
        need = self.engine.need(self._nodes())
        make = self.ray.put(self.make_worker)
        alive_at = time.monotonic()
        left = len(queue)
        while left:
            self._fill(need, make, left)
            promises, _ = self.ray.wait(list(self.asked), num_returns=1, timeout=TICK_SECONDS)
            for promise in promises:
                actor = self.asked.pop(promise)
                try:
                    answer = self.ray.get(promise)
                except self.ray.exceptions.RayTaskError as error:
                    raise RuntimeError(f"A worker failed:\n{error}") from None
                except self.ray.exceptions.RayError as error:
                    self._died(actor, queue, error)
                    continue
                alive_at, self.failed_starts = time.monotonic(), 0
                done = _result(actor, answer, queue)
                if done is not None:
                    left -= 1
                    yield done
                actor.ready = True
                self._ask(actor, queue)
            if any(actor.ready for actor in self.asked.values()):
                alive_at = time.monotonic()
            elif time.monotonic() - alive_at > self.engine.place_s and not self._placed():
                raise self._no_room(need)

    def _fill(self, need: Need, make: Any, left: int) -> None:
        """Start as many workers as there is room and work for."""
        wanted = self.engine.workers or max(1, need.room(self._nodes()))
        while len(self.asked) < min(wanted, left):
            remote = self.ray.remote(ShardActor).options(
                num_cpus=need.cpus, num_gpus=need.gpus, max_restarts=0, max_task_retries=0
            )
            handle = remote.remote(make)
            actor = _Actor(handle, handle.pid.remote())
            self.asked[actor.handle.load.remote()] = actor

    def _ask(self, actor: _Actor, queue: deque[_Task]) -> None:
        """The next task; an actor without one is let go."""
        if not queue:
            return
        actor.task = task = queue.popleft()
        call = actor.handle.rehearse if task.trial else actor.handle.do
        self.asked[call.remote(task.part)] = actor

    def _died(self, actor: _Actor, queue: deque[_Task], error: Exception) -> None:
        task = actor.task
        if task is None:
            self.failed_starts += 1
            if self.failed_starts >= MAX_DEATHS:
                raise NLAError(
                    "Ray's workers die while they load the models",
                    why=f"{self.failed_starts} in a row did, the last one with: {_short(error)}",
                    fix="Use fewer --workers, so that each has more memory, or a smaller pair",
                ) from None
            return
        task.deaths += 1
        if task.deaths >= MAX_DEATHS:
            _suspect(task)
        queue.append(task)

    def _nodes(self) -> list[Mapping[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _placed(self) -> bool:
        """Whether any worker has begun: then it is loading, which may take long."""
        placed = [actor.placed for actor in self.asked.values()]
        return bool(self.ray.wait(placed, num_returns=1, timeout=0)[0])

    def _no_room(self, need: Need) -> NLAError:
        free = self.ray.available_resources()
        return NLAError(
            f"The Ray cluster had no worker for {self.engine.place_s:.0f} seconds",
            why=f"each takes {need}; free are {_shown([free])}, its nodes have "
            f"{_shown(self._nodes()) or 'nothing'}",
            fix="Wait until others are done, or add nodes, then run the same command again",
        )


def _result(actor: _Actor, answer: Any, queue: deque[_Task]) -> tuple[Shard, Receipt] | None:
    """Read an answer: a finished shard, or None after a prompt that survived alone.

    Raises NLAError where a worker says that the run cannot go on.
    """
    if isinstance(answer, NLAError):
        raise answer
    if isinstance(answer, str):
        raise RuntimeError(f"A worker failed:\n{answer}")
    task, actor.task = actor.task, None
    if task is None:
        return None
    if task.trial:
        task.trial.popleft()
        task.deaths = 0
        queue.appendleft(task)
        return None
    return task.shard, answer


def _suspect(task: _Task) -> None:
    """After too many deaths, try prompts alone, or give up the one that was alone."""
    task.deaths = 0
    if task.trial is None:
        task.trial = deque(range(len(task.shard.prompts)))
        return
    if not task.trial:
        raise NLAError(
            f"{task.shard.name} cannot be computed",
            why=f"{MAX_DEATHS} workers died over it, though each prompt of it went well alone or "
            "was given up",
            fix="Lower --batch-size or --shard-size: all of its prompts together may need too much",
        )
    prompt = task.shard.prompts[task.trial.popleft()]
    task.shard = replace(task.shard, given_up=task.shard.given_up | {prompt.id})


def connected(address: str | None) -> Any:
    """Ray, connected to a cluster or to one that is started here. Raises NLAError.

    It reports to nobody; started here, it listens on loopback only.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:  # named after the systems where Ray does so by itself
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # as polite as --engine local, not more
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise NLAError(
            "Ray is not installed",
            why="--engine ray needs it, and it is not among requirements.txt",
            fix="Install it with `pip install -r requirements-ray.txt`, or use --engine local",
        ) from None
    how: dict[str, Any] = {} if address else {"include_dashboard": False}
    if address and address.startswith("ray://"):  # else Ray hands on the folder we are in
        how["runtime_env"] = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    try:
        if address is not None:  # Ray itself waits minutes for one that is not there
            parts = urlsplit(address if "//" in address else f"//{address}")
            socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS).close()
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.WARNING,
            **how,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise NLAError(
            f"The Ray cluster at {address or 'this machine'} cannot be used",
            why=_short(error),
            fix="Check --ray-address, and that both sides run the Ray of requirements-ray.txt",
        ) from None
    return ray


def _shown(nodes: Sequence[Mapping[str, float]]) -> str:
    return "; ".join(f"{n.get('CPU', 0):g} CPU, {n.get('GPU', 0):g} GPU" for n in nodes)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def device_of(args: argparse.Namespace) -> torch.device:
    """The workers' device: that of this machine, or what is said of a cluster.

    Raises NLAError for a device that is not there, and for flags that belong to the other engine.
    """
    _check_flags(args)
    from nla_core.models.devices import named, pick_place

    if args.ray_address is None:
        return pick_place(args.device).first
    if args.device == "auto":
        raise NLAError(
            "--device auto cannot be decided for a Ray cluster",
            why="the machines that will do the work are not this one",
            fix="Say --device cuda or --device cpu",
        )
    return named(args.device)


def engine_of(args: argparse.Namespace, *, gpu: bool) -> Engine:
    """Whose workers compute on what `device_of` said, ``gpu`` or not."""
    if args.engine == "local":
        return LocalEngine(args.rank, args.world_size)
    from precompute.engines import RayEngine

    return RayEngine(args.ray_address, args.workers, gpu)


def _check_flags(args: argparse.Namespace) -> None:
    if args.engine == "local":
        for name in ("ray_address", "workers"):
            if getattr(args, name) is not None:
                raise NLAError(
                    f"--{name.replace('_', '-')} means nothing here",
                    why="it belongs to --engine ray, and this is --engine local",
                    fix="Add --engine ray, or leave it away",
                )
        return
    if args.device.startswith(SPLIT):
        raise NLAError(
            f"--device {args.device} means nothing with --engine ray",
            why="Ray gives each worker one GPU",
            fix="Use --engine local; ranks on several machines share the shards",
        )
    if args.world_size != 1:
        raise NLAError(
            f"--world-size {args.world_size} means nothing here",
            why="with --engine ray one driver has all the workers",
            fix="Use --workers, or --engine local",
        )
