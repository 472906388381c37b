"""Model cards of an exported pair, made from what the pair says of itself.

Knows the pair's sidecars, its own card and its ``eval.json``. Knows no number that does not stand
there. The decision a reader would question: the pair's own card follows word for word, paths and
all, under a heading that says where it comes from; rewriting it could only make it less true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nla_core.errors import NLAError
from nla_core.models.pair import Pair
from nla_core.models.sidecar import Role

CARD_FILE, EVAL_FILE = "README.md", "eval.json"
OWN_CARD = "<!-- the card of the pair this was exported from -->"

FIGURES = {
    "n": "vectors it was measured on",
    "fve": "FVE of the whole loop (AV text, AR vector)",
    "fve_gold": "FVE of the AR on the labels it was trained towards",
    "rawvar": "rawvar, the denominator of every FVE here",
    "centred_cosine": "centred cosine",
    "rank_at_1": "its own vector is the nearest of all (rank at 1)",
    "shuffled": "FVE with another vector's text",
    "empty": "FVE of an empty text",
    "mean": "FVE of the mean direction",
    "last_token": "FVE of a look-up by last token",
    "nearest_1": "FVE of the nearest training vector",
    "cut_rate": "share of cut texts",
    "distinct_3": "different word triples among all (distinct-3)",
    "quote_precision": "quotes of two or more words that stand in the context",
    "mean_tokens": "mean length in tokens",
}

HALVES: dict[Role, str] = {
    "av": "**verbalizer (AV)**: the output of one block of the target at one token goes in, in "
    "place of one marker token's embedding; an English text about it comes out",
    "ar": "**reconstructor (AR)**: such a text goes in; the vector, up to its length, comes out",
}

USE: dict[Role, str] = {
    "av": """Fill `prompt_templates.av` with `tokens.injection_char`, render it as one user message
with the tokenizer's chat template, embed the token ids with the model's own embedding layer,
replace the row of the marker (`tokens.injection_token_id`, between its two neighbour ids) by the
vector rescaled to the L2 norm `extraction.injection_scale`, and generate. The text between
`<explanation>` and `</explanation>` is the answer. The vector is the output of block
`extraction_layer_index` of the target: `hidden_states[extraction_layer_index + 1]`.""",
    "ar": """Load it as a causal LM, replace its final norm and head by identities, fill
`prompt_templates.ar` with the text, tokenise with special tokens, take the last token's state and
multiply it by `weight` of `value_head.safetensors`. Only the direction of the result means
something. The last kept block is the target's block `extraction_layer_index`.""",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the pair's folder knows about itself beyond its sidecars."""

    figures: Mapping[str, Any]
    own_card: str

    @classmethod
    def of(cls, home: Path) -> Facts:
        """From ``eval.json`` and ``README.md``, where they are; NLAError for a broken report."""
        figures: Any = {}
        if (home / EVAL_FILE).is_file():
            try:
                figures = json.loads((home / EVAL_FILE).read_text(encoding="utf-8"))
            except ValueError as error:
                raise NLAError(
                    f"{home / EVAL_FILE} is not JSON",
                    why=str(error),
                    fix="Measure again: python -m precompute eval --nla DIR --json DIR/eval.json",
                ) from None
        card = home / CARD_FILE
        own = card.read_text(encoding="utf-8") if card.is_file() else ""
        if "<!-- exported by NLA Explorer -->" in own:  # an export of an export: keep the first
            own = own.partition(OWN_CARD)[2]
        return cls(figures if isinstance(figures, dict) else {}, own.strip())


def write_card(
    pair: Pair, role: Role, name: str, facts: Facts, *, dtype: str, prefill: float | None
) -> str:
    """The Markdown of one half. ``prefill``: share of vectors after which the AV itself begins
    with ``av_prefill``; None where the sidecar has none."""
    other: Role = "ar" if role == "av" else "av"
    sections = [
        _front_matter(pair),
        "<!-- exported by NLA Explorer -->",
        f"# {name}-{role}",
        f"One half of a natural language autoencoder, the {HALVES[role]}. Its twin is "
        f"`{name}-{other}`; keep the two folders beside each other.",
        _table(pair, role, dtype),
        f"## Use\n\n{USE[role]}",
    ]
    if role == "av" and prefill is not None:
        sections.append(_prefill_note(pair, prefill))
    sections += [
        "How this text is to be read: it is a hypothesis about what the vector holds, as good as "
        "the vector that comes back from it. Themes are truer than names and quotes; a high score "
        "does not make a detail true.",
        _measured(pair, facts.figures),
    ]
    if facts.own_card:
        sections.append(
            "## The pair this was exported from\n\nIts own card, word for word; files and paths in "
            f"it are those of that folder.\n\n{OWN_CARD}\n\n{_demoted(facts.own_card)}"
        )
    return "\n\n".join(sections) + "\n"


def _demoted(card: str) -> str:
    """Its headings one level lower; what stands in code fences is no heading."""
    lines, fenced = [], False
    for line in card.splitlines():
        fenced ^= line.startswith("```")
        lines.append("#" + line if re.match("#+ ", line) and not fenced else line)
    return "\n".join(lines)


def _front_matter(pair: Pair) -> str:
    lines = ["library_name: transformers", "tags: [natural-language-autoencoder, interpretability]"]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", pair.target) and not Path(pair.target).exists():
        lines.append(f"base_model: {pair.target}")
    return "\n".join(["---", *lines, "---"])


def _table(pair: Pair, role: Role, dtype: str) -> str:
    target = pair.target
    if Path(target).exists():
        target = f"{Path(target).name} (a local folder; name yours with `--target`)"
    rows = {
        "target": target,
        "layer K": f"{pair.layer}: the output of block {pair.layer}, counted from 0",
        "d_model": str(pair.d_model),
        "weights": f"merged, {dtype}",
        "exported from": f"{pair.pair_id}, revision {pair.revision}",
    }
    if role == "av":
        rows["injection scale"] = f"{pair.av.injection_scale:g} (L2 norm of the injected vector)"
    else:
        rows["blocks"] = f"{pair.layer + 1} (0 to {pair.layer})"
    return "| | |\n|---|---|\n" + "\n".join(f"| {k} | {v} |" for k, v in rows.items())


def _prefill_note(pair: Pair, share: float) -> str:
    said = repr(pair.av.av_prefill)
    if share == 1.0:
        return (
            f"NLA Explorer begins the answer with {said} for it; by itself it began so for every "
            "vector tried at export, so readers that do not begin the answer get the same text."
        )
    return (
        f"**Begin its answer with {said}.** This AV was trained to go on from there; by itself it "
        f"began so for {share:.0%} of the vectors tried at export. Readers that do not begin the "
        "answer get other texts from it."
    )


def _measured(pair: Pair, figures: Mapping[str, Any]) -> str:
    rows = [(label, figures[key]) for key, label in FIGURES.items() if key in figures]
    title = "## How good the pair is\n\n"
    if not rows:
        return title + "No measurement was found beside the pair. Measure it before you trust it."
    source = figures.get("revision")
    note = f"Measured before the export, on revision {source or 'unknown'} of the pair"
    if source != pair.revision:
        note += f", which is not the one exported here ({pair.revision})"
    lines = [
        f"| {label} | {value:.3f} |" if isinstance(value, float) else f"| {label} | {value} |"
        for label, value in rows
    ]
    return title + note + ".\n\n| | |\n|---|---:|\n" + "\n".join(lines)
