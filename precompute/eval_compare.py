"""Verb ``eval-compare``: how often claims are judged and concepts matched as a reader would.

Knows which files are read and where fitted numbers are written. Does not know a figure's
definition; those are in ``precompute/evaluation``. The decision a reader would question: fitting is
a flag of the same verb, so that what is fitted and what is reported come from one reading of one
file, and a figure cannot be of other thresholds than the ones beside it.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nla_core.analysis.concepts import SHIPPED, dump_concepts, read_concepts
from nla_core.analysis.semantic import EmbedOnce
from nla_core.analysis.standing import THRESHOLDS_FILE, Thresholds
from nla_core.data.files import explained, write_atomic, write_json
from nla_core.embed import MiniLM
from nla_core.errors import EXIT_OK
from precompute.evaluation import concept_matches, standings
from precompute.output import say, write_result

HELP = (
    "Judge the labelled claims and match the labelled texts, and print accuracy, precision and "
    "recall per standing beside two baselines, and average precision and noise floor per concept. "
    "Figures are of the half that was not fitted on. With --fit, choose all thresholds on the "
    "other half first and write them."
)
EXAMPLE = "python -m precompute eval-compare --json docs/benchmarks/compare.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fit", action="store_true", help="choose the thresholds anew and write them"
    )
    for flag, default, about in (
        ("--labels", standings.LABELS, "labelled claims, JSON lines"),
        ("--concept-labels", concept_matches.LABELS, "labelled texts, JSON lines"),
        ("--thresholds", THRESHOLDS_FILE, "thresholds of the standings"),
        ("--concepts", SHIPPED, "the watchlist"),
    ):
        parser.add_argument(flag, type=Path, default=default, metavar="FILE", help=about)


def main(args: argparse.Namespace) -> int:
    thresholds, concepts = Thresholds.load(args.thresholds), read_concepts(args.concepts)
    encoder = MiniLM()
    embed = EmbedOnce(encoder.embed)
    items = standings.read_labelled(args.labels, embed)
    texts = concept_matches.read_labelled_texts(args.concept_labels)
    if args.fit:
        say("choosing thresholds on the half that is for fitting")
        thresholds = standings.fit([item for item in items if item.half == "fit"], thresholds)
        concepts = concept_matches.fit_concepts(concepts, texts, embed)
        with explained(args.thresholds):
            write_json(args.thresholds, asdict(thresholds))
        with explained(args.concepts):
            write_atomic(args.concepts, dump_concepts(concepts))
    figures = standings.figures(items, thresholds)
    figures["thresholds"] = asdict(thresholds)
    figures["encoder"] = encoder.name
    figures["concepts"] = concept_matches.concept_figures(concepts, texts, embed)
    _show(figures)
    write_result(args, figures)
    return EXIT_OK


def _show(figures: dict[str, Any]) -> None:
    print(f"{figures['n']} claims; fitted on {figures['n_fit']} others")
    for name in ("standing_accuracy", "baseline_lexical", "baseline_majority"):
        print(f"{name:>24}  {figures[name]:.3f}")
    for source, part in figures["by_source"].items():
        print(
            f"{source:>24}  {part['standing_accuracy']:.3f} (lexical "
            f"{part['baseline_lexical']:.3f}, majority {part['baseline_majority']:.3f}, "
            f"{part['n']} claims)"
        )
    for standing, row in figures["standings"].items():
        print(
            f"{standing:>24}  precision {_number(row['precision'])}, recall "
            f"{_number(row['recall'])} ({row['n']})"
        )
    passes = figures["two_passes"]
    print(f"{'two passes':>24}  agreement {passes['agreement']:.3f}, kappa {passes['kappa']:.3f}")
    for concept, row in figures["concepts"].items():
        print(
            f"{concept:>24}  average precision {_number(row['average_precision'])} (at random "
            f"{_number(row['average_precision_at_random'])}), noise floor {row['noise_floor']:.3f}"
        )


def _number(value: float | None) -> str:
    return "  - " if value is None else f"{value:.3f}"
