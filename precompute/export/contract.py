"""The published contract of a pair, made from ours and held against the files that were written.

Knows what other people's readers ask of a sidecar and a tokenizer: templates for ``str.format``, a
numeric scale, one marker in a chat-rendered prompt, and a BOS that is either added or not declared.
Knows nothing of weights. The decision a reader would question: the check asks the written tokenizer
in the readers' way and compares token ids with our own prompts, because a prompt that differs by
one token still gives fluent text.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nla_core.errors import NLAError
from nla_core.models.injection import build_slot
from nla_core.models.pair import Pair
from nla_core.models.reconstructor import encode_texts
from nla_core.models.sidecar import VECTOR_FIELDS, Sidecar, portable

PROBES = ("x", 'At "bridge": {over} the {{old}} bridge.\nNext: . / and', "東京 🌉 ", "")
"""Explanations whose AR prompts are compared: braces, quotes, line ends, wide characters, none."""

PLAIN_CHAT = "{% for message in messages %}{{ message['content'] + '\n\n' }}{% endfor %}"
"""How a model without a chat template is prompted here, as the template that readers need."""


def published_sidecars(pair: Pair, tokenizer: Any) -> tuple[Sidecar, Sidecar]:
    """Both sidecars as they are written: each with all token ids and both templates.

    Raises NLAError where the contract has no way to say what the pair needs.
    """
    av = pair.av
    if av.injection_scale is None:
        raise NLAError(
            f"{av.path} asks for raw vectors, which the published form cannot say",
            why="Its readers rescale every vector to extraction.injection_scale, a number",
            fix="Train the AV with a scale, for example the 75th percentile of the vectors' norms",
        )
    both = replace(
        av,
        injection_char=_marker(av, tokenizer),
        av_template=portable(av.av_template or "", VECTOR_FIELDS[0], VECTOR_FIELDS[1:]),
        ar_template=portable(pair.ar.ar_template or "", "explanation"),
    )
    ar = replace(
        pair.ar,
        injection_char=both.injection_char,
        injection_token_id=av.injection_token_id,
        left_neighbor_id=av.left_neighbor_id,
        right_neighbor_id=av.right_neighbor_id,
        av_template=both.av_template,
        ar_template=both.ar_template,
        base_model=av.base_model,
        base_sha256=av.base_sha256,
    )
    return both, ar


def published_tokenizers(sidecar: Sidecar, load: Any) -> tuple[Any, Any]:
    """``(av, ar)`` tokenizers to write; ``load()`` gives a fresh one of the target each time."""
    av, ar = load(), load()
    if not getattr(av, "chat_template", None):
        starts = av.bos_token_id is not None and av("a")["input_ids"][:1] == [av.bos_token_id]
        av.chat_template = ("{{ bos_token }}" if starts else "") + PLAIN_CHAT
    if ar.bos_token_id is not None and ar("a")["input_ids"][:1] != [ar.bos_token_id]:
        ar.bos_token = None  # readers refuse a BOS that is declared and never put in front
    return av, ar


def check_av(folder: Path, sidecar: Sidecar, original: Sidecar, tokenizer: Any) -> None:
    """The written AV tokenizer, asked as readers do, gives the prompt the AV was trained with."""
    slot = build_slot(original, tokenizer)
    live = _reload(folder)
    marker = sidecar.injection_char or ""
    ids = live.apply_chat_template(
        [{"role": "user", "content": (sidecar.av_template or "").format(injection_char=marker)}],
        add_generation_prompt=True,
        return_dict=False,
    )
    wanted = [*slot.prefix_ids, slot.marker_id, *slot.suffix_ids]
    if list(ids) != wanted or live.encode(marker, add_special_tokens=False) != [slot.marker_id]:
        raise _differs("AV", folder)
    if wanted.count(slot.marker_id) != 1:
        raise NLAError(
            f"The marker {marker!r} stands {wanted.count(slot.marker_id)} times in the AV prompt",
            why="Readers of the published form accept it exactly once, whatever its neighbours",
            fix="Train the AV with a marker that its prompt does not hold otherwise",
        )


def check_ar(folder: Path, sidecar: Sidecar, original: Sidecar, tokenizer: Any) -> None:
    """The same for the AR: its prompts end on the same last token."""
    live = _reload(folder)
    for probe in PROBES:
        ids, last = encode_texts(tokenizer, original.ar_template or "", [probe])
        wanted = ids[0, : int(last[0]) + 1].tolist()
        prompt = (sidecar.ar_template or "").format(explanation=probe)
        if list(live(prompt, add_special_tokens=True)["input_ids"]) != wanted:
            raise _differs("AR", folder)


def _reload(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _marker(av: Sidecar, tokenizer: Any) -> str:
    """The marker's text; from its id where the sidecar gives only that."""
    text = av.injection_char or str(tokenizer.decode([av.injection_token_id]))
    found = tokenizer.encode(text, add_special_tokens=False)
    if found != [av.injection_token_id] or found[0] == tokenizer.unk_token_id:
        raise av.refuse(
            "tokens.injection_char",
            text,
            f"a text that this tokenizer turns into {av.injection_token_id} alone, not {found}",
            "Use the tokenizer that the checkpoint was trained with",
        )
    return text


def _differs(role: str, folder: Path) -> NLAError:
    return NLAError(
        f"The written tokenizer of the {role} does not give the prompt that the {role} was "
        "trained with",
        why=f"Asked as readers of the published form do, {folder.name} gives other token ids",
        fix="Save the target's tokenizer with save_pretrained of the pinned transformers and name "
        "that folder as the target",
    )
