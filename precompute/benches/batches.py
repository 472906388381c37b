"""``bench batches``: readings a second of the AV by the size of its batch, and the share of floors.

Knows how one batch size after another is timed on one verbalizer. Knows nothing of the AR. The
decision a reader would question: a whole batch is timed from its vectors to its texts, with no
other rows waiting, so that a size's figure is that size's; refilling, which keeps a batch full in a
long run, has no part in it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nla_core.errors import EXIT_OK
from nla_core.memory import free, is_out_of_memory
from nla_core.nla.pair import find_pair, load_pair, pair_home
from nla_core.nla.verbalizer import LocalVerbalizer
from precompute.benches.flops import Spent, clock
from precompute.benches.machine import conditions
from precompute.benches.reading import Work, decoding_of, prefill_of
from precompute.benches.roofline import Machine
from precompute.benches.shapes import random_av
from precompute.output import say, write_result
from precompute.testset import FOLDER, TestSet

REPEATS = 2


def measure(
    verbalizer: LocalVerbalizer, vectors: Tensor, sizes: Sequence[int], max_new_tokens: int
) -> dict[str, Any]:
    """``machine``, one record a size, and the ``best`` of them by readings a second.

    ``vectors`` ``[n, d_model]`` are repeated where a batch is larger. A size that memory does not
    suffice for ends the series, and is told.
    """
    device, dtype = verbalizer.parts.device, verbalizer.parts.product_dtype
    machine = Machine.of(device, dtype)
    timed: list[tuple[int, Work, Spent]] = []
    too_large = None
    for size in sizes:
        some = vectors[torch.arange(size) % len(vectors)]
        try:
            timed.append((size, *_best(verbalizer, some, max_new_tokens)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            too_large = size
        if too_large is not None:
            free()  # outside the handler: its traceback holds what is to be freed
            say(f"{too_large} at a time: out of memory")
            break
        machine = machine.best(Machine.of(device, dtype))
        say(f"{size} at a time: {size / timed[-1][2].wall_s:.2f} readings/s")
    found = [_record(*one, machine, device) for one in timed]
    rate = "readings_per_s" if device.type == "cuda" else "readings_per_cpu_s"
    return {
        "machine": {"gflop_per_s": machine.gflop_per_s, "gbyte_per_s": machine.gbyte_per_s},
        "sizes": found,
        "too_large": too_large,
        "best": max(found, key=lambda one: one[rate]) if found else None,
    }


def _best(verbalizer: LocalVerbalizer, vectors: Tensor, max_new_tokens: int) -> tuple[Work, Spent]:
    """What the batch asks of the machine, and its fastest run."""
    with torch.inference_mode():  # the first run, which makes room, is nobody's work
        parts = [of(verbalizer, vectors, max_new_tokens) for of in (prefill_of, decoding_of)]
        work = Work(len(vectors), [one for part in parts for one in part.run().passes])
        del parts
    runs = []
    for _ in range(REPEATS):
        with clock(verbalizer.parts.device) as spent:
            for _text in verbalizer.verbalize(
                vectors,
                seeds=[0] * len(vectors),
                max_new_tokens=max_new_tokens,
                batch_size=len(vectors),
            ):
                pass
        runs.append(spent)
    return work, Spent(min(r.wall_s for r in runs), min(r.cpu_s for r in runs))


def _record(
    size: int, work: Work, spent: Spent, machine: Machine, device: torch.device
) -> dict[str, Any]:
    if device.type == "cuda":
        reached = work.floor(machine.gflop_per_s, machine.gbyte_per_s) / spent.wall_s
    else:
        reached = work.floor(machine.gflop_per_cpu_s, machine.gbyte_per_cpu_s) / spent.cpu_s
    return {
        "batch": size,
        "seconds": spent.wall_s,
        "cpu_seconds": spent.cpu_s,
        "readings_per_s": size / spent.wall_s,
        "readings_per_cpu_s": size / spent.cpu_s,
        "bound_by": work.bound_by(machine.gflop_per_s, machine.gbyte_per_s),
        "reached": reached,
    }


def main(args: argparse.Namespace) -> int:
    """Print the series; ``--json`` gets all of it."""
    load_before = os.getloadavg()[0]
    pair = find_pair(args.nla)
    if args.random_weights:
        verbalizer = random_av(args.random_weights, pair, device=args.device, dtype=args.dtype)
        draw = torch.Generator().manual_seed(0)
        vectors = torch.randn(64, verbalizer.parts.d_model, generator=draw)
    else:
        verbalizer = load_pair(pair, device=args.device, dtype=args.dtype).verbalizer
        vectors = TestSet.load(pair_home(args.nla) / FOLDER).hidden
    parts = verbalizer.parts
    result = {
        "pair_id": pair.pair_id,
        "random_weights": args.random_weights,
        "max_new_tokens": args.explanation_tokens,
        **measure(verbalizer, vectors, args.batches, args.explanation_tokens),
        **conditions(parts.device, parts.product_dtype, args.note, load_before),
    }
    for one in result["sizes"]:
        print(
            f"{one['batch']:5} at a time: {one['readings_per_s']:8.2f} readings/s, "
            f"{one['reached']:.0%} of the floor ({one['bound_by']})"
        )
    write_result(args, result)
    return EXIT_OK
