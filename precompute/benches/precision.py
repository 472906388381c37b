"""``bench precision``: what a number format costs in FVE, from the target's vectors to the AR.

Knows how the same positions are read twice and compared. Knows nothing of speed but the processor
time of each reading. The decision a reader would question: both are held against the float32
vectors, so that what the format does to the target counts, too; and the difference is judged by its
interval over documents, since one changed word early in a text changes the rest of it by chance.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nla_core import metrics
from nla_core.errors import EXIT_OK, NLAError
from nla_core.memory import free
from nla_core.nla.devices import pick_device, pick_dtype
from nla_core.nla.layout import prompt_ids
from nla_core.nla.pair import LoadedPair, Pair, Reference, find_pair, load_pair
from nla_core.nla.target import Trace
from precompute.benches.flops import clock
from precompute.benches.machine import conditions
from precompute.corpus import Prompt, read_corpus
from precompute.evaluation.fidelity import fve_of, interval
from precompute.output import say, write_result
from precompute.testset import usable_positions

Ids = list[list[int]]
PROMPTS = Path("data/prompts")
BATCH = 64
WITHIN = 0.005
"""The FVE that a fast path may differ by (docs/performance.md)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Token ``position`` of sequence ``document``."""

    document: int
    position: int


@dataclass(frozen=True, slots=True)
class Lane:
    """What one number format made of ``n`` places; vectors are ``[n, d_model]`` float32."""

    hidden: Tensor
    texts: list[str]
    rebuilt: Tensor
    cpu_s: float


def places_of(loaded: LoadedPair, prompts: Sequence[Prompt], n: int) -> tuple[Ids, list[Place]]:
    """The prompts' token ids, and ``n`` places spread evenly over what people wrote.

    Early positions and attention sinks are left out, as in the test set.
    Raises NLAError where there are fewer.
    """
    rendered = [prompt_ids(loaded.tokenizer, prompt.messages) for prompt in prompts]
    sequences = [ids for ids, _ in rendered]
    traces = _traces(loaded, sequences)
    found = [
        Place(document, position)
        for document, ((_, pieces), trace) in enumerate(zip(rendered, traces, strict=True))
        for position in usable_positions(pieces, trace)
    ]
    if n > len(found):
        raise NLAError(
            f"The prompts do not suffice for {n} vectors",
            why=f"all {len(prompts)} of them give {len(found)}",
            fix="Ask for fewer with --vectors",
        )
    return sequences, [found[i * len(found) // n] for i in range(n)]


def read(loaded: LoadedPair, sequences: Ids, places: Sequence[Place], max_new_tokens: int) -> Lane:
    """Vectors of the target, greedy texts of the AV, and what the AR makes of them."""
    with clock(loaded.target.device) as spent:
        traces = _traces(loaded, sequences)
        hidden = torch.stack([traces[p.document].hidden[p.position] for p in places])
        texts = [""] * len(places)
        for done, made in enumerate(
            loaded.verbalizer.verbalize(
                hidden,
                seeds=[0] * len(places),
                max_new_tokens=max_new_tokens,
                batch_size=BATCH,
            ),
            start=1,
        ):
            texts[made.row] = made.text
            if done % 500 == 0:
                say(f"{done} of {len(places)} texts")
        rebuilt = loaded.reconstructor.reconstruct(texts)
    return Lane(hidden, texts, rebuilt, spent.cpu_s)


def _traces(loaded: LoadedPair, sequences: Ids) -> list[Trace]:
    return loaded.target.trace(sequences, predict_at=[[] for _ in sequences])


def compare(
    exact: Lane, fast: Lane, again: Tensor, places: Sequence[Place], reference: Reference
) -> dict[str, Any]:
    """FVE of both lanes against the exact vectors, and of each step of the fast one alone.

    ``again`` ``[n, d_model]`` is what the fast AR makes of the exact texts.
    """
    documents = [str(place.document) for place in places]
    errors = {
        name: metrics.mse_nrm(rebuilt, exact.hidden)
        for name, rebuilt in (("exact", exact.rebuilt), ("fast", fast.rebuilt), ("ar", again))
    }

    def difference(name: str) -> tuple[float, dict[str, float]]:
        worse = errors[name] - errors["exact"]
        ends = interval(worse, documents, reference.rawvar)  # of 1 minus the difference
        return fve_of(worse, reference.rawvar) - 1, {k: v - 1 for k, v in ends.items()}

    all_of_it, ends = difference("fast")
    ar, ar_ends = difference("ar")
    return {
        "n": len(places),
        "documents": len(set(documents)),
        "fve_float32": fve_of(errors["exact"], reference.rawvar),
        "fve": fve_of(errors["fast"], reference.rawvar),
        "difference": all_of_it,
        "lost_at_most": -ends["low"],
        "difference_ci": ends,
        "ar_difference": ar,
        "ar_difference_ci": ar_ends,
        "target_mse_nrm": float(metrics.mse_nrm(fast.hidden, exact.hidden).mean()),
        "same_texts": sum(a == b for a, b in zip(exact.texts, fast.texts, strict=True)),
        "within": WITHIN,
        "shown": max(-ends["low"], ends["high"]) <= WITHIN,
        "cpu_seconds": {"float32": exact.cpu_s, "fast": fast.cpu_s},
    }


def measure(
    pair: Pair, prompts: Sequence[Prompt], device: str, dtype: str, n: int, max_new_tokens: int
) -> dict[str, Any]:
    """Both lanes of ``n`` places; one pair is in memory at a time."""
    loaded = load_pair(pair, device=device, dtype="float32")
    sequences, places = places_of(loaded, prompts, n)
    say(f"{len(places)} vectors of {len(prompts)} prompts, in float32")
    exact = read(loaded, sequences, places, max_new_tokens)
    del loaded
    free()
    say(f"the same in {dtype}")
    loaded = load_pair(pair, device=device, dtype=dtype)
    fast = read(loaded, sequences, places, max_new_tokens)
    again = loaded.reconstructor.reconstruct(exact.texts)
    return compare(exact, fast, again, places, pair.reference)


def main(args: argparse.Namespace) -> int:
    """Print both FVE and their difference; ``--json`` gets all of it."""
    load_before = os.getloadavg()[0]
    where = pick_device(args.device)
    kind = pick_dtype(where, args.dtype)
    if kind == torch.float32:
        raise NLAError(
            "There is nothing to compare with float32",
            why="float32 was named"
            if args.dtype == "float32"
            else "`auto` chooses float32 here: the processor does not multiply bfloat16",
            fix="Name another format, such as --dtype bfloat16",
        )
    dtype = str(kind).removeprefix("torch.")
    pair = find_pair(args.nla)
    prompts = read_corpus(sorted(PROMPTS.glob("*.jsonl"))).prompts
    sizes = args.vectors, args.explanation_tokens
    result = measure(pair, prompts, args.device, dtype, *sizes) | {
        "pair_id": pair.pair_id,
        "max_new_tokens": args.explanation_tokens,
        **conditions(where, kind, args.note, load_before),
    }
    ends = result["difference_ci"]
    print(
        f"FVE {result['fve']:.4f} in {dtype}, {result['fve_float32']:.4f} in float32: "
        f"{result['difference']:+.4f} ({ends['low']:+.4f} to {ends['high']:+.4f}) over "
        f"{result['n']} vectors; {result['same_texts']} texts identical"
    )
    write_result(args, result)
    return EXIT_OK
