"""``doctor``: does a pair fit its target? Each known trap is one check that says what is wrong.

Knows the ways in which a pair can be used wrongly and still write fluent text. Knows nothing of
datasets. The decision a reader would question: the last checks judge behaviour (do vectors change
the text, does a text lead back to its own vector better than to another's), because a wrong layer
or scale passes every check of form.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from nla_core import metrics
from nla_core.errors import EXIT_CHECK_FAILED, EXIT_OK, NLAError
from nla_core.explain import Explainer
from nla_core.models.injection import render_chat, scale_for_injection
from nla_core.models.pair import LoadedPair, find_pair, load_pair
from nla_core.models.reconstructor import encode_texts
from nla_core.readings import Reading, Transcript
from nla_core.schema import Finish
from precompute.output import write_result

HELP = (
    "Check a pair against its target: sidecars, tokenizer, marker, layer, BOS, scale, injection, "
    "and a round trip on one text."
)
EXAMPLE = "python -m precompute doctor --nla data/nla/smollm2-135m-L20"
TEXT = "The old stone bridge over the river was closed after the storm, so we walked through town."
READINGS = 12
SCALE_RANGE = (0.05, 20.0)
"""Accepted ratio of injection_scale to the median norm; outside it the AV sees noise or a wall."""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    found: str


def examine(folder: Path, *, device: str, dtype: str, target: str | None) -> Iterator[Check]:
    """Run the checks in order; a check that cannot be passed by ends the examination."""
    try:
        pair = find_pair(folder, target=target)
        yield Check("sidecars", True, f"{pair.pair_id}, layer {pair.layer}, d_model {pair.d_model}")
        loaded = load_pair(pair, device=device, dtype=dtype)
    except NLAError as error:
        yield Check("sidecars and models", False, str(error))
        return
    yield Check("target", True, pair.target)
    slot = loaded.verbalizer.slot
    yield Check(
        "marker",
        True,
        f"once, after {len(slot.prefix_ids)} prompt tokens, neighbours "
        f"{pair.av.left_neighbor_id} and {pair.av.right_neighbor_id}",
    )
    yield _bos(loaded)
    explainer = Explainer(loaded)
    transcript = explainer.transcribe(
        [[{"role": "user", "content": TEXT}]], seeds=[0], max_new_tokens=8, temperature=0.0
    )[0]
    if isinstance(transcript, NLAError):
        yield Check("one text", False, str(transcript))
        return
    positions = explainer.content_positions(transcript)[-READINGS:]
    yield _scale(loaded, transcript, positions)
    readings = [r for _, r in explainer.explain([transcript], [positions])]
    readings.sort(key=lambda r: r.position)
    yield from _behaviour(loaded, transcript, readings)


def _bos(loaded: LoadedPair) -> Check:
    tokenizer = loaded.tokenizer
    bos = tokenizer.bos_token_id
    expected = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    ar = encode_texts(tokenizer, loaded.reconstructor.template, ["a"])[0][0].tolist()
    av = render_chat(tokenizer, [{"role": "user", "content": "a"}])
    doubled = bos is not None and av[:2] == [bos, bos]
    missing = expected and ar[0] != bos
    ar_says = "lacks its BOS" if missing else f"{'with' if expected else 'without'} BOS"
    found = f"AR prompt {ar_says}, AV prompt {'doubles it' if doubled else 'does not double it'}"
    return Check("BOS", not doubled and not missing, found)


def _scale(loaded: LoadedPair, transcript: Transcript, positions: list[int]) -> Check:
    norms = transcript.hidden[positions].norm(dim=-1)
    median, scale = float(norms.median()), loaded.pair.av.injection_scale
    ratio = 1.0 if scale is None else scale / median
    ok = SCALE_RANGE[0] < ratio < SCALE_RANGE[1]
    return Check("injection scale", ok, f"{scale}, {ratio:.2f} times the median norm {median:.0f}")


def _behaviour(
    loaded: LoadedPair, transcript: Transcript, readings: list[Reading]
) -> Iterator[Check]:
    vectors = transcript.hidden[[r.position for r in readings]]
    scaled = scale_for_injection(vectors[:2], loaded.pair.av.injection_scale)
    logits = loaded.verbalizer._prefill([0, 1], scaled).logits
    moved = float((logits[0] - logits[1]).abs().max())
    yield Check("injection", moved > 1e-3, f"two vectors move the first logits by {moved:.2f}")
    texts = [r.explanation for r in readings]
    distinct = len(set(texts))
    yield Check("texts differ", distinct > len(texts) // 2, f"{distinct} of {len(texts)} distinct")
    cjk = sum(any("一" <= c <= "鿿" for c in text) for text in texts)
    yield Check("language", cjk <= len(texts) // 4, f"{cjk} of {len(texts)} texts in CJK")
    cut = sum(r.finish == Finish.CUT for r in readings)
    yield Check("closed", cut <= len(texts) // 2, f"{cut} of {len(texts)} texts cut")
    own = sum(r.fve for r in readings) / len(readings)
    rebuilt = loaded.reconstructor.reconstruct(texts)
    errors = metrics.mse_nrm(rebuilt.roll(len(texts) // 2, 0), vectors).mean()
    other = 1.0 - float(errors) / loaded.pair.rawvar
    yield Check(
        "round trip", own > other, f"FVE {own:.2f} with its own text, {other:.2f} with another's"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nla", type=Path, required=True, metavar="DIR", help="the pair's folder")
    parser.add_argument("--target", help="the target model, where the sidecar names none")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")


def main(args: argparse.Namespace) -> int:
    """Exit 0 if every check holds, 1 otherwise."""
    torch.manual_seed(0)
    checks: list[Check] = []
    for check in examine(args.nla, device=args.device, dtype=args.dtype, target=args.target):
        checks.append(check)
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<20} {check.found}")
    ok = all(check.ok for check in checks)
    write_result(
        args, {"ok": ok, "checks": [{"name": c.name, "ok": c.ok, "found": c.found} for c in checks]}
    )
    return EXIT_OK if ok else EXIT_CHECK_FAILED
