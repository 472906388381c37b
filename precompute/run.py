"""Verb ``run``: a corpus and a pair in, a published dataset out.

Knows the order of things: check the corpus, plan, do the shards that are missing, publish. Does not
know how a shard is computed, stored or scheduled. The decision a reader would question: the pair is
loaded only if a shard is missing; running a finished command again only publishes again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from nla_core.embed import Embedder, MiniLM
from nla_core.errors import EXIT_OK
from precompute.corpus import read_corpus
from precompute.engines.base import Engine, Worker
from precompute.engines.local import LocalEngine
from precompute.output import write_result
from precompute.plan import Plan, Settings, Shard, make_plan
from precompute.progress import Progress
from precompute.publish import publish_workspace
from precompute.shards import ShardExplainer, process
from precompute.workspace import Receipt, Workspace

HELP = (
    "Answer every prompt of a corpus with the target, explain every token of prompt and answer "
    "with an NLA, and publish the result as a dataset. Kill it at any moment and run the same "
    "command again: finished shards are kept, and the dataset comes out the same."
)
EXAMPLE = (
    "python -m precompute run --nla data/nla/smollm2-135m-L20 "
    "--corpus data/prompts/*.jsonl --out data/demo"
)

MakeExplainer = Callable[[], ShardExplainer]


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    """What is to be explained, and with which pair."""
    parser.add_argument(
        "--nla", type=Path, required=True, metavar="DIR", help="the NLA pair (av/ and ar/)"
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, nargs="+", metavar="FILE", help="prompt JSONL files"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only the first N prompts, by id (to try it out)"
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Everything that decides what is made of a prompt."""
    default = {field.name: field.default for field in fields(Settings)}
    for name, kind, text in (
        ("max_new_tokens", int, "longest answer of the target, in tokens"),
        ("temperature", float, "sampling temperature of the answers; 0 is greedy"),
        ("samples", int, "explanations for each token"),
        ("explanation_tokens", int, "longest explanation, in tokens; longer ones are cut, flagged"),
        ("explanation_temperature", float, "sampling temperature of the explanations"),
        ("batch_size", int, "vectors explained at once"),
        ("shard_size", int, "prompts in one shard, the unit that is kept when a run is killed"),
        ("seed", int, "seed of everything that is sampled"),
    ):
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=kind,
            default=default[name],
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16 or float16 (default: auto)"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_corpus_arguments(parser)
    add_settings(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where the dataset is published"
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
        "--no-publish", action="store_true", help="compute the shards only; `publish` does the rest"
    )


def main(args: argparse.Namespace) -> int:
    corpus = read_corpus(
        args.corpus, answered=args.max_new_tokens == 0
    )  # before the slow imports: mistakes are told at once
    chosen = {field.name: getattr(args, field.name) for field in fields(Settings)}
    settings = Settings(**chosen)

    from nla_core.nla.devices import pick_device, pick_dtype
    from nla_core.nla.pair import find_pair

    device = pick_device(args.device)
    dtype = str(pick_dtype(device, args.dtype)).removeprefix("torch.")
    settings = replace(settings, device=device.type, dtype=dtype)
    plan = make_plan(
        corpus,
        pair=find_pair(args.nla).describe(),
        settings=settings,
        name=args.name or args.out.resolve().name,
        limit=args.limit,
    )

    def make_explainer() -> ShardExplainer:
        from transformers.utils.logging import disable_progress_bar

        from nla_core.explain import Explainer

        disable_progress_bar()  # a bar for each of three models would hide our own line
        return Explainer.load(
            args.nla,
            device=args.device,
            dtype=args.dtype,
            progress=lambda text: print(text, file=sys.stderr, flush=True),
        )

    embedder = None if args.no_publish else MiniLM()
    engine = LocalEngine(args.rank, args.world_size)
    result = execute(plan, args.out, make_explainer, embedder=embedder, engine=engine)
    write_result(args, result)
    return EXIT_OK


def execute(
    plan: Plan,
    out: Path,
    make_explainer: MakeExplainer,
    *,
    embedder: Embedder | None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Do what is missing of ``plan`` under ``out``; publish if there is an ``embedder``."""
    workspace = Workspace.create(out, plan)
    receipts = {shard.name: workspace.receipt(shard.name) for shard in plan.shards}
    todo = [shard for shard in plan.shards if receipts[shard.name] is None]
    total = sum(len(shard.prompts) for shard in plan.shards)
    progress = Progress(todo, total=total, answer_tokens=plan.settings.max_new_tokens)
    progress.say(
        f"Run {plan.config_hash}: {total} prompts in {len(plan.shards)} shards, "
        f"{len(plan.shards) - len(todo)} finished before"
    )

    def make_worker() -> Worker:
        explainer = make_explainer()
        progress.begin()
        return lambda shard: _do(shard, plan, workspace, explainer, progress)

    for shard, receipt in (engine or LocalEngine()).run(make_worker, todo):
        receipts[shard.name] = receipt
        progress.finished(shard, receipt.counts["readings"])
    done = [receipt for receipt in receipts.values() if receipt is not None]
    result = {
        "config": plan.config_hash,
        "out": str(out),
        "n_shards": len(done),
        "n_prompts": total,
        "n_errors": sum(receipt.n_errors for receipt in done),
        "n_readings": sum(receipt.counts["readings"] for receipt in done),
        "version": None,
    }
    if failed := result["n_errors"]:
        progress.say(f"{failed} prompts could not be processed; their rows say why")
    if embedder is not None:
        result["version"] = publish_workspace(workspace, out, embedder, say=progress.say)
    return result


def _do(
    shard: Shard,
    plan: Plan,
    workspace: Workspace,
    explainer: ShardExplainer,
    progress: Progress,
) -> Receipt:
    """Compute and commit one shard, unless another worker has done so since the run began."""
    if receipt := workspace.receipt(shard.name):
        return receipt
    tables, n_errors = process(
        shard,
        plan.settings,
        explainer,
        tick=lambda done, of: progress.tick(shard, done, of),
    )
    return workspace.commit(shard.name, tables, n_errors)
