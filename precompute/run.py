"""Verb ``run``: a corpus and a pair in, a published dataset out.

The pair is loaded only if a shard is missing; running a finished command again only publishes
again. When a step fails for a whole shard, it is repeated prompt by prompt, so that only the prompt
at fault loses its rows.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from nla_core.data.transfer import Store
from nla_core.embed import Embedder, MiniLM
from nla_core.errors import EXIT_OK, NLAError
from nla_core.models.chat import Message
from nla_core.rows import Outcome, tables_of
from precompute.corpus import read_corpus
from precompute.engines import Engine, LocalEngine, device_of, engine_of
from precompute.lease import leasing
from precompute.mirror import open_workspace
from precompute.output import write_result
from precompute.places import Place, add_place_arguments, place_of
from precompute.plan import (
    Plan,
    Settings,
    Shard,
    add_corpus_arguments,
    add_settings,
    make_plan,
    prompt_seeds,
)
from precompute.progress import Progress
from precompute.publish import publish_workspace
from precompute.workspace import Receipt, Workspace, driving

HELP = (
    "Answer every prompt of a corpus with the target, explain every token of prompt and answer "
    "with an NLA, and publish the result as a dataset. Kill it at any moment and run the same "
    "command again: finished shards are kept, and the dataset comes out the same."
)
EXAMPLE = (
    "python -m precompute run --nla data/nla/smollm2-135m-L20 "
    "--corpus data/prompts/*.jsonl --out data/demo"
)

Tick = Callable[[int, int], None]
"""Called with (readings finished, readings to do) of the shard at work."""


class ShardExplainer(Protocol):
    """What a shard needs of `nla_core.explain.Explainer`."""

    def transcribe(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
    ) -> Sequence[Any]: ...

    def content_positions(self, transcript: Any) -> Sequence[int]: ...

    def explain(
        self,
        transcripts: Sequence[Any],
        positions: Sequence[Sequence[int]],
        *,
        samples: int,
        temperature: float,
        seed: int,
        max_new_tokens: int,
        batch_size: int,
        on_progress: Tick,
    ) -> Iterator[tuple[int, Any]]: ...

    def reading_id(self, transcript_id: str, reading: Any) -> str: ...


MakeExplainer = Callable[[], ShardExplainer]


_GIVEN_UP = NLAError(
    "This prompt could not be processed",
    why="the workers that tried it died, each by itself as well",
    fix="Run it alone with `--engine local` to see what happens, or leave it out of the corpus",
)


def process(
    shard: Shard, settings: Settings, explainer: ShardExplainer, tick: Tick = lambda *_: None
) -> tuple[dict[str, pa.Table], int]:
    """The shard's rows, by table, and how many of its prompts failed.

    Only NLAError is taken as a prompt's own fault; anything else ends the run, and the shards
    finished before are kept.
    """
    seeds = prompt_seeds(shard, settings.seed)
    outcomes = [Outcome(*pair) for pair in zip(shard.prompts, seeds, strict=True)]
    for outcome in outcomes:
        if outcome.prompt.id in shard.given_up:
            outcome.error = _GIVEN_UP
    _transcribe([o for o in outcomes if o.error is None], settings, explainer)
    _explain([o for o in outcomes if o.error is None], settings, explainer, tick)
    tables = tables_of(outcomes, explainer.reading_id, asdict(settings))
    return tables, sum(outcome.error is not None for outcome in outcomes)


def _transcribe(outcomes: list[Outcome], settings: Settings, explainer: ShardExplainer) -> None:
    """Fill in the transcript or the error of each outcome."""
    if not outcomes:
        return
    try:
        made = explainer.transcribe(
            [outcome.prompt.messages for outcome in outcomes],
            seeds=[outcome.seed for outcome in outcomes],
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
        )
    except NLAError as error:
        made = [error]
        if len(outcomes) > 1:
            for outcome in outcomes:
                _transcribe([outcome], settings, explainer)
            return
    for outcome, found in zip(outcomes, made, strict=True):
        if isinstance(found, NLAError):
            outcome.error = found
        else:
            outcome.transcript = found


def _explain(
    outcomes: list[Outcome], settings: Settings, explainer: ShardExplainer, tick: Tick
) -> None:
    """Fill in the readings of all outcomes, together or, if that fails, each for itself."""
    if not outcomes:
        return
    try:
        found = explainer.explain(
            [outcome.transcript for outcome in outcomes],
            [explainer.content_positions(outcome.transcript) for outcome in outcomes],
            samples=settings.samples,
            temperature=settings.explanation_temperature,
            seed=settings.seed,
            max_new_tokens=settings.explanation_tokens,
            batch_size=settings.batch_size,
            on_progress=tick,
        )
        for index, reading in found:
            outcomes[index].readings.append(reading)
    except NLAError as error:
        for outcome in outcomes:
            outcome.readings.clear()
        if len(outcomes) == 1:
            outcomes[0].error = error
            return
        for outcome in outcomes:
            _explain([outcome], settings, explainer, tick)


@dataclass(frozen=True, slots=True)
class ShardWorker:
    """A loaded explainer at work on the shards of a plan; see `precompute.engines.Worker`."""

    plan: Plan
    workspace: Workspace
    explainer: ShardExplainer
    progress: Progress | None

    def __call__(self, shard: Shard) -> Receipt:
        """Compute and commit one shard, unless another worker has done so since the run began."""
        if receipt := self.workspace.receipt(shard.name):
            return receipt
        return self.workspace.commit(shard.name, *self._compute(shard))

    def rehearse(self, shard: Shard) -> None:
        self._compute(shard)

    def _compute(self, shard: Shard) -> tuple[dict[str, pa.Table], int]:
        return process(shard, self.plan.settings, self.explainer, tick=self._tick(shard))

    def _tick(self, shard: Shard) -> Callable[[int, int], None]:
        progress = self.progress
        return partial(progress.tick, shard) if progress else lambda done, of: None


@dataclass(frozen=True, slots=True)
class MakeWorker:
    """Loads an explainer where it is called. Pickled, it leaves the terminal's line behind."""

    plan: Plan
    workspace: Workspace
    make_explainer: MakeExplainer
    progress: Progress | None

    def __call__(self) -> ShardWorker:
        """Raises NLAError where the libraries are others than those the plan was made with."""
        for package, planned in self.plan.software.items():
            if (found := version(package)) != planned:
                raise NLAError(
                    f"A worker has another {package} than the driver",
                    why=f"{socket.gethostname()} has {found}, the run was planned with {planned}",
                    fix="Install the same requirements.txt on all machines",
                )
        explainer = self.make_explainer()
        if self.progress:
            self.progress.begin()
        return ShardWorker(self.plan, self.workspace, explainer, self.progress)

    def __reduce__(self) -> tuple[Any, ...]:
        return MakeWorker, (self.plan, self.workspace, self.make_explainer, None)


