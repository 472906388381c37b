"""Verb ``plan``: what a run would take in time, memory, disk and money, before it is started.

A few prompts of the corpus are run and measured, about one batch of readings, and the result is
scaled by tokens and readings to a range (see `nla_core.jobs.estimate`). Nothing is written.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from nla_core.errors import EXIT_OK, NLAError
from precompute.corpus import Prompt, read_corpus
from precompute.output import say, write_result
from precompute.plan import Settings, Shard, add_corpus_arguments, add_settings, prompt_seeds

if TYPE_CHECKING:
    from nla_core.embed import Embedder
    from nla_core.explain import Explainer
    from nla_core.jobs.estimate import Batch, Estimate

HELP = (
    "Say what a run over a corpus would take: a range of time, and memory, disk and price. About "
    "one batch of its readings is made to find out, and thrown away."
)
EXAMPLE = (
    "python -m precompute plan --nla data/nla/smollm2-135m-L20 --corpus data/prompts/facts.jsonl"
)
LEAST_PROMPTS = 2
NAMED = 5
"""Prompts that are named on the terminal; ``--json`` has all of them."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The prompts that can be run, their lengths in tokens, and the reasons against the others."""

    prompts: tuple[Prompt, ...]
    lengths: tuple[int, ...]
    failed: dict[str, NLAError]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What all prompts would take; ``usd`` is a range."""

    prompts: int
    tokens: int
    readings: int
    time: Estimate
    memory_bytes: int
    disk_bytes: int
    usd: tuple[float, float] | None
    failed: dict[str, NLAError]

    def as_json(self) -> dict[str, Any]:
        failed = {
            name: {"what": error.what, "why": error.why, "fix": error.fix}
            for name, error in self.failed.items()
        }
        return {**asdict(replace(self, failed={})), "failed": failed}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_corpus_arguments(parser)
    add_settings(parser)
    parser.add_argument(
        "--usd-per-hour", type=float, metavar="USD", help="price of the machine, for the price"
    )
    parser.add_argument(
        "--sample-readings",
        type=int,
        metavar="N",
        help="readings to measure with (default: one batch)",
    )


def count(prompts: Iterable[Prompt], explainer: Explainer, max_new_tokens: int) -> Counted:
    """The length of each prompt. Raises NLAError where not one of them can be run."""
    from nla_core.models.chat import prompt_ids

    kept: list[Prompt] = []
    lengths: list[int] = []
    failed: dict[str, NLAError] = {}
    for prompt in prompts:
        try:
            n = len(prompt_ids(explainer.loaded.tokenizer, prompt.messages)[0])
            explainer.loaded.target.check_length(n + max_new_tokens)
        except NLAError as error:
            failed[prompt.id] = error
        else:
            kept.append(prompt)
            lengths.append(n)
    if not kept:
        first, reason = next(iter(failed.items()))
        raise NLAError(
            "No prompt of the corpus can be run", why=f"{first}: {reason}", fix="Correct the corpus"
        )
    return Counted(tuple(kept), tuple(lengths), failed)


def chosen(prompts: Sequence[Prompt], lengths: Sequence[int], wanted: int) -> list[Prompt]:
    """Prompts evenly over the range of lengths, as few as give ``wanted`` tokens together."""
    order = sorted(range(len(prompts)), key=lengths.__getitem__)
    for n in range(min(LEAST_PROMPTS, len(order)), len(order) + 1):
        places = [order[(2 * i + 1) * len(order) // (2 * n)] for i in range(n)]
        if sum(lengths[place] for place in places) >= wanted:
            break
    return [prompts[place] for place in places]


def forecast(
    counted: Counted,
    settings: Settings,
    explainer: Explainer,
    embedder: Embedder,
    *,
    load_s: float = 0.0,
    sample_readings: int | None = None,
    usd_per_hour: float | None = None,
) -> Forecast:
    """Measure a batch and scale it to all prompts. Raises NLAError where it gives no reading."""
    from nla_core.jobs.estimate import measure

    wanted = -(-(sample_readings or settings.batch_size) // settings.samples)
    some = chosen(counted.prompts, counted.lengths, wanted)
    seeds = prompt_seeds(Shard(1, tuple(some)), settings.seed)
    batch = measure(
        explainer,
        [prompt.messages for prompt in some],
        seeds,
        answer={
            "max_new_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
        },
        explanation={
            "samples": settings.samples,
            "temperature": settings.explanation_temperature,
            "seed": settings.seed,
            "max_new_tokens": settings.explanation_tokens,
            "batch_size": settings.batch_size,
        },
    )
    texts = [reading.explanation for found in batch.readings for reading in found]
    began = time.monotonic()
    vectors = embedder.embed(texts)
    publish_s = (time.monotonic() - began) / len(texts)

    answers = sum(one.n_answer_tokens for one in batch.transcripts) / len(batch.transcripts)
    tokens = sum(counted.lengths) + round(answers * len(counted.lengths))
    readings = round(len(texts) / batch.tokens * tokens)
    rates = replace(batch.rates, publish=publish_s, load=load_s)
    found = rates.estimate(tokens=tokens, readings=readings, loaded=False)
    usd = None
    if usd_per_hour is not None and found.low is not None and found.high is not None:
        usd = (found.low / 3600 * usd_per_hour, found.high / 3600 * usd_per_hour)
    rows = _parquet_bytes(batch, some, seeds, explainer, settings) / len(texts)
    return Forecast(
        prompts=len(counted.prompts),
        tokens=tokens,
        readings=readings,
        time=found,
        memory_bytes=_peak_bytes(explainer),
        disk_bytes=round(readings * (2 * rows + 2 * vectors.shape[1])),
        usd=usd,
        failed=counted.failed,
    )


def _parquet_bytes(
    batch: Batch,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    explainer: Explainer,
    settings: Settings,
) -> int:
    """What the rows of the batch take; a run keeps them twice, in shards and in the version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from nla_core.rows import Outcome, tables_of

    rows = [
        Outcome(prompts[place], seeds[place], transcript, readings=list(readings))
        for place, transcript, readings in zip(
            batch.places, batch.transcripts, batch.readings, strict=True
        )
    ]
    total = 0
    for table in tables_of(rows, explainer.reading_id, asdict(settings)).values():
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        total += sink.getvalue().size
    return total


