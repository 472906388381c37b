"""Verb ``plan``: what a run will take in time, memory, disk and money, before anything is run.

Knows how a few prompts of the corpus are chosen and run for calibration. Does not know how their
figures are scaled (see prediction.py). The decision a reader would question: calibration is a real
run of about one batch of readings, in a folder that is thrown away. It takes half a minute on two
cores, and what it measures is what will happen.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nla_core.errors import EXIT_OK, NLAError
from precompute.corpus import Corpus, Prompt, read_corpus
from precompute.output import say, write_result
from precompute.plan import Settings, make_plan
from precompute.run import add_corpus_arguments, add_settings

if TYPE_CHECKING:
    from nla_core.embed import Embedder
    from nla_core.explain import Explainer
    from precompute.benches.flops import Spent
    from precompute.occupancy import StepCosts
    from precompute.prediction import Models, Prediction, Sample, Size

HELP = (
    "Say what a run over a corpus would take: time, memory, disk and price. A few of its prompts "
    "are run to find out, and thrown away. With --gpu, an estimate for a GPU that is not here."
)
EXAMPLE = (
    "python -m precompute plan --nla data/nla/smollm2-135m-L20 --corpus data/prompts/facts.jsonl"
)
LEAST_PROMPTS = 2
GPU_ITEMSIZE = 2  # bytes of a number on a GPU that is not here


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_corpus_arguments(parser)
    add_settings(parser)
    parser.add_argument(
        "--gpu", metavar="NAME", help="estimate for this GPU instead, from its data sheet"
    )
    parser.add_argument(
        "--usd-per-hour", type=float, metavar="USD", help="price of the machine, for the price"
    )
    parser.add_argument(
        "--sample-readings",
        type=int,
        metavar="N",
        help="readings to calibrate with (default: one batch)",
    )


def chosen(prompts: Sequence[Prompt], lengths: Sequence[int], wanted: int) -> list[Prompt]:
    """Prompts evenly over the range of lengths, as few as give ``wanted`` tokens together."""
    order = sorted(range(len(prompts)), key=lengths.__getitem__)
    for count in range(min(LEAST_PROMPTS, len(order)), len(order) + 1):
        places = [order[(2 * i + 1) * len(order) // (2 * count)] for i in range(count)]
        if sum(lengths[place] for place in places) >= wanted:
            break
    return [prompts[place] for place in places]


def warm_up(explainer: Explainer, batch_size: int) -> StepCosts:
    """A few tokens through each model; what they told of the AV's steps.

    What a process pays once (pages of the weights, buffers of products) is then paid with loading:
    scaled up with the small run it made the prediction a quarter too long.
    """
    from precompute.occupancy import StepCosts

    loaded = explainer.loaded
    loaded.target.trace([list(loaded.tokenizer("a warm target")["input_ids"]) * 16])
    loaded.reconstructor.reconstruct(["a warm text"] * batch_size)
    return StepCosts.of(loaded.verbalizer, loaded.pair.d_model, batch_size)


def calibrate(
    prompts: Sequence[Prompt],
    settings: Settings,
    explainer: Explainer,
    embedder: Embedder,
    loading: Spent,
    steps: StepCosts,
) -> Sample:
    """Run ``prompts`` and throw the dataset away. NLAError where none of them could be read."""
    from precompute.metering import PARTS, run_metered
    from precompute.prediction import Sample

    corpus = Corpus(tuple(sorted(prompts, key=lambda prompt: prompt.id)), ())
    plan = make_plan(
        corpus, pair=explainer.pair.describe(), settings=settings, name="plan", limit=None
    )
    with tempfile.TemporaryDirectory(prefix="nla-plan-") as home:
        meter, result = run_metered(plan, Path(home), explainer, embedder)
        written = sum(path.stat().st_size for path in Path(home).rglob("*") if path.is_file())
    if not result["n_readings"]:
        raise NLAError(
            "The prompts that were tried gave no readings",
            why="all of them failed, or they have no content",
            fix="Run them with --limit to see why",
        )
    return Sample(
        prompts=len(prompts) - result["n_errors"],
        tokens=meter.tokens["target"],
        answer_tokens=meter.tokens["answers"],
        readings=result["n_readings"],
        lengths=tuple(meter.text_lengths),
        steps=steps,
        cpu_s={part: meter.spent[part].cpu_s for part in PARTS},
        wall_s={part: meter.spent[part].wall_s for part in PARTS},
        answers_cpu_s=meter.spent["answers"].cpu_s,
        load_cpu_s=loading.cpu_s,
        load_wall_s=loading.wall_s,
        bytes_once=_bytes_of_empty_tables(),
        bytes_written=written,
        peak_bytes=_peak_bytes(explainer),
    )


def foretell(
    corpus: Corpus,
    settings: Settings,
    explainer: Explainer,
    embedder: Embedder,
    loading: Spent,
    steps: StepCosts,
    sample_readings: int | None = None,
) -> tuple[Sample, Size, Prediction]:
    """The small run, the size of the large one, and what that will take on this machine."""
    from nla_core.nla.layout import prompt_ids
    from precompute.prediction import Size, predict

    lengths = [len(prompt_ids(explainer.loaded.tokenizer, p.messages)[0]) for p in corpus.prompts]
    wanted = sample_readings or settings.batch_size
    prompts = chosen(corpus.prompts, lengths, -(-wanted // settings.samples))
    sample = calibrate(prompts, settings, explainer, embedder, loading, steps)
    size = Size(
        prompts=len(lengths),
        prompt_tokens=sum(lengths),
        samples=settings.samples,
        batch_size=settings.batch_size,
        shard_size=settings.shard_size,
    )
    return sample, size, predict(sample, size)


def _bytes_of_empty_tables() -> int:
    """What the files of a version and of a shard take without a single row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from nla_core.schema import TABLES

    total = 0
    for schema in TABLES.values():
        sink = pa.BufferOutputStream()
        pq.write_table(schema.empty_table(), sink)
        total += 2 * sink.getvalue().size
    return total


