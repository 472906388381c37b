"""``bench explain``: the AV path against ``generate``, one vector at a time and all in one batch.

Knows how the three are run on the same vectors and compared. Knows nothing of quality. The decision
a reader would question: on a CPU processor time of the process is compared, not wall time, so that
the ratio means the same on a busy machine and does not reward the use of more cores; on a GPU, wall
time. The one-at-a-time reference is run on some of the vectors and scaled: they are independent.
The references have the same weights as transformers leaves them, ours may have packed its own.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from nla_core.errors import EXIT_OK
from nla_core.nla.injection import scale_for_injection
from nla_core.nla.pair import (
    Pair,
    find_pair,
    load_half,
    load_pair,
    pair_home,
    resolve_target,
)
from nla_core.nla.verbalizer import LocalVerbalizer, strip_tags
from precompute.benches.flops import Spent, clock
from precompute.benches.machine import conditions
from precompute.benches.shapes import random_av
from precompute.output import say, write_result
from precompute.testset import FOLDER, TestSet


def bench_explain(
    verbalizer: LocalVerbalizer,
    plain: LocalVerbalizer,
    vectors: Tensor,
    max_new_tokens: int,
    *,
    one_by_one: int,
    rounds: int = 1,
) -> dict[str, Any]:
    """Explain ``[n, d_model]`` vectors in three ways; counts, seconds, and the ratios.

    ``plain`` is the same AV for the references. ``one_by_one`` vectors go through ``generate``
    alone. The ways take turns for ``rounds`` rounds and the fastest run of each counts. ``ratio_*``
    is the time of a reference over ours.
    """
    device, n = verbalizer.parts.device, len(vectors)
    for av, texts in ((verbalizer, _ours), (plain, plain_batch)):
        texts(av, vectors[:2], 4)  # what is done once, such as making room, is nobody's work
    best: dict[str, Spent] = {}
    found: dict[str, Sequence[str]] = {}
    for _ in range(rounds):
        for name, av, texts, some in (
            ("ours", verbalizer, _ours, vectors),
            ("batched_generate", plain, plain_batch, vectors),
            ("one_by_one_generate", plain, plain_texts, vectors[:one_by_one]),
        ):
            with clock(device) as spent:
                found[name] = texts(av, some, max_new_tokens)
            scale = n / len(some)
            new = Spent(spent.wall_s * scale, spent.cpu_s * scale)
            old = best.get(name, new)
            best[name] = Spent(min(old.wall_s, new.wall_s), min(old.cpu_s, new.cpu_s))
            say(f"{name}: {new.cpu_s:.1f} s of CPU, {new.wall_s:.1f} s for {n} vectors")

    def ratio(name: str) -> float:
        if device.type == "cuda":
            return best[name].wall_s / best["ours"].wall_s
        return best[name].cpu_s / best["ours"].cpu_s

    alone = zip(found["ours"], found["one_by_one_generate"], strict=False)
    return {
        "vectors": n,
        "max_new_tokens": max_new_tokens,
        "one_by_one_vectors": one_by_one,
        "rounds": rounds,
        "seconds": {name: spent.wall_s for name, spent in best.items()},
        "cpu_seconds": {name: spent.cpu_s for name, spent in best.items()},
        "ratio_one_by_one": ratio("one_by_one_generate"),
        "ratio_batched": ratio("batched_generate"),
        "same_texts_one_by_one": sum(a == b for a, b in alone),
        "same_texts_batched": sum(
            a == b for a, b in zip(found["ours"], found["batched_generate"], strict=True)
        ),
    }


def _ours(verbalizer: LocalVerbalizer, vectors: Tensor, max_new_tokens: int) -> list[str]:
    made = verbalizer.verbalize(
        vectors,
        seeds=[0] * len(vectors),
        max_new_tokens=max_new_tokens,
        batch_size=len(vectors),
    )
    return [text.text for text in sorted(made, key=lambda text: text.row)]


@torch.inference_mode()
def plain_batch(verbalizer: LocalVerbalizer, vectors: Tensor, max_new_tokens: int) -> list[str]:
    """All whole prompts in one batch through ``generate``, greedily, as transformers attends.

    They are of one length, so nothing is padded.
    """
    slot, tokenizer, model = verbalizer.slot, verbalizer.tokenizer, verbalizer.model
    ids = [*slot.prefix_ids, slot.marker_id, *slot.suffix_ids, *slot.prefill_ids]
    prompt = verbalizer.parts.embed(torch.tensor([ids], device=verbalizer.parts.device))
    inputs = prompt.repeat(len(vectors), 1, 1)
    scaled = scale_for_injection(vectors, verbalizer.sidecar.injection_scale)
    inputs[:, len(slot.prefix_ids)] = scaled.to(inputs)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    own = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        new = model.generate(
            inputs_embeds=inputs,
            attention_mask=torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device),
            generation_config=config,
        )
    finally:
        model.set_attn_implementation(own)
    rows = new.tolist()
    return [
        strip_tags(tokenizer.decode([*slot.prefill_ids, *row], skip_special_tokens=True))[0]
        for row in rows
    ]


def plain_texts(verbalizer: LocalVerbalizer, vectors: Tensor, max_new_tokens: int) -> list[str]:
    """Each vector's whole prompt by itself through ``generate``, greedily."""
    return [
        plain_batch(verbalizer, vectors[row : row + 1], max_new_tokens)[0]
        for row in range(len(vectors))
    ]


def _as_it_is(pair: Pair, verbalizer: LocalVerbalizer) -> LocalVerbalizer:
    """The same AV as transformers loads it, its adapter merged."""
    parts = verbalizer.parts
    base = resolve_target(pair).folder
    model = load_half(pair.av_dir, base, dtype=parts.product_dtype, device=parts.device)
    return LocalVerbalizer(model, verbalizer.tokenizer, pair.av)


def main(args: argparse.Namespace) -> int:
    """Print times and ratios; ``--json`` gets all of it."""
    load_before = os.getloadavg()[0]
    pair = find_pair(args.nla)
    if args.random_weights:
        shape, where = args.random_weights, {"device": args.device, "dtype": args.dtype}
        verbalizer = random_av(shape, pair, **where)
        plain = random_av(shape, pair, **where, plain=True)
        draw = torch.Generator().manual_seed(0)
        vectors = torch.randn(args.vectors, verbalizer.parts.d_model, generator=draw)
    else:
        verbalizer = load_pair(pair, device=args.device, dtype=args.dtype).verbalizer
        plain = _as_it_is(pair, verbalizer)
        vectors = TestSet.load(pair_home(args.nla) / FOLDER).hidden[: args.vectors]
    result = bench_explain(
        verbalizer,
        plain,
        vectors,
        args.explanation_tokens,
        one_by_one=min(args.one_by_one, len(vectors)),
        rounds=args.repeats,
    )
    parts = verbalizer.parts
    result |= {
        "pair_id": pair.pair_id,
        "random_weights": args.random_weights,
        **conditions(parts.device, parts.product_dtype, args.note, load_before),
    }
    print(
        f"{result['vectors']} vectors of at most {args.explanation_tokens} tokens: "
        f"{result['ratio_one_by_one']:.1f} times as fast as one generate a vector "
        f"({result['same_texts_one_by_one']} of {result['one_by_one_vectors']} texts identical), "
        f"{result['ratio_batched']:.2f} times as fast as one batched generate "
        f"({result['same_texts_batched']} of {result['vectors']} texts identical)"
    )
    write_result(args, result)
    return EXIT_OK