def _peak_bytes(explainer: Explainer) -> int:
    import torch

    if explainer.loaded.verbalizer.parts.device.type == "cuda":
        return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def main(args: argparse.Namespace) -> int:
    """Print the forecast; ``--json`` gets it with the settings."""
    corpus = read_corpus(args.corpus, answered=args.max_new_tokens == 0).first(args.limit)
    settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})

    from nla_core.embed import MiniLM
    from nla_core.explain import Explainer

    began = time.monotonic()
    explainer = Explainer.load(args.nla, device=args.device, dtype=args.dtype, progress=say)
    embedder = MiniLM()
    embedder.embed(["a warm encoder"])
    load_s = time.monotonic() - began
    parts = explainer.loaded.verbalizer.parts
    dtype = str(parts.product_dtype).removeprefix("torch.")
    settings = replace(settings, device=parts.device.type, dtype=dtype)
    found = forecast(
        count(corpus.prompts, explainer, settings.max_new_tokens),
        settings,
        explainer,
        embedder,
        load_s=load_s,
        sample_readings=args.sample_readings,
        usd_per_hour=args.usd_per_hour,
    )
    print(in_words(found))
    write_result(args, {**found.as_json(), "settings": asdict(settings)})
    return EXIT_OK


def in_words(found: Forecast) -> str:
    """The forecast as lines for a terminal."""
    time_, usd = found.time, found.usd
    assert time_.seconds is not None
    assert time_.low is not None
    assert time_.high is not None
    lines = [
        f"{found.prompts:,} prompts, about {found.readings:,} readings, on this machine",
        f"time    {_span(time_.low)} to {_span(time_.high)}, most likely {_span(time_.seconds)}",
        f"memory  {found.memory_bytes / 1e9:.1f} GB",
        f"disk    {found.disk_bytes / 1e6:.1f} MB",
        f"price   {usd[0]:.2f} to {usd[1]:.2f} USD" if usd else "price   give --usd-per-hour",
    ]
    for name, error in list(found.failed.items())[:NAMED]:
        lines.append(f"cannot be run: {name}: {error}")
    if (more := len(found.failed) - NAMED) > 0:
        lines.append(f"cannot be run: {more} more")
    return "\n".join(lines)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