def load_explainer(folder: Path, device: str, dtype: str) -> ShardExplainer:
    """The pair, loaded in this process with its steps reported on stderr. Raises NLAError."""
    from transformers.utils.logging import disable_progress_bar

    from nla_core.explain import Explainer

    disable_progress_bar()  # a bar for each of three models would hide our own line
    return Explainer.load(
        folder,
        device=device,
        dtype=dtype,
        progress=lambda text: print(text, file=sys.stderr, flush=True),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_corpus_arguments(parser)
    add_settings(parser)
    add_place_arguments(parser, "where the dataset is published")
    parser.add_argument(
        "--take-over",
        action="store_true",
        help="where --out is a URL: begin although another run holds it, which has died",
    )
    parser.add_argument(
        "--name", help="the dataset's name in its manifest (default: the last part of --out)"
    )
    parser.add_argument(
        "--rank", type=int, default=0, metavar="R", help="which of several workers this one is"
    )
    parser.add_argument(
        "--world-size",
        type=int,
        default=1,
        metavar="W",
        help="workers that run this command on the same --out at the same time (default: 1)",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="who does the shards: this process, or a pool of Ray workers (default: local)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="URL",
        help="a Ray cluster, as in ray://head:10001 (default: one on this machine)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="Ray workers at once (default: one a GPU, or one a machine without)",
    )
    parser.add_argument(
        "--no-publish", action="store_true", help="compute the shards only; `publish` does the rest"
    )


def main(args: argparse.Namespace) -> int:
    corpus = read_corpus(
        args.corpus, answered=args.max_new_tokens == 0
    )  # before the slow imports: mistakes are reported at once
    chosen = {field.name: getattr(args, field.name) for field in fields(Settings)}
    settings = Settings(**chosen)

    from nla_core.models.devices import SPLIT, pick_dtype
    from nla_core.models.pair import find_pair

    place = place_of(args)
    if args.engine == "ray":  # workers run in folders of their own
        args.nla, place = args.nla.resolve(), replace(place, local=place.local.resolve())
    device = device_of(args)
    engine = engine_of(args, gpu=device.type == "cuda")
    dtype = str(pick_dtype(device, args.dtype)).removeprefix("torch.")
    settings = replace(settings, device=device.type, dtype=dtype)
    plan = make_plan(
        corpus,
        pair=find_pair(args.nla).describe(),
        settings=settings,
        name=args.name or place.name,
        limit=args.limit,
    )

    embedder = None if args.no_publish else MiniLM()
    name = args.device if args.device.startswith(SPLIT) else str(device)
    make_explainer = partial(load_explainer, args.nla, name, dtype)
    with _driving(place, args) as still_ours:
        result = execute(
            plan, place.local, make_explainer, embedder=embedder, engine=engine,
            store=place.store, check=still_ours,
        )  # fmt: skip
    write_result(args, result)
    return EXIT_OK


def execute(
    plan: Plan,
    out: Path,
    make_explainer: MakeExplainer,
    *,
    embedder: Embedder | None,
    engine: Engine | None = None,
    store: Store | None = None,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Do what is missing of ``plan`` under ``out``; publish if there is an ``embedder``.

    With a ``store``, it is begun with what lies there and left with what was made. ``check`` is
    called after every shard, and raises to end the run.
    """
    workspace = open_workspace(out, plan, store)
    receipts = workspace.receipts()
    todo = [shard for shard in plan.shards if receipts[shard.name] is None]
    total = sum(len(shard.prompts) for shard in plan.shards)
    progress = Progress(todo, total=total, answer_tokens=plan.settings.max_new_tokens)
    progress.say(
        f"Run {plan.config_hash}: {total} prompts in {len(plan.shards)} shards, "
        f"{len(plan.shards) - len(todo)} finished before"
    )

    make_worker = MakeWorker(plan, workspace, make_explainer, progress)
    for shard, receipt in (engine or LocalEngine()).run(make_worker, todo):
        receipts[shard.name] = receipt
        progress.finished(shard, receipt.counts["readings"])
        check()
    done = [receipt for receipt in receipts.values() if receipt is not None]
    result = {
        "config": plan.config_hash,
        "out": store.url if store else str(out),
        "n_shards": len(done),
        "n_prompts": total,
        "n_errors": sum(receipt.n_errors for receipt in done),
        "n_readings": sum(receipt.counts["readings"] for receipt in done),
        "version": None,
    }
    if failed := result["n_errors"]:
        progress.say(f"{failed} prompts could not be processed; their rows say why")
    if embedder is not None:
        result["n_unreadable"] = workspace.n_unreadable()
        if lost := result["n_unreadable"]:
            progress.say(
                f"{lost} tokens have no explanation, since their vector is zero or not finite: "
                "norm 0 in the table of tokens"
            )
        result["version"] = publish_workspace(
            workspace, out, embedder, say=progress.say, store=store
        )
    return result


@contextlib.contextmanager
def _driving(place: Place, args: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """The folder's lock, and the store's lease; yields what tells that the lease was lost."""
    with contextlib.ExitStack() as held:
        held.enter_context(driving(place.local, args.rank, args.world_size))
        if place.store is None:
            yield lambda: None
        else:
            lease = leasing(place.store, args.rank, args.world_size, take_over=args.take_over)
            yield held.enter_context(lease)
