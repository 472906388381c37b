"""The texts of the About page, and the facts of the dataset laid out.

Knows what a reader should know before believing an explanation. Does not know any number: they come
from the manifest. The decision a reader would question: the warnings stand above the definitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from nla_core.schema import Flag
from nla_core.store.dataset import Dataset
from nla_core.ui.html import draw, fill, join
from nla_core.ui.token_panel import flag_item

WHAT_IT_IS: Final = """
At every token a language model holds a vector: all that it carries forward from what it has read.
A **natural language autoencoder** (NLA) is a pair of models around that one, which stays as it is:

- the **verbalizer** reads one vector and writes what it says, in English;
- the **reconstructor** reads only that English and rebuilds the vector.

If the rebuilt vector is close to the real one, the text carried what the vector held. If it is not,
the text may be as fluent as ever and still say nothing. That is why no explanation here is shown
without its score. The method is described in
[Natural Language Autoencoders](https://transformer-circuits.pub/2026/nla).
"""

HOW_TO_READ: Final = """
- **Themes are truer than names, names truer than details.** That a passage is about geography is a
  safer claim than that it is about Paris, and that safer than any number in it.
- **What recurs is truer.** Step through the neighbouring tokens: a claim that stays is better than
  one that appears once.
- **Quotes are often invented,** even where the score is high. Look them up in the transcript.
- **The score ranks, it does not calibrate.** A higher score is a better text of the same pair. It
  is not a probability of being right, and not comparable with another pair.
- **A small model’s vector is mostly its recent text.** Repeating the last words is an easy way to a
  fair score; ask what the reading says beyond them.
- **One text is one sample.** Another sample of the same vector may say something else.
- **It is a hypothesis about what is represented,** to be tested, and not a transcript of thought. A
  model may represent what it never uses.
- If the score is ever used to train the model that is read, it stops meaning anything.
"""

_NUMBERS: Final = """
| number | what it says |
|---|---|
| **FVE** | Fraction of variance explained, 1 − mse_nrm ÷ rawvar. 1 is a perfect copy of the \
vector, 0 is no better than always answering with the average vector, below 0 is worse than that. |
| **rawvar** | The denominator of FVE: how far vectors of ordinary text lie from their average, \
after scaling. {rawvar} |
| **mse_nrm** | Mean squared difference of the rebuilt and the real vector, both scaled to one \
length. It equals 2 × (1 − cosine): 0 is the same direction, 2 unrelated, 4 opposite. |
| **cosine** | How alike the two directions are. High for any two vectors of some models, so never \
compare it between models. |
| **centred cosine** | The same after the average vector is taken out of both. This one compares. |
| **‖h‖** | The length of the real vector, with its percentile among ordinary vectors. |
| **surprisal** | How unexpected the token was to the model, in nats: 0 is certain, 2.3 is one in \
ten, 6.9 is one in a thousand. |
"""

FLAG_LIMITS: Final = (
    "*Early* covers the first {early} positions. A token counts as an *attention sink* where its "
    "vector is more than {factor} times as long as the median."
)


def numbers(pair: Mapping[str, Any]) -> str:
    rawvar = pair.get("rawvar")
    said = "" if rawvar is None else f"For the pair shown here it is {float(rawvar):.3f}."
    return _NUMBERS.format(rawvar=said)


def flags() -> None:
    items = [flag_item(flag) for flag in Flag]
    draw('<ul class="nla-flags">{items}</ul>', items=join(items))


def facts(dataset: Dataset) -> None:
    """Everything the manifest says about the pair, the prompts and the run."""
    manifest = dataset.manifest
    rows = [("dataset", f"{dataset.root.name}, {dataset.version}")]
    rows += [(name, f"{count:,}") for name, count in manifest.counts.items()]
    for part in (manifest.pair, manifest.settings, manifest.corpus):
        rows += list(_flat(part))
    items = [
        fill("<dt>{name}</dt><dd>{value}</dd>", name=name.replace("_", " "), value=value)
        for name, value in rows
    ]
    draw('<dl class="nla-facts">{items}</dl>', items=join(items))


def _flat(part: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        elif isinstance(value, float):
            yield prefix + name, f"{value:.6g}"
        elif isinstance(value, list | tuple):
            yield prefix + name, ", ".join(map(str, value))
        else:
            yield prefix + name, str(value)
