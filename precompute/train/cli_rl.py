"""``train expert`` and ``train grpo``: the steps that learn from the pair's own samples.

Knows their arguments and defaults. Knows nothing else. The decision a reader would question: both
take a finished pair or two runs alike, because each is a step between two others and either may
have come before.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

STEPS = ("expert",)
KEEP = ("best", "all")


def add_steps(steps: Any) -> None:
    """Add the parsers of STEPS to the subparsers of ``train``."""
    expert = steps.add_parser(
        "expert",
        help="sample explanations, keep the ones the AR gets back from best",
        description="Expert iteration, the cheap alternative to GRPO. Samples several explanations "
        "of each vector, scores them by the AR and writes the best as examples: train the AV and "
        "the AR on the folder it writes. Repeat the command to go on after an interruption, or to "
        "choose anew from the samples that are there (--keep, --margin).",
    )
    _add_start(expert)
    _add_sampling(expert, group=4)
    expert.add_argument("--split", default="rl", help="split of --data to sample (default: rl)")
    expert.add_argument("--limit", type=int, help="only the first so many vectors of the split")
    expert.add_argument(
        "--keep",
        choices=KEEP,
        default="best",
        help="what the AR's examples hold: the best sample a vector, or all whole ones",
    )
    expert.add_argument(
        "--margin",
        type=float,
        default=0.0,
        help="keep a best sample only if its FVE is this much above its group's mean",
    )


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pair", type=Path, help="the pair to start from")
    parser.add_argument("--av", type=Path, help="instead of --pair: an AV's run or folder")
    parser.add_argument("--ar", type=Path, help="instead of --pair: an AR's run or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of `train data`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop (resumably) after")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")


def _add_sampling(parser: argparse.ArgumentParser, *, group: int) -> None:
    parser.add_argument("--samples", type=int, default=group, help="explanations a vector")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--explanation-tokens", type=int, default=80, help="cut after so many")
    parser.add_argument("--batch-size", type=int, default=128, help="texts sampled at a time")
    parser.add_argument("--seed", type=int, default=0)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the step; returns its figures."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    return _expert(args)


def _expert(args: argparse.Namespace) -> dict[str, Any]:
    from precompute.train.expert import Choice, describe, expert_iteration
    from precompute.train.halves import find_halves

    figures = expert_iteration(
        find_halves(pair=args.pair, av=args.av, ar=args.ar),
        args.data,
        args.out,
        _sampling(args),
        Choice(args.keep, args.margin),
        split=args.split,
        limit=args.limit,
        batch_size=args.batch_size,
        device=args.device,
        dtype=args.dtype,
        minutes=args.minutes,
    )
    print(describe(figures))  # noqa: T201
    return figures


def _sampling(args: argparse.Namespace) -> Any:
    from precompute.train.sampling import Sampling

    return Sampling(args.samples, args.temperature, args.explanation_tokens, args.seed)
