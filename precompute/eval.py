"""``eval``: how much a pair's explanations hold, on its recorded test set, beside its floors.

Knows the steps: check the target, explain, measure, write. Knows no definition of a figure; those
are in ``precompute/evaluation``. The decision a reader would question: FVE is given beside floors
that need no explanation at all (the mean vector, a lookup by last token, the nearest training
vectors), because a pair that does not beat the lookup says nothing that the last token does not.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nla_core.data.files import explained
from nla_core.errors import EXIT_OK, NLAError
from nla_core.models.pair import LoadedPair, find_pair, load_pair, pair_home
from nla_core.models.reconstructor import Reconstructor
from nla_core.models.verbalizer import Verbalization
from precompute.evaluation.best_of import best_of, candidates
from precompute.evaluation.measure import evaluate
from precompute.evaluation.report import write_report
from precompute.evaluation.second_ar import load_second_ar
from precompute.output import say, write_result
from precompute.testset import FOLDER, TestSet

HELP = (
    "Explain every vector of the recorded test set, reconstruct it from the text, and write FVE "
    "with its interval and floors, ranks, control lanes, what the texts quote and name, and a "
    "report with plots."
)
EXAMPLE = (
    "python -m precompute eval --nla data/nla/smollm2-135m-L20 --json out.json --report report"
)
MIN_AGREEMENT = 0.98
CHECKED_SEQUENCES = 8
PROGRESS_SECONDS = 10.0


def check_target(loaded: LoadedPair, tests: TestSet) -> float:
    """Lowest cosine between recorded and freshly traced vectors of a few sequences.

    Raises NLAError where the live target is not the one the set was recorded with.
    """
    step = max(1, len(tests.rows) // CHECKED_SEQUENCES)
    picked = list(range(0, len(tests.rows), step))[:CHECKED_SEQUENCES]
    traces = loaded.target.trace([list(tests.rows["token_ids"].iloc[i]) for i in picked])
    fresh = torch.stack([t.hidden[-1] for t in traces])
    lowest = float(torch.cosine_similarity(fresh, tests.hidden[picked], dim=-1).min())
    if lowest < MIN_AGREEMENT:
        raise NLAError(
            "The live target does not give the recorded test vectors",
            why=f"Their cosine falls to {lowest:.3f}, expected at least {MIN_AGREEMENT}",
            fix="Use the target and layer of the sidecar, or record the test set again",
        )
    return lowest


def verbalize_all(
    loaded: LoadedPair,
    vectors: Tensor,
    *,
    max_new_tokens: int,
    seeds: list[int] | None = None,
    temperature: float = 0.0,
) -> list[Verbalization]:
    """Explanations of ``[n, d_model]`` vectors, in order; greedy by default. Tells its progress."""
    texts: dict[int, Verbalization] = {}
    start = told = time.monotonic()
    for text in loaded.verbalizer.verbalize(
        vectors,
        seeds=seeds or [0] * len(vectors),
        temperature=temperature,
        max_new_tokens=max_new_tokens,
    ):
        texts[text.row] = text
        now = time.monotonic()
        if now - told > PROGRESS_SECONDS:
            told, rate = now, len(texts) / (now - start)
            say(f"{len(texts)}/{len(vectors)} explained, {rate:.1f}/s")
    return [texts[i] for i in range(len(vectors))]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nla", type=Path, required=True, metavar="DIR", help="the pair's folder")
    parser.add_argument("--limit", type=int, help="only the first N vectors (a quick look)")
    parser.add_argument("--explanation-tokens", type=int, default=80, help="length limit (80)")
    parser.add_argument("--show", type=int, default=20, help="readings to print beside contexts")
    parser.add_argument(
        "--report", type=Path, metavar="OUT", help="write report.md and its plots into this folder"
    )
    parser.add_argument(
        "--readings", type=Path, metavar="OUT", help="write a row a vector to this Parquet file"
    )
    parser.add_argument(
        "--second-ar", type=Path, metavar="DIR", help="an AR that was not trained with this AV"
    )
    parser.add_argument(
        "--best-of", type=int, metavar="N", help="also sample N texts a vector, keep the AR's best"
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="of the samples of --best-of (1.0)"
    )
    parser.add_argument(
        "--notes", type=Path, metavar="FILE", help="annotated texts: does the note say what they do"
    )
    parser.add_argument(
        "--notes-data",
        type=Path,
        metavar="DIR",
        help="`train data` of an annotated corpus, for the linear map that --notes is held against",
    )
    parser.add_argument(
        "--notes-pair", type=Path, metavar="DIR", help="another pair, read on the same texts"
    )
    parser.add_argument("--target", help="the target model, where the sidecar names none")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")


def main(args: argparse.Namespace) -> int:
    """Print the figures and some readings; ``--json`` gets the figures."""
    for name, least in (("limit", 1), ("best_of", 1), ("explanation_tokens", 1), ("show", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise _refusal(name, value, f"a number of at least {least}")
    if not args.temperature > 0:
        raise _refusal("temperature", args.temperature, "a number above 0")
    tests = TestSet.load(pair_home(args.nla) / FOLDER)
    if args.limit:
        tests = tests.head(args.limit)
    pair = find_pair(args.nla, target=args.target)
    loaded = load_pair(pair, device=args.device, dtype=args.dtype)
    second = load_second_ar(args.second_ar, loaded) if args.second_ar else None
    agreement = check_target(loaded, tests)
    texts = verbalize_all(loaded, tests.hidden, max_new_tokens=args.explanation_tokens)
    measured = evaluate(loaded.pair, tests, texts, loaded.reconstructor, second)
    figures = measured.figures | {
        "target_agreement": agreement,
        "explanation_tokens": args.explanation_tokens,
    }
    if args.best_of:
        figures |= _best_of(args, loaded, second, tests)
    if args.notes:
        figures |= _notes(args, loaded)
    _show(args, tests, texts, figures)
    if args.readings:
        with explained(args.readings):
            args.readings.parent.mkdir(parents=True, exist_ok=True)
            measured.readings.to_parquet(args.readings, compression="zstd")
    if args.report:
        write_report(figures, args.report)
    write_result(args, figures)
    return EXIT_OK


def _refusal(name: str, value: float, expected: str) -> NLAError:
    flag = f"--{name.replace('_', '-')}"
    return NLAError(
        f"{flag} {value} makes no sense", why=f"It must be {expected}", fix=f"Correct {flag}"
    )


def _notes(args: argparse.Namespace, loaded: LoadedPair) -> dict[str, Any]:
    """Note retrieval on ``--notes``; prints the notes beside the written ones."""
    from nla_core.embed import MiniLM
    from precompute.evaluation.notes import Marked, load_map, note_figures
    from precompute.train.notes import read_annotated

    embedder = MiniLM()
    marked = Marked.of(loaded.target, read_annotated(args.notes))
    fitted = load_map(args.notes_data, embedder) if args.notes_data else None
    readings = {"": loaded}
    if args.notes_pair:
        pair = find_pair(args.notes_pair, target=args.target)
        readings["another_pair"] = load_pair(pair, device=args.device, dtype=args.dtype)
    texts = {
        name: [
            text.text
            for text in verbalize_all(one, marked.hidden, max_new_tokens=args.explanation_tokens)
        ]
        for name, one in readings.items()
    }
    own = texts.pop("")
    step = max(1, len(own) // max(1, args.show))
    for row in range(0, len(own), step)[: args.show]:
        print(
            f"…{marked.contexts[row][-70:]!r}\n    {own[row]}\n    written: {marked.notes[row]}\n"
        )
    return note_figures(marked, own, embedder, fitted, texts)


def _best_of(
    args: argparse.Namespace, loaded: LoadedPair, second: Reconstructor | None, tests: TestSet
) -> dict[str, Any]:
    vectors, seeds = candidates(tests.hidden, args.best_of)
    samples = verbalize_all(
        loaded,
        vectors,
        max_new_tokens=args.explanation_tokens,
        seeds=seeds,
        temperature=args.temperature,
    )
    return best_of(
        samples,
        tests.hidden,
        n=args.best_of,
        temperature=args.temperature,
        rawvar=loaded.pair.rawvar,
        reconstruct=loaded.reconstructor.reconstruct,
        second=second.reconstruct if second else None,
    )


def _show(
    args: argparse.Namespace,
    tests: TestSet,
    texts: list[Verbalization],
    figures: dict[str, Any],
) -> None:
    step = max(1, len(texts) // max(1, args.show))
    for row in range(0, len(texts), step)[: args.show]:
        context = tests.rows["context"].iloc[row][-70:].replace("\n", "\\n")
        print(f"…{context}\n    {texts[row].text}\n")
    for name, value in figures.items():
        if isinstance(value, float):
            print(f"{name:>26}  {value:.4f}")
        elif not isinstance(value, dict):
            print(f"{name:>26}  {value}")
    for name, why in figures["left_out"].items():
        print(f"{name:>26}  left out: {why}")
