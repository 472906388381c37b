"""``compare``: judge every claim of a dataset, and score its readings for concepts.

Claims and concept scores share one memory of embedded texts. What is there is written over:
derived files follow from the published ones and the rule alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from nla_core.analysis.concepts import SHIPPED, ConceptScores, Corpus, Matcher, read_concepts
from nla_core.analysis.derived import write_scores
from nla_core.analysis.judging import compare_dataset
from nla_core.analysis.semantic import EmbedOnce
from nla_core.analysis.standing import THRESHOLDS_FILE, Thresholds
from nla_core.data.dataset import Dataset
from nla_core.embed import MiniLM
from nla_core.errors import EXIT_OK
from precompute.output import say, write_result

HELP = (
    "Cut every explanation into claims and hold each against the visible transcript: said, "
    "foreseen, unspoken, a quotation that is not there, or unclear. Score every explanation for "
    "the concepts of a watchlist, too. Both are written as derived files beside the current "
    "version; running it again rebuilds them."
)
EXAMPLE = "python -m precompute compare data/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, metavar="DIR", help="the dataset, e.g. data/demo")
    parser.add_argument(
        "--thresholds",
        type=Path,
        default=THRESHOLDS_FILE,
        metavar="FILE",
        help="another file of thresholds than the one that ships",
    )
    parser.add_argument(
        "--concepts",
        type=Path,
        default=SHIPPED,
        metavar="FILE",
        help="another watchlist of concepts than the one that ships",
    )


def main(args: argparse.Namespace) -> int:
    start = time.monotonic()
    concepts = read_concepts(args.concepts)
    thresholds = Thresholds.load(args.thresholds)
    dataset = Dataset.open(args.dataset)
    encoder = MiniLM()
    embed = EmbedOnce(encoder.embed)
    result = compare_dataset(dataset, thresholds, encoder, embed, say)
    corpus = Corpus.of(dataset, embed)
    scores = ConceptScores.of(corpus, Matcher.of(concepts, embed), embed)
    write_scores(dataset, corpus, scores, concepts, encoder.name)
    seconds, cpu = time.monotonic() - start, time.process_time()
    print(
        f"{result['claims']:,} claims of {result['readings']:,} readings in {seconds:.0f} s "
        f"({cpu:.0f} s of one core): "
        + ", ".join(f"{n:,} {name}" for name, n in sorted(result["standings"].items()))
    )
    write_result(args, result | {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)})
    return EXIT_OK
