"""``eval``: how much a pair's explanations hold, on its recorded test set, beside its floors.

Knows the figures that describe a pair and their definitions. Knows nothing of training. The
decision a reader would question: FVE is given beside floors that need no explanation at all (the
mean vector, a lookup by last token, the nearest training vector), because a pair that does not beat
the lookup says nothing that the last token does not say already.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nla_core import metrics
from nla_core.errors import EXIT_OK, NLAError
from nla_core.nla.pair import LoadedPair, find_pair, load_pair, pair_home
from nla_core.nla.verbalizer import Verbalization
from nla_core.schema import Finish
from precompute.output import write_result
from precompute.testset import FOLDER, TestSet

HELP = (
    "Explain every vector of the recorded test set, reconstruct it from the text, and write FVE, "
    "rank, text statistics and floors."
)
EXAMPLE = "python -m precompute eval --nla data/nla/smollm2-135m-L20 --json out.json"
MIN_AGREEMENT = 0.98
CHECKED_SEQUENCES = 8


def evaluate(
    loaded: LoadedPair, tests: TestSet, texts: Sequence[Verbalization]
) -> dict[str, float | int | str]:
    """All figures of ``texts`` (one a test vector, in order); rebuilt vectors against true ones."""
    true, reference = tests.hidden, loaded.pair.reference
    rebuilt = loaded.reconstructor.reconstruct([t.text for t in texts])
    gold = loaded.reconstructor.reconstruct(tests.rows["label"].tolist())
    shuffled = rebuilt.roll(len(rebuilt) // 2, 0)

    def fve(predicted: Tensor) -> float:
        return 1.0 - float(metrics.mse_nrm(predicted, true).mean()) / reference.rawvar

    ranks = metrics.rank_of_own(rebuilt, true, reference.mean)
    centred = metrics.centred_cosine(rebuilt, true, reference.mean)
    words = [t.text.split() for t in texts]
    result: dict[str, float | int | str] = {
        "pair_id": loaded.pair.pair_id,
        "revision": loaded.pair.revision,
        "n": len(true),
        "fve": fve(rebuilt),
        "fve_gold": fve(gold),
        "rawvar": reference.rawvar,
        "mse_nrm": float(metrics.mse_nrm(rebuilt, true).mean()),
        "centred_cosine": float(centred.mean()),
        "rank_at_1": float((ranks == 0).float().mean()),
        "rank_median": int(ranks.median()) + 1,
        "cut_rate": sum(t.finish is Finish.CUT for t in texts) / len(texts),
        "distinct_3": distinct(words, 3),
        "duplicate_rate": 1.0 - len({t.text for t in texts}) / len(texts),
        "mean_tokens": sum(t.n_tokens for t in texts) / len(texts),
        "quote_precision": quote_precision([t.text for t in texts], tests.rows["context"].tolist()),
        "mean": fve(reference.mean.expand_as(true)),
        "shuffled": fve(shuffled),
        "empty": fve(loaded.reconstructor.reconstruct([""]).expand_as(true)),
        "bank_n": tests.bank_n,
    }
    return result | {name: fve(predicted) for name, predicted in tests.floors.items()}


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Share of different word n-grams among all: near 0 where texts repeat one template."""
    grams = [tuple(t[i : i + n]) for t in texts for i in range(len(t) - n + 1)]
    return len(set(grams)) / max(1, len(grams))


def quote_precision(texts: Sequence[str], contexts: Sequence[str]) -> float:
    """Share of quoted spans of two or more words that really stand in the context read so far."""
    found, total = 0, 0
    for text, context in zip(texts, contexts, strict=True):
        seen = _plain(context)
        for quote in re.findall(r'"([^"]+)"', text):
            if len(quote.split()) >= 2:
                total += 1
                found += _plain(quote) in seen
    return found / max(1, total)


def _plain(text: str) -> str:
    text = re.sub(r"^\[(user|assistant|system)\]", "", text.replace("\\n", " ").replace('"', "'"))
    return re.sub(r"\s+", " ", text).strip().lower()


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
    loaded: LoadedPair, vectors: Tensor, *, max_new_tokens: int
) -> list[Verbalization]:
    """Greedy explanations of ``[n, d_model]`` vectors, in order, with progress on stderr."""
    texts: dict[int, Verbalization] = {}
    start = time.monotonic()
    for text in loaded.verbalizer.verbalize(
        vectors, seeds=[0] * len(vectors), max_new_tokens=max_new_tokens
    ):
        texts[text.row] = text
        if len(texts) % 64 == 0:
            rate = len(texts) / (time.monotonic() - start)
            sys.stderr.write(f"{len(texts)}/{len(vectors)} explained, {rate:.1f}/s\n")
    return [texts[i] for i in range(len(vectors))]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nla", type=Path, required=True, metavar="DIR", help="the pair's folder")
    parser.add_argument("--limit", type=int, help="only the first N vectors (a quick look)")
    parser.add_argument("--explanation-tokens", type=int, default=80, help="length limit (80)")
    parser.add_argument("--show", type=int, default=20, help="readings to print beside contexts")
    parser.add_argument("--target", help="the target model, where the sidecar names none")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")


def main(args: argparse.Namespace) -> int:
    """Print the figures and some readings; ``--json`` gets the figures."""
    tests = TestSet.load(pair_home(args.nla) / FOLDER)
    if args.limit:
        keep = slice(0, args.limit)
        floors = {k: v[keep] for k, v in tests.floors.items()}
        tests = TestSet(tests.rows.iloc[keep], tests.hidden[keep], floors, tests.bank_n)
    pair = find_pair(args.nla, target=args.target)
    loaded = load_pair(pair, device=args.device, dtype=args.dtype)
    agreement = check_target(loaded, tests)
    texts = verbalize_all(loaded, tests.hidden, max_new_tokens=args.explanation_tokens)
    result = evaluate(loaded, tests, texts) | {"target_agreement": agreement}
    step = max(1, len(texts) // max(1, args.show))
    for row in range(0, len(texts), step)[: args.show]:
        context = tests.rows["context"].iloc[row][-70:].replace("\n", "\\n")
        print(f"…{context}\n    {texts[row].text}\n")
    for name, value in result.items():
        print(f"{name:>18}  {value:.4f}" if isinstance(value, float) else f"{name:>18}  {value}")
    write_result(args, result)
    return EXIT_OK
