"""``bench corpus``: seconds per 1,000 readings of ``precompute run``, where they go, linearity.

Knows how a corpus of a wanted size is cut out of the project's prompts. Knows nothing of models.
The decision a reader would question: models are loaded and the encoder warm before the clock
starts. Loading is told beside it: it is paid once a run, whatever its size.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nla_core.embed import Embedder, MiniLM
from nla_core.errors import EXIT_OK, NLAError
from nla_core.explain import Explainer
from precompute.benches.flops import clock
from precompute.benches.machine import conditions, exponent
from precompute.corpus import Corpus, read_corpus
from precompute.metering import PARTS, run_metered
from precompute.output import say, write_result
from precompute.plan import Settings, make_plan

EXPONENT_TARGET = 1.05
PROMPTS = Path("data/prompts")
ANSWER_TOKENS = 16


def corpus_of(corpus: Corpus, explainer: Explainer, readings: int, answer: int) -> int:
    """How many prompts, taken in order, give at least so many readings, by their tokens.

    Raises NLAError where the corpus is too small.
    """
    tokens = 0
    for count, prompt in enumerate(corpus.prompts, start=1):
        words = " ".join(message["content"] for message in prompt.messages)
        tokens += len(explainer.loaded.tokenizer(words)["input_ids"]) + answer
        if tokens >= readings:
            return count
    raise NLAError(
        f"The prompts do not suffice for {readings} readings",
        why=f"all {len(corpus.prompts)} of them give about {tokens}",
        fix="Use smaller --readings, or more prompts",
    )


def measure(
    corpus: Corpus,
    explainer: Explainer,
    embedder: Embedder,
    sizes: Sequence[int],
    settings: Settings,
) -> list[dict[str, Any]]:
    """One record a size: readings, seconds and processor seconds by part."""
    found = []
    for size in sizes:
        limit = corpus_of(corpus, explainer, size, settings.max_new_tokens)
        plan = make_plan(
            corpus, pair=explainer.pair.describe(), settings=settings, name="bench", limit=limit
        )
        with tempfile.TemporaryDirectory(prefix="nla-bench-") as home:
            meter, result = run_metered(plan, Path(home), explainer, embedder)
        readings = result["n_readings"]
        found.append(
            {
                "readings": readings,
                "prompts": limit,
                "tokens": dict(meter.tokens),
                "seconds": meter.whole.wall_s,
                "cpu_seconds": meter.whole.cpu_s,
                "parts_cpu_s": {part: meter.spent[part].cpu_s for part in PARTS},
                "cpu_s_per_1000_readings": 1000 * meter.whole.cpu_s / readings,
                "s_per_1000_readings": 1000 * meter.whole.wall_s / readings,
            }
        )
        say(f"{readings} readings: {meter.whole.cpu_s:.1f} s of CPU, {meter.whole.wall_s:.1f} s")
    return found


def loaded(args: argparse.Namespace) -> tuple[Explainer, Embedder, Settings]:
    """The pair, a warm encoder, and the settings that the flags of ``bench`` stand for."""
    explainer = Explainer.load(args.nla, device=args.device, dtype=args.dtype)
    embedder = MiniLM()
    embedder.embed(["a warm encoder"])
    parts = explainer.loaded.verbalizer.parts
    settings = Settings(
        max_new_tokens=ANSWER_TOKENS,
        explanation_tokens=args.explanation_tokens,
        batch_size=args.vectors,
        device=parts.device.type,
        dtype=str(parts.product_dtype).removeprefix("torch."),
    )
    return explainer, embedder, settings


def main(args: argparse.Namespace) -> int:
    """Print seconds and shares; ``--json`` gets all of it."""
    load_before = os.getloadavg()[0]
    corpus = read_corpus(sorted(PROMPTS.glob("*.jsonl")))
    with clock(torch.device("cpu")) as loading:
        explainer, embedder, settings = loaded(args)
    parts = explainer.loaded.verbalizer.parts
    sizes = measure(corpus, explainer, embedder, args.readings, settings)
    slope = exponent([s["readings"] for s in sizes], [s["cpu_seconds"] for s in sizes])
    result = {
        "pair_id": explainer.pair.pair_id,
        "sizes": sizes,
        "exponent": slope,
        "exponent_target": EXPONENT_TARGET,
        "largest_size_measured": max(args.readings),
        "load_s": loading.wall_s,
        "load_cpu_s": loading.cpu_s,
        "batch_size": settings.batch_size,
        "explanation_tokens": settings.explanation_tokens,
        **conditions(parts.device, parts.product_dtype, args.note, load_before),
    }
    for size in sizes:
        shares = ", ".join(
            f"{part} {seconds / size['cpu_seconds']:.0%}"
            for part, seconds in size["parts_cpu_s"].items()
        )
        print(
            f"{size['readings']} readings: {size['cpu_s_per_1000_readings']:.0f} s of processor "
            f"time per 1,000 ({shares})"
        )
    print(f"exponent {slope:.3f}" if slope is not None else "one size: no exponent")
    write_result(args, result)
    return EXIT_OK
