"""``bench explain``: the batched AV path against one plain ``generate`` a vector, in one process.

Knows how the two are run on the same vectors and compared. Knows nothing of quality. The decision a
reader would question: processor time of the process is compared, not wall time, so that the ratio
means the same on a busy machine and does not reward the use of more cores.
"""

from __future__ import annotations

import argparse
import platform
import time
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from nla_core.errors import EXIT_OK
from nla_core.nla.injection import scale_for_injection
from nla_core.nla.pair import LoadedPair, find_pair, load_pair, pair_home
from nla_core.nla.verbalizer import LocalVerbalizer, strip_tags
from precompute.output import say, write_result
from precompute.testset import FOLDER, TestSet


def bench_explain(loaded: LoadedPair, vectors: Tensor, max_new_tokens: int) -> dict[str, Any]:
    """Explain ``[n, d_model]`` vectors both ways; counts, seconds, and the ratios plain / fast."""
    verbalizer = loaded.verbalizer
    warm = vectors[:2]
    list(verbalizer.verbalize(warm, seeds=[0, 0], max_new_tokens=4))
    plain_texts(verbalizer, warm[:1], 4)
    cpu, wall = time.process_time(), time.perf_counter()
    fast = {
        v.row: v.text
        for v in verbalizer.verbalize(
            vectors, seeds=[0] * len(vectors), max_new_tokens=max_new_tokens
        )
    }
    fast_cpu, fast_wall = time.process_time() - cpu, time.perf_counter() - wall
    say(f"batched: {fast_cpu:.1f} s of CPU, {fast_wall:.1f} s")
    cpu, wall = time.process_time(), time.perf_counter()
    plain = plain_texts(verbalizer, vectors, max_new_tokens)
    plain_cpu, plain_wall = time.process_time() - cpu, time.perf_counter() - wall
    same = sum(fast[row] == text for row, text in enumerate(plain))
    return {
        "vectors": len(vectors),
        "max_new_tokens": max_new_tokens,
        "dtype": str(verbalizer.parts.dtype).removeprefix("torch."),
        "device": str(verbalizer.parts.device),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "batched_cpu_s": fast_cpu,
        "batched_wall_s": fast_wall,
        "generate_cpu_s": plain_cpu,
        "generate_wall_s": plain_wall,
        "cpu_ratio": plain_cpu / fast_cpu,
        "wall_ratio": plain_wall / fast_wall,
        "cpu_share": fast_cpu / plain_cpu,
        "same_texts": same,
    }


@torch.inference_mode()
def plain_texts(verbalizer: LocalVerbalizer, vectors: Tensor, max_new_tokens: int) -> list[str]:
    """The reference: for each vector the whole prompt, through ``generate``, greedily."""
    slot, tokenizer, embed = verbalizer.slot, verbalizer.tokenizer, verbalizer.parts.embed
    ids = [*slot.prefix_ids, slot.marker_id, *slot.suffix_ids, *slot.prefill_ids]
    prompt = embed(torch.tensor([ids], device=verbalizer.parts.device))
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    texts = []
    for vector in scale_for_injection(vectors, verbalizer.sidecar.injection_scale):
        inputs = prompt.clone()
        inputs[0, len(slot.prefix_ids)] = vector.to(inputs)
        new = verbalizer.model.generate(inputs_embeds=inputs, generation_config=config)[0].tolist()
        text = tokenizer.decode([*slot.prefill_ids, *new], skip_special_tokens=True)
        texts.append(strip_tags(text)[0])
    return texts


def main(args: argparse.Namespace) -> int:
    """Print both times and the ratio; ``--json`` gets all of it."""
    loaded = load_pair(find_pair(args.nla), device=args.device, dtype=args.dtype)
    vectors = TestSet.load(pair_home(args.nla) / FOLDER).hidden[: args.vectors]
    result = bench_explain(loaded, vectors, args.explanation_tokens)
    print(
        f"{result['vectors']} vectors: batched {result['batched_cpu_s']:.1f} s of CPU "
        f"({result['batched_wall_s']:.1f} s), one generate a vector "
        f"{result['generate_cpu_s']:.1f} s ({result['generate_wall_s']:.1f} s)\n"
        f"CPU ratio {result['cpu_ratio']:.1f}, wall ratio {result['wall_ratio']:.1f}; "
        f"{result['same_texts']} of {result['vectors']} texts identical"
    )
    write_result(args, result)
    return EXIT_OK
