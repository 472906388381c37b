"""``bench``: what is timed, and the flags of each.

Knows the names of the benchmarks. Does not know what they measure: that is a module of
`precompute.benches` with ``main(args)``. The decision a reader would question: one parser for all
of them, since the flags of one mean nothing to another and their help says whose they are.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

HELP = (
    "explain: time the AV path against transformers.generate, one vector at a time and all in one "
    "batch. batches: the AV's readings a second by the size of its batch. roofline: the machine's "
    "matrix peak and memory bandwidth, and what every stage of a reading reaches of its floor; ar "
    "and extract do it for that stage alone. corpus: seconds per 1,000 readings of `run`, where "
    "they go, and whether they grow with the corpus. precision: what a number format costs in "
    "FVE, beside float32. plan: hold `plan` against what then happens, on three corpora. search: "
    "make a large synthetic dataset from a real one and measure search over it. app: open "
    "sessions with the app and time its answers. run: how long a visitor waits for the first and "
    "for all readings of one prompt, models loaded. engines: Ray beside the local engine, and two "
    "workers beside one. train: time each stage of training beside the best matrix product of "
    "this machine. publish: memory and time of publishing and opening datasets of growing size. "
    "vectors: exact search for neighbours against the index, by size."
)
EXAMPLE = """python -m precompute bench explain --nla data/nla/smollm2-135m-L20 --vectors 64
  python -m precompute bench explain --random-weights 7b --device cuda
  python -m precompute bench batches --random-weights 7b --device cuda --batches 1 8 64 512
  python -m precompute bench roofline --vectors 64
  python -m precompute bench search --rows 1000000
  python -m precompute bench app --sessions 1 10 50
  python -m precompute bench run --tokens 40
  python -m precompute bench engines --prompts 16
  python -m precompute bench train --nla data/nla/smollm2-135m-L20 --json throughput.json"""

WHAT = {
    "explain": "precompute.benches.explain",
    "batches": "precompute.benches.batches",
    "search": "precompute.benches.search",
    "app": "precompute.benches.app",
    "run": "precompute.benches.run",
    "engines": "precompute.benches.engines",
    "train": "precompute.benches.train",
    "publish": "precompute.benches.publish",
    "vectors": "precompute.benches.vectors",
    "roofline": "precompute.benches.roofline",
    "ar": "precompute.benches.roofline",
    "extract": "precompute.benches.roofline",
    "corpus": "precompute.benches.corpus",
    "precision": "precompute.benches.precision",
    "plan": "precompute.benches.plan",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=[*WHAT], help="which path to time")
    explain = parser.add_argument_group(
        "explain, batches, roofline, ar, extract, precision, corpus, plan, run, engines and train"
    )
    explain.add_argument("--nla", type=Path, default=Path("data/nla/smollm2-135m-L20"))
    explain.add_argument(
        "--vectors", type=int, default=64, help="of explain, roofline, ar, precision (64)"
    )
    explain.add_argument("--explanation-tokens", type=int, default=60)
    explain.add_argument("--device", default="auto")
    explain.add_argument("--dtype", default="auto")
    explain.add_argument(
        "--random-weights",
        metavar="SHAPE",
        help="explain, batches: a random AV of that shape: tiny, 135m, 1b, 7b, 8b",
    )
    explain.add_argument(
        "--batches",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8, 16, 32, 64, 128],
        metavar="N",
        help="sizes of batches (1 to 128)",
    )
    explain.add_argument(
        "--one-by-one",
        type=int,
        default=64,
        metavar="N",
        help="vectors that explain sends through generate alone; the time is scaled (64)",
    )
    corpus = parser.add_argument_group("corpus and plan")
    corpus.add_argument(
        "--readings",
        type=int,
        nargs="+",
        default=[100, 1000],
        metavar="N",
        help="sizes of corpus, about (100 1000); of plan the first, for each of three corpora",
    )
    run = parser.add_argument_group("run")
    run.add_argument("--tokens", type=int, default=40, help="length of the prompt (default: 40)")
    run.add_argument(
        "--repeat", type=int, default=1, help="prompts one after another; the median counts"
    )
    engines = parser.add_argument_group("engines")
    engines.add_argument("--prompts", type=int, default=16, help="of data/prompts (default: 16)")
    search = parser.add_argument_group("search")
    search.add_argument("--rows", type=int, default=1_000_000, help="readings at least")
    search.add_argument(
        "--dir", type=Path, help="keep the synthetic dataset here, or use the one that is there"
    )
    search.add_argument("--queries", type=int, default=200, help="of each kind")
    app = parser.add_argument_group("app")
    app.add_argument("--sessions", type=int, nargs="+", default=[1, 10, 50], help="at a time")
    app.add_argument(
        "--during-run", action="store_true", help="while the server reads forty prompts"
    )
    app.add_argument("--rounds", type=int, default=8, help="over all sessions; 2 each at least")
    app.add_argument(
        "--pause", type=float, default=2.0, help="seconds between two acts, on average"
    )
    publish = parser.add_argument_group("publish and vectors")
    publish.add_argument(
        "--sizes", type=int, nargs="+", help="readings (10^4, 10^5, 10^6), rows (10^4 to 2 * 10^5)"
    )
    train = parser.add_argument_group("train and explain")
    train.add_argument("--batch-size", type=int, default=8, help="examples a step (8)")
    train.add_argument(
        "--repeats", type=int, default=3, help="runs of explain or of a stage, the fastest counts"
    )
    train.add_argument(
        "--threads", type=int, nargs="+", help="numbers of threads to compare (1, and all cores)"
    )
    both = parser.add_argument_group("search, app, train, publish and vectors")
    both.add_argument(
        "--dataset",
        type=Path,
        default=Path("data/demo"),
        help="what the synthetic one is made from, or what is shown",
    )
    parser.add_argument("--note", default="", help="what else the machine was doing")


def main(args: argparse.Namespace) -> int:
    """Run one benchmark; ``--json`` gets all it measured."""
    return int(importlib.import_module(WHAT[args.what]).main(args))