def _peak_bytes(explainer: Explainer) -> int:
    import torch

    device = explainer.loaded.verbalizer.parts.device
    if device.type == "cuda":
        return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def elsewhere(
    name: str, sample: Sample, size: Size, here: Prediction, explainer: Explainer
) -> Prediction:
    """An estimate for the GPU called ``name``, from its data sheet and the shares reached here."""
    from precompute.benches.roofline import Machine
    from precompute.gpus import gpu
    from precompute.prediction import estimate, works

    parts = explainer.loaded.verbalizer.parts
    models, there = _models(explainer, None), _models(explainer, GPU_ITEMSIZE)
    machine = Machine.of(parts.device, parts.product_dtype)
    small = works(models, sample.tokens, sample.readings, sample, size.batch_size)
    reached = {
        part: min(1.0, work.floor(machine.gflop_per_cpu_s, machine.gbyte_per_cpu_s) / seconds)
        for part, work in small.items()
        if (seconds := sample.cpu_s[part]) > 0
    }
    large = works(there, here.tokens, here.readings, sample, size.batch_size)
    return estimate(here, gpu(name), large, reached, there, size.batch_size)


def _models(explainer: Explainer, itemsize: int | None) -> Models:
    """The three, with numbers of that many bytes, or as they are here."""
    from precompute.benches.reading import Costs
    from precompute.prediction import Models

    loaded, slot = explainer.loaded, explainer.loaded.verbalizer.slot
    return Models(
        Costs.of(loaded.target.model, itemsize),
        Costs.of(loaded.verbalizer.model, itemsize),
        Costs.of(loaded.reconstructor.model, itemsize),
        len(loaded.verbalizer.parts.layers),
        1 + len(slot.suffix_ids) + len(slot.prefill_ids),
        len(slot.prefix_ids),
    )


def main(args: argparse.Namespace) -> int:
    """Print the prediction; ``--json`` gets it with the small run it came from."""
    corpus = read_corpus(args.corpus, answered=args.max_new_tokens == 0).first(args.limit)
    settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})

    from dataclasses import asdict

    import torch

    from nla_core.embed import MiniLM
    from nla_core.explain import Explainer
    from nla_core.nla.devices import pick_dtype
    from nla_core.nla.placement import pick_place
    from precompute.benches.flops import clock
    from precompute.gpus import gpu

    price = args.usd_per_hour
    if args.gpu:
        price = gpu(args.gpu).usd_per_hour if price is None else price
    device = pick_place(args.device).first
    dtype = str(pick_dtype(device, args.dtype)).removeprefix("torch.")
    settings = replace(settings, device=device.type, dtype=dtype)
    with clock(torch.device("cpu")) as loading:
        explainer = Explainer.load(args.nla, device=args.device, dtype=args.dtype, progress=say)
        embedder = MiniLM()
        embedder.embed(["a warm encoder"])
        steps = warm_up(explainer, settings.batch_size)
    sample, size, found = foretell(
        corpus, settings, explainer, embedder, loading, steps, args.sample_readings
    )
    if args.gpu:
        found = elsewhere(args.gpu, sample, size, found, explainer)
    print(_told(found, args.gpu, price, size.prompts))
    result: dict[str, Any] = {
        "prediction": found.as_json(),
        "usd": None if price is None else found.usd(price),
        "usd_per_hour": price,
        "gpu": args.gpu,
        "sample": asdict(sample),
        "prompts": size.prompts,
        "settings": asdict(settings),
    }
    write_result(args, result)
    return EXIT_OK


def _told(found: Prediction, gpu: str | None, price: float | None, prompts: int) -> str:
    where = f"an estimate for one {gpu}, from its data sheet" if gpu else "on this machine"
    lines = [
        f"{prompts:,} prompts, about {found.readings:,} readings ({where})",
        f"time    {_time(found.wall_s)}, of it "
        + ", ".join(f"{part} {_time(seconds)}" for part, seconds in found.parts_s.items())
        + ("" if gpu else f" of processor time ({_time(found.cpu_s)} with loading)"),
        f"memory  {found.memory_bytes / 1e9:.1f} GB",
        f"disk    {found.disk_bytes / 1e6:.1f} MB",
    ]
    if price is None:
        lines.append("price   not known: give --usd-per-hour")
    else:
        lines.append(f"price   {found.usd(price):.2f} USD, at {price:.2f} USD an hour")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
