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

STEPS = ("expert", "grpo")
KEEP = ("best", "all")
REWARDS = ("mse", "log-mse")


def add_steps(steps: Any) -> None:
    """Add the parsers of STEPS to the subparsers of ``train``."""
    expert = steps.add_parser(
        "expert",
        help="sample explanations, keep the ones the AR gets back from best",
        description="Expert iteration, the cheap alternative to GRPO. Samples several explanations "
        "of each vector, scores them by the AR and writes the best as examples: train the AV and "
        "the AR on the folder it writes. Repeat the command to go on after an interruption, or to "
        "choose anew from the samples that are there (--keep, --margin, --repetition, --unfound).",
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
    expert.add_argument(
        "--repetition",
        type=float,
        default=0.3,
        help="FVE that a text loses in the choice, times its share of repeated words (0.3)",
    )
    expert.add_argument(
        "--unfound",
        type=float,
        default=0.2,
        help="the same, times the share of its quotations that are not in the context (0.2)",
    )
    _add_grpo(
        steps.add_parser(
            "grpo",
            help="reinforcement learning of the AV, the AR trained along",
            description="GRPO. Each step samples a group of explanations for a few vectors, pays "
            "each by how well the AR gets the vector back (an unclosed or empty one gets -2), "
            "moves the AV towards those that beat their group, and gives the AR one regression "
            "step on the same texts. OUT/last/av and OUT/last/ar hold both halves: give OUT as "
            "--av and as --ar to `assemble`. OUT/log.jsonl has a line a step, OUT/samples.txt "
            "texts to read. Repeat the command to go on after an interruption. A run whose texts "
            "collapse stops by itself and keeps the last healthy checkpoint.",
        )
    )


def _add_grpo(grpo: argparse.ArgumentParser) -> None:
    _add_start(grpo)
    _add_sampling(grpo, group=8)
    add = grpo.add_argument
    add("--split", default="rl", help="split of --data to learn from (default: rl)")
    add("--steps", type=int, default=500, help="steps of the whole run (500)")
    add("--vectors", type=int, default=8, help="vectors a step (8)")
    add("--micro-batch", type=int, default=16, help="texts a backward pass (16); memory only")
    add("--lr-av", type=float, default=1e-4, help="peak learning rate of the AV's LoRA (1e-4)")
    add("--lr-ar", type=float, default=1e-4, help="that of the AR's LoRA and head (1e-4)")
    add("--warmup", type=int, default=10, help="steps until the peak; a cosine follows (10)")
    add("--kl", type=float, default=0.01, help="weight of the divergence from the start (0.01)")
    add("--reward", choices=REWARDS, default="mse", help="minus mse_nrm, or minus its logarithm")
    add(
        "--infonce",
        type=float,
        default=0.0,
        metavar="WEIGHT",
        help="also pay for telling a vector from the others of its step (0)",
    )
    add("--length-penalty", type=float, default=0.0, metavar="PER_TOKEN", help="(0)")
    add("--by-std", action="store_true", help="divide advantages by their group's deviation")
    add(
        "--truncate",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of texts of which the AR is shown only a part (0)",
    )
    add("--inner", type=int, default=1, help="updates of the AV on the same samples (1)")
    add("--validate-every", type=int, default=25, help="steps between checkpoints, too (25)")
    add("--validation-vectors", type=int, default=48, help="of `val`, always the first (48)")
    add("--show-every", type=int, default=10, help="steps between samples in samples.txt (10)")


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
    return _expert(args) if args.step == "expert" else _grpo(args)


def _expert(args: argparse.Namespace) -> dict[str, Any]:
    from precompute.train.expert import Choice, describe, expert_iteration
    from precompute.train.halves import find_halves

    figures = expert_iteration(
        find_halves(pair=args.pair, av=args.av, ar=args.ar),
        args.data,
        args.out,
        _sampling(args),
        Choice(args.keep, args.margin, args.repetition, args.unfound),
        split=args.split,
        limit=args.limit,
        batch_size=args.batch_size,
        device=args.device,
        dtype=args.dtype,
        minutes=args.minutes,
    )
    print(describe(figures))  # noqa: T201
    return figures


def _grpo(args: argparse.Namespace) -> dict[str, Any]:
    from precompute.train.grpo import StepSettings
    from precompute.train.halves import find_halves
    from precompute.train.objective import Objective
    from precompute.train.rewards import RewardSettings
    from precompute.train.rl_run import RunSettings, describe, train_grpo

    step = StepSettings(
        vectors=args.vectors,
        sampling=_sampling(args),
        reward=RewardSettings(args.reward, args.infonce, length_penalty=args.length_penalty),
        objective=Objective(kl=args.kl),
        by_std=args.by_std,
        inner=args.inner,
        truncate=args.truncate,
    )
    figures = train_grpo(
        find_halves(pair=args.pair, av=args.av, ar=args.ar),
        args.data,
        args.out,
        RunSettings(
            steps=args.steps,
            lr_av=args.lr_av,
            lr_ar=args.lr_ar,
            step=step,
            warmup=args.warmup,
            validate_every=args.validate_every,
            validation_vectors=args.validation_vectors,
            show_every=args.show_every,
            split=args.split,
            seed=args.seed,
        ),
        sample_batch=args.batch_size,
        micro_batch=args.micro_batch,
        device=args.device,
        dtype=args.dtype,
        minutes=args.minutes,
    )
    print(describe(figures))  # noqa: T201
    return figures


def _sampling(args: argparse.Namespace) -> Any:
    from precompute.train.sampling import Sampling

    return Sampling(args.samples, args.temperature, args.explanation_tokens, args.seed)
