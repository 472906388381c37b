"""Explaining vectors: the AV against plain `generate`, the AR and the target against their floor.

The AV writes the same vectors in three ways that take turns: ours, one `generate` a vector, and one
batched `generate`, each by transformers as it stands. Texts are greedy and compared one by one.
The floor of the AR and of the target is one pass in which nothing but matrix products takes time:
2 operations a weight and position, at the best rate of a square product in the same run.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from benchmarks import harness
from benchmarks.harness import Figure, Spent, clock
from nla_core.models.families import parts_of
from nla_core.models.injection import scale_for_injection
from nla_core.models.pair import (
    LoadedPair,
    Pair,
    find_pair,
    load_half,
    load_pair,
    pair_home,
    resolve_target,
)
from nla_core.models.reconstructor import token_rows
from nla_core.models.verbalizer import LocalVerbalizer, strip_tags
from precompute.testset import FOLDER, TestSet

NAME = "readings"
CONTEXTS = 32


def ours(verbalizer: LocalVerbalizer, vectors: Tensor, max_new_tokens: int) -> list[str]:
    made = verbalizer.verbalize(
        vectors, seeds=[0] * len(vectors), max_new_tokens=max_new_tokens, batch_size=len(vectors)
    )
    return [text.text for text in sorted(made, key=lambda text: text.row)]


@torch.inference_mode()
def batched(verbalizer: LocalVerbalizer, vectors: Tensor, max_new_tokens: int) -> list[str]:
    """All whole prompts in one batch through ``generate``; they have one length, so no padding."""
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
    return [
        strip_tags(tokenizer.decode([*slot.prefill_ids, *row], skip_special_tokens=True))[0]
        for row in new.tolist()
    ]


def alone(verbalizer: LocalVerbalizer, vectors: Tensor, max_new_tokens: int) -> list[str]:
    rows = range(len(vectors))
    return [batched(verbalizer, vectors[row : row + 1], max_new_tokens)[0] for row in rows]


def as_it_is(pair: Pair, verbalizer: LocalVerbalizer) -> LocalVerbalizer:
    """The same AV as transformers loads it, its adapter merged."""
    parts = verbalizer.parts
    base = resolve_target(pair).folder
    model = load_half(pair.av_dir, base, dtype=parts.product_dtype, device=parts.device)
    return LocalVerbalizer(model, verbalizer.tokenizer, pair.av)


def av_figures(
    verbalizer: LocalVerbalizer,
    plain: LocalVerbalizer,
    vectors: Tensor,
    *,
    tokens: int,
    n_alone: int,
    rounds: int,
) -> dict[str, Figure]:
    """Three ways in turns; the fastest round of each counts."""
    device, n = verbalizer.parts.device.type, len(vectors)
    for av, way in ((verbalizer, ours), (plain, batched)):
        way(av, vectors[:2], 4)  # pays what is paid once
    best: dict[str, float] = {}
    texts: dict[str, Sequence[str]] = {}
    for _ in range(rounds):
        for name, av, way, some in (
            ("ours", verbalizer, ours, vectors),
            ("batched", plain, batched, vectors),
            ("alone", plain, alone, vectors[:n_alone]),
        ):
            with clock(device) as spent:
                texts[name] = way(av, some, tokens)
            seconds = spent.on(device) * n / len(some)
            best[name] = min(best.get(name, seconds), seconds)
            harness.say(f"{name}: {seconds:.1f} s for {n} vectors")

    def same(name: str) -> float:
        pairs = list(zip(texts["ours"], texts[name], strict=False))
        return sum(a == b for a, b in pairs) / len(pairs)

    return {
        "av_against_one_by_one": Figure(
            best["alone"] / best["ours"],
            "times as fast as one `generate` a vector: what the AV's batches, its shared prompt "
            "and its packed weights give",
            "×",
            "higher",
        ),
        "av_against_batched": Figure(
            best["batched"] / best["ours"],
            "times as fast as one batched `generate` over the same vectors",
            "×",
            "higher",
        ),
        "same_texts_one_by_one": Figure(
            100 * same("alone"), "texts that are those of one `generate` a vector", "%"
        ),
        "same_texts_batched": Figure(
            100 * same("batched"), "texts that are those of one batched `generate`", "%"
        ),
        "av_ms_per_reading": Figure(1000 * best["ours"] / n, "the AV, a reading of a batch", "ms"),
    }


def floor_figures(
    loaded: LoadedPair, texts: Sequence[str], contexts: Sequence[Sequence[int]], rounds: int
) -> dict[str, Figure]:
    """AR and target: the floor of their products over the time they take."""
    parts = loaded.verbalizer.parts
    device = parts.device.type
    blocks, head = weights(loaded.target.model)
    n = sum(map(len, contexts))
    ar = loaded.reconstructor
    ar_blocks, _ = weights(ar.model)
    ar_positions = sum(map(len, token_rows(ar.tokenizer, ar.template, texts)))
    stages: dict[str, tuple[Callable[[], Any], float]] = {
        "ar": (lambda: ar.reconstruct(texts), 2e-9 * ar_blocks * ar_positions),
        "extract": (lambda: loaded.target.trace(contexts), 2e-9 * (blocks + head) * n),
    }
    taken, rate = {}, harness.matmul_gflop_per_s(device, parts.product_dtype)
    for name, (run, _) in stages.items():
        run()
        spent = [_timed(run, device) for _ in range(rounds)]
        taken[name] = min(one.on(device) for one in spent)
        rate = max(rate, harness.matmul_gflop_per_s(device, parts.product_dtype))
        harness.say(f"{name}: {taken[name]:.2f} s")

    def share(name: str) -> float:
        return stages[name][1] / rate / taken[name]

    return {
        "ar_share_of_floor": Figure(
            share("ar"),
            "AR scoring, share of its floor: 1 would be nothing but matrix products at full speed",
            "",
            "higher",
        ),
        "extract_share_of_floor": Figure(
            share("extract"), "the target's vectors and predictions, share of their floor", "",
            "higher",
        ),
        "matmul_gflop_per_s": Figure(
            rate, "the floor's rate: the best square matrix product", "GFLOP/s"
        ),
    }  # fmt: skip


def _timed(run: Callable[[], Any], device: str) -> Spent:
    with clock(device) as spent:
        run()
    return spent


def weights(model: Any) -> tuple[int, int]:
    """Weights of the matrices of the blocks, and of the head."""
    parts = parts_of(model)
    head = getattr(parts.head, "weight", None)
    blocks = sum(p.numel() for p in parts.layers.parameters() if p.dim() == 2)
    return blocks, 0 if head is None else head.numel()


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    args = _parse(argv)
    load_before = os.getloadavg()[0]
    pair = find_pair(args.nla)
    loaded = load_pair(pair, device=args.device, dtype=args.dtype)
    tests = TestSet.load(pair_home(args.nla) / FOLDER)
    vectors, rows = tests.hidden[: args.vectors], tests.rows
    longest = rows.loc[rows.groupby("prompt_id", sort=False)["position"].idxmax()]
    contexts = [list(ids) for ids in longest["token_ids"].head(CONTEXTS)]
    parts = loaded.verbalizer.parts
    figures = av_figures(
        loaded.verbalizer,
        as_it_is(pair, loaded.verbalizer),
        vectors,
        tokens=args.explanation_tokens,
        n_alone=min(args.one_by_one, len(vectors)),
        rounds=args.rounds,
    )
    figures |= floor_figures(
        loaded, rows["label"].iloc[: args.vectors].tolist(), contexts, args.rounds
    )
    return harness.finish(
        args,
        NAME,
        harness.model_label(parts.device.type, parts.product_dtype),
        figures,
        load_before=load_before,
        settings={
            "pair": pair.pair_id,
            "vectors": len(vectors),
            "explanation_tokens": args.explanation_tokens,
            "one_by_one": args.one_by_one,
            "rounds": args.rounds,
            "dtype": str(parts.product_dtype).removeprefix("torch."),
        },
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.parser(NAME, __doc__)
    harness.add_model_arguments(parser)
    parser.add_argument("--vectors", type=int, default=64)
    parser.add_argument("--explanation-tokens", type=int, default=60)
    parser.add_argument("--one-by-one", type=int, default=8, help="vectors of the slowest way")
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
