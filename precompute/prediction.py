"""From a small run to a large one: what a corpus will cost, by arithmetic alone.

Knows what grows with tokens, what with readings, and what is paid once. Does not know how the small
run was made (see cost.py). The decision a reader would question: little is modelled that the small
run can show. Its seconds, its share of tokens that get a reading and its bytes are scaled; the AV's
seconds with regard to how full its batch is (see occupancy.py). Only a GPU that is not here is
estimated from floors, by the shares of them that were reached here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from precompute.benches.reading import Costs, Work
from precompute.gpus import LAUNCH_S, LAUNCHES_A_BLOCK, Gpu
from precompute.occupancy import StepCosts

GPU_PASS_TOKENS = 16_384
GPU_CONTEXT_GB = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The small run: what went through it and what it took, by part of `metering.PARTS`."""

    prompts: int
    tokens: int  # of all transcripts, answers included
    answer_tokens: int
    readings: int
    lengths: tuple[int, ...]  # of the explanations, in tokens
    steps: StepCosts
    cpu_s: Mapping[str, float]
    wall_s: Mapping[str, float]
    answers_cpu_s: float  # of the target's
    load_cpu_s: float
    load_wall_s: float
    bytes_once: int  # of files without rows
    bytes_written: int  # published files and shards
    peak_bytes: int  # of the process

    @property
    def text_tokens(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True, slots=True)
class Size:
    """A corpus: prompts, their tokens with the chat template, and how it is run."""

    prompts: int
    prompt_tokens: int
    samples: int
    batch_size: int
    shard_size: int  # prompts that are answered together, and read until the batch empties

    @property
    def shards(self) -> int:
        return -(-self.prompts // self.shard_size)


@dataclass(frozen=True, slots=True)
class Prediction:
    readings: int
    tokens: int
    cpu_s: float
    wall_s: float
    memory_bytes: int
    disk_bytes: int
    parts_s: Mapping[str, float]  # of processor time here, of wall time on a named GPU
    is_estimate: bool  # from data sheets, not from a run

    def usd(self, per_hour: float) -> float:
        return self.wall_s / 3600 * per_hour

    def as_json(self) -> dict[str, Any]:
        return {
            "readings": self.readings,
            "tokens": self.tokens,
            "cpu_seconds": self.cpu_s,
            "seconds": self.wall_s,
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "parts_s": dict(self.parts_s),
            "is_estimate": self.is_estimate,
        }


def extent(sample: Sample, size: Size) -> tuple[int, int]:
    """(tokens of all transcripts, readings), answers as long as those of the sample."""
    tokens = size.prompt_tokens + round(size.prompts * sample.answer_tokens / sample.prompts)
    framing = (sample.tokens - sample.readings / size.samples) / sample.prompts
    readings = max(0, round(tokens - framing * size.prompts)) * size.samples
    return tokens, readings


def predict(sample: Sample, size: Size) -> Prediction:
    """On this machine: AV and answers by their steps, AR and encoder by readings, writing once."""
    tokens, readings = extent(sample, size)
    by_tokens, by_readings = tokens / sample.tokens, readings / sample.readings
    factor = {
        "target": _target(sample, size, by_tokens),
        "av": _av(sample, size, readings),
        "ar": by_readings,
        "embedding": by_readings,
        "writing": 1.0,
    }
    parts = {part: seconds * factor[part] for part, seconds in sample.cpu_s.items()}
    wall = {part: seconds * factor[part] for part, seconds in sample.wall_s.items()}
    rows = sample.bytes_written - sample.bytes_once
    return Prediction(
        readings,
        tokens,
        sample.load_cpu_s + sum(parts.values()),
        sample.load_wall_s + sum(wall.values()),
        sample.peak_bytes,
        sample.bytes_once + round(rows * by_readings),
        parts,
        is_estimate=False,
    )


def _target(sample: Sample, size: Size, by_tokens: float) -> float:
    """How many times the target's time of the small run.

    It answers the prompts of a shard together, in steps that are taken to cost more by the row as
    they do in the AV, which is a model of the same shape.
    """

    def answering(prompts: int) -> float:
        full, more = divmod(prompts, size.shard_size)
        batches = [size.shard_size] * full + [more] * bool(more)
        return sum(sample.steps.step_s + rows * sample.steps.row_s for rows in batches)

    target, here = sample.cpu_s["target"], answering(sample.prompts)
    if not target or not here:
        return by_tokens
    share = sample.answers_cpu_s / target
    return (1 - share) * by_tokens + share * answering(size.prompts) / here


def _av(sample: Sample, size: Size, readings: int) -> float:
    """How many times the AV's time of the small run, with texts as long as those."""
    here = sample.steps.seconds(sample.lengths, size.batch_size)
    each, more = divmod(readings, size.shards)
    there = 0.0
    for rows, shards in ((each, size.shards - more), (each + 1, more)):
        some = [sample.lengths[i % len(sample.lengths)] for i in range(rows if shards else 0)]
        there += shards * sample.steps.seconds(some, size.batch_size)
    return there / here if here else readings / sample.readings


@dataclass(frozen=True, slots=True)
class Models:
    """What the three models ask for, and the AV's own prompt and the part of it that is shared."""

    target: Costs
    av: Costs
    ar: Costs
    blocks: int
    own_prompt: int
    shared_prompt: int


def works(
    models: Models, tokens: int, readings: int, sample: Sample, batch: int
) -> dict[str, Work]:
    """What a run of that extent asks of a machine, by part."""
    text = sample.text_tokens / sample.readings
    answers = sample.answer_tokens / sample.prompts
    passes = max(1, tokens // GPU_PASS_TOKENS)
    target = [models.target.of_pass(tokens // passes, tokens // passes)] * passes
    batches = max(1.0, readings / batch)
    rows = round(min(batch, readings))
    prompt = models.own_prompt + models.shared_prompt
    step = models.av.of_pass(rows, rows, round(rows * (prompt + text / 2)))
    av = [models.av.of_pass(rows * models.own_prompt, rows)] * round(batches)
    av += [step] * round(batches * text)
    ar = [models.ar.of_pass(round(rows * text), 0)] * round(batches)
    steps = round(answers * max(1, sample.prompts / 8))
    target += [models.target.of_pass(8, 8)] * steps
    return {
        "target": Work(tokens, target),
        "av": Work(readings, av),
        "ar": Work(readings, ar),
    }


def estimate(
    here: Prediction,
    gpu: Gpu,
    work: Mapping[str, Work],
    reached: Mapping[str, float],
    models: Models,
    batch: int,
) -> Prediction:
    """On a GPU that is not here: floors by its data sheet over the shares ``reached`` here.

    ``work`` and ``models`` are of numbers of the size that they have there. Encoder and writing
    take what they take here. A pass never takes less than starting its kernels.
    """
    parts: dict[str, float] = {}
    start = models.blocks * LAUNCHES_A_BLOCK * LAUNCH_S
    for part, asked in work.items():
        floor = asked.floor(gpu.gflop_per_s, gpu.gbyte_per_s) / reached[part]
        parts[part] = max(floor, len(asked.passes) * start)
    for part in ("embedding", "writing"):
        parts[part] = here.parts_s[part]
    weights = sum(c.blocks + c.head for c in (models.target, models.av, models.ar))
    cached = models.av.cached * batch * (models.own_prompt + models.shared_prompt + 80)
    memory = GPU_CONTEXT_GB + weights + cached
    return Prediction(
        here.readings,
        here.tokens,
        sum(parts.values()),
        sum(parts.values()),
        round(memory * 1e9),
        here.disk_bytes,
        parts,
        is_estimate=True,
    )
