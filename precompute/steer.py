"""Verb ``steer``: what the shipped presets do, measured on seeds that had no part in their choice.

Knows which arms a preset is measured in and the form of the result. Does not know how steering is
done. The decision a reader would question: beside random directions every preset is held against
the direction of another preset's edit, pushed the same way; that one is a real direction of the
reconstructor, too, and a harder control.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nla_core.data.files import explained, write_json
from nla_core.errors import EXIT_OK, NLAError
from nla_core.explain import Explainer
from nla_core.intervals import newcombe, wilson
from nla_core.steering.experiment import MOST_SEEDS, Arm, hits
from nla_core.steering.outcome import Outcome
from nla_core.steering.presets import MEASURED, PRESETS, Preset, presets
from nla_core.steering.push import Pusher, edit_direction
from nla_core.steering.run import prompt_ids_of, steer
from precompute.output import say, write_result

HELP = (
    "Measure the presets of the Steer page on held-out seeds: how often the intended words come "
    "with the preset's push, with random directions of the same length, with the direction of "
    "another preset, and without any push, with 95 % intervals."
)
EXAMPLE = (
    "python -m precompute steer --nla data/nla/smollm2-135m-L20 --presets "
    "data/steering/presets.json --seeds 40 --out data/steering/presets-measured.json"
)
FIRST_SEED = 100
EXAMPLES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nla", type=Path, default=Path("data/nla/smollm2-135m-L20"), help="the pair"
    )
    parser.add_argument("--presets", type=Path, default=PRESETS, help="what is measured")
    parser.add_argument("--out", type=Path, default=MEASURED, help="where the result goes")
    parser.add_argument("--only", nargs="+", metavar="ID", help="these presets; writes no --out")
    parser.add_argument("--seeds", type=int, default=40, help="texts of each arm (40)")
    parser.add_argument(
        "--first-seed", type=int, default=FIRST_SEED, help=f"the first of them ({FIRST_SEED})"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32", help="number format (float32)")


def main(args: argparse.Namespace) -> int:
    every = presets(args.presets, Path("none"))
    chosen = [p for p in every if not args.only or p.id in args.only]
    if not chosen:
        raise NLAError(
            "There is nothing to measure",
            why=f"{args.presets} has the presets {', '.join(p.id for p in every) or 'none'}",
            fix="Name one of them, or another file",
        )
    if not 2 <= args.seeds <= MOST_SEEDS:
        raise NLAError(
            f"--seeds {args.seeds} makes no sense",
            why=f"an interval needs 2 to {MOST_SEEDS} texts of each arm",
            fix="Use --seeds 40",
        )
    explainer = Explainer.load(args.nla, device=args.device, dtype=args.dtype)
    rows = []
    for preset in chosen:
        other = every[(every.index(preset) + 1) % len(every)]
        row = measure(explainer, preset, other, seeds=args.seeds, first_seed=args.first_seed)
        rows.append(row)
        say(f"{preset.id}: {told(row)}")
    result = {
        "pair": explainer.pair.pair_id,
        "revision": explainer.pair.revision,
        "first_seed": args.first_seed,
        "seeds": args.seeds,
        "dtype": args.dtype,
        "tried": len(rows),
        "beat_random": sum(row["over_random"]["low"] > 0 for row in rows),
        "beat_other_edit": sum(row["over_other_edit"]["low"] > 0 for row in rows),
        "presets": rows,
        "by_id": {row["id"]: _figures(row) for row in rows},
    }
    if not args.only:
        with explained(args.out):
            args.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(args.out, result)
    print(
        f"{result['beat_random']} of {len(rows)} presets beat random directions of the same length "
        f"by a 95 % interval, {result['beat_other_edit']} the direction of another edit"
    )
    write_result(args, result)
    return EXIT_OK


def measure(
    explainer: Explainer, preset: Preset, other: Preset, *, seeds: int, first_seed: int
) -> dict[str, Any]:
    """All arms of one preset at its α."""
    asked = replace(preset.experiment, alphas=(preset.alpha,), n_seeds=seeds, first_seed=first_seed)
    *_, found = steer(explainer, asked)
    elsewhere = other_edit(explainer, found, preset.alpha, other)
    steered = found.rate(Arm.STEERED, preset.alpha)
    low, high = newcombe(steered.hits, steered.n, elsewhere, seeds)
    bands = {
        arm: found.band(arm, 0.0 if arm == Arm.BASELINE else preset.alpha)
        for arm in (Arm.BASELINE, Arm.STEERED, Arm.RANDOM)
    }
    return {
        "id": preset.id,
        "asks": preset.experiment.key,
        "alpha": preset.alpha,
        "revision": explainer.pair.revision,
        "steered": asdict(steered),
        "random": asdict(found.rate(Arm.RANDOM, preset.alpha)),
        "baseline": asdict(found.rate(Arm.BASELINE)),
        "other_edit": {
            "id": other.id,
            "hits": elsewhere,
            "n": seeds,
            **dict(zip(("low", "high"), wilson(elsewhere, seeds), strict=True)),
        },
        "over_random": asdict(found.contrast(preset.alpha)),
        "over_baseline": asdict(found.contrast(preset.alpha, Arm.BASELINE)),
        "over_other_edit": {
            "difference": steered.share - elsewhere / seeds,
            "low": low,
            "high": high,
        },
        "p_next": {str(arm): band.mean for arm, band in bands.items() if band is not None},
        "fve": {"original": found.facts.original.fve, "edited": found.facts.edited.fve},
        "examples": {
            str(arm): [text.text for text in found.texts(arm, alpha)[:EXAMPLES]]
            for arm, alpha in (
                (Arm.BASELINE, 0.0),
                (Arm.STEERED, preset.alpha),
                (Arm.RANDOM, preset.alpha),
            )
        },
    }


def other_edit(explainer: Explainer, found: Outcome, alpha: float, other: Preset) -> int:
    """How many texts hold this preset's words when the other's direction is pushed instead."""
    asked = found.experiment
    direction = edit_direction(explainer.loaded.reconstructor, other.experiment.edits)
    pusher = Pusher(
        explainer.loaded.target,
        prompt_ids_of(explainer, asked),
        found.facts.positions,
        asked.every,
    )
    texts = pusher.texts(
        (alpha * found.facts.norm * direction).expand(asked.n_seeds, -1),
        seeds=asked.seeds,
        new_tokens=asked.new_tokens,
        temperature=asked.temperature,
        cancelled=lambda: False,
    )
    return sum(bool(hits(text, asked.words)) for text in texts)


def told(row: dict[str, Any]) -> str:
    """One line about a preset."""
    over = row["over_random"]
    return (
        f"{row['steered']['hits']} steered, {row['random']['hits']} random, "
        f"{row['other_edit']['hits']} by another edit, {row['baseline']['hits']} baseline of "
        f"{row['steered']['n']}; steered minus random {over['difference']:+.2f} "
        f"[{over['low']:+.2f}, {over['high']:+.2f}]"
    )


def _figures(row: dict[str, Any]) -> dict[str, str]:
    """As documents quote them: shares in percent, the difference in points with its interval."""

    def points(share: float) -> str:
        return f"{round(100 * share):+d}".replace("-", "−").replace("+0", "0")

    over, other = row["over_random"], row["over_other_edit"]
    shares = {
        arm: f"{row[arm]['hits'] / row[arm]['n']:.0%}".replace("%", " %")
        for arm in ("steered", "random", "other_edit", "baseline")
    }
    return {
        **shares,
        "over_random": f"{points(over['difference'])} ({points(over['low'])} to "
        f"{points(over['high'])})",
        "over_other_edit": f"{points(other['difference'])} ({points(other['low'])} to "
        f"{points(other['high'])})",
    }
