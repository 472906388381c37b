"""The texts of the About page, and the facts of the dataset laid out.

Knows what a reader should know before believing an explanation. Does not know any number: they
come from the manifest and from the report that was measured for the pair. The decision a reader
would question: the warnings stand above the definitions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from nla_core.data.dataset import Dataset
from nla_core.paths import PROJECT
from nla_core.schema import Flag
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
"""

HOW_IT_WORKS: Final = """
1. The conversation is put into the model as it is, and the vector after block K (here {layer}) is
   taken at every token. Nothing in the model is changed.
2. The verbalizer is a copy of the model that was trained for one thing. In a fixed prompt, the
   embedding of one marker token is replaced by the vector, scaled to one length, and it writes on.
3. The reconstructor, a copy of the model cut after block K, reads the text and nothing else. A
   linear map of its last state is the rebuilt vector.
4. Both were trained to bring the vector back: first on texts made to a plan, then on their own
   texts, of which the ones that came back best were kept.

So the text is not what somebody thought the vector means. It is the text from which the vector
could be rebuilt best, in the language that the verbalizer had to begin with.
"""

STEERING: Final = """
“Golden Gate Claude” was a model in which one direction, found by a sparse autoencoder, was turned
up: it spoke of the bridge whatever it was asked. That **changes** what the model computes, and
shows that a direction matters. An NLA **reads** what is there and changes nothing: a reading may
be right about a vector that the model never makes use of. The two answer different questions, and
a claim is strongest where both agree: the reading says it, and adding the direction of the edited
reading makes the model act on it.
"""

KNOWLEDGE: Final = """
- It can show that a fact, or something near it, is **represented** at a token before it is said:
  the second half of a name, the word a line is going to rhyme with.
- It cannot show that the model **knows** the fact. The verbalizer is a language model itself and
  fills gaps with what is likely; that Saturn brings an astronomer to its mind may be its own idea.
- It cannot show that a fact is **absent**. What is not said may be in the part of the vector that
  did not fit into the text.
- The test is a control: ask whether readings of other texts, shuffled ones among them, name the
  fact as often. The figures below do so for the pair as a whole.
"""

STEGANOGRAPHY: Final = """
Verbalizer and reconstructor are trained together. They could agree on a language of their own, in
which the order of words or an odd spelling carries the vector while the English says something
else. The score would be high and the text worthless. These measurements look for that, on texts
the pair has not been trained on:
"""

GOODHART: Final = """
A score is worth something as long as nobody is paid for it. The verbalizer here *was* paid for
FVE, so FVE says that the vector comes back, not that the text is true; what was not paid for
(quotations that stand in the text, a second reconstructor, the next token it expects) is the
better witness. And if readings like these were used to train the *model that is read*, to look
harmless say, it would learn to have vectors that read well. Then every figure on this page would
look better than before and mean nothing.
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

_TRUST: Final = (
    ("fve", "text and its own reconstructor", "How much of the vector comes back."),
    (
        "second_ar_fve",
        "the same texts, another reconstructor",
        "Not trained with this verbalizer. A large drop would mean a private language.",
    ),
    (
        "shuffled",
        "texts handed to other vectors",
        "Far below zero: the text is about its own vector and not about vectors in general.",
    ),
    (
        "quote_precision",
        "quotations of two words or more that stand in the text",
        "Nobody paid for this. The rest is invented: look quotations up.",
    ),
    (
        "next_hit_top1",
        "names the token that the model itself finds most likely next",
        "Read off the text alone.",
    ),
    (
        "next_hit_top1_another",
        "the same, for the text of another token",
        "What naming common words would score.",
    ),
    ("last_token", "looking up the last token in a bank", "A floor without any verbalizer."),
    (
        "nearest_1",
        "the nearest of many stored vectors",
        "Another floor: the best single vector of other texts.",
    ),
    (
        "fve_gold",
        "the texts of the plan instead",
        "What the reconstructor gets from texts that were made knowing the context.",
    ),
)

FLAG_LIMITS: Final = (
    "*Early* covers the first {early} positions. A token counts as an *attention sink* where its "
    "vector is more than {factor} times as long as the median."
)


def numbers(pair: Mapping[str, Any]) -> str:
    rawvar = pair.get("rawvar")
    said = "" if rawvar is None else f"For the pair shown here it is {float(rawvar):.3f}."
    return _NUMBERS.format(rawvar=said)


def trust(pair: Mapping[str, Any]) -> None:
    """What was measured of this pair, from its report; a sentence where there is none."""
    found = report_of(str(pair.get("pair_id", "")))
    if found is None:
        draw(
            '<p class="nla-empty">No report was found for this pair; '
            "<code>python -m precompute eval --nla DIR</code> measures one.</p>"
        )
        return
    rows = [(name, _figure(found, key), meaning) for key, name, meaning in _TRUST if key in found]
    draw(
        '<table class="nla-trust"><thead><tr><th>measured</th><th>FVE or share</th>'
        "<th>what it says</th></tr></thead><tbody>{rows}</tbody></table>"
        '<p class="nla-empty">{n} held-out vectors of {documents} documents, pair {pair} '
        "({revision}).</p>",
        rows=join(
            [
                fill("<tr><td>{a}</td><td>{b}</td><td>{c}</td></tr>", a=a, b=b, c=c)
                for a, b, c in rows
            ]
        ),
        n=found["n"],
        documents=found["documents"],
        pair=found["pair_id"],
        revision=found["revision"],
    )


def report_of(pair_id: str) -> Mapping[str, Any] | None:
    """``eval.json`` of the pair of that name in data/nla, where it lies there."""
    for path in sorted((PROJECT / "data/nla").glob("*/eval.json")):
        if path.parent.name == pair_id:
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def _figure(found: Mapping[str, Any], key: str) -> str:
    return f"{found[key]:.3f}".replace("-", "−")


def flags() -> None:
    items = [flag_item(flag) for flag in Flag]
    draw('<ul class="nla-flags">{items}</ul>', items=join(items))


def facts(dataset: Dataset) -> None:
    """Everything the manifest says about the dataset, the pair, the prompts and the run."""
    manifest = dataset.manifest
    own = {"name": dataset.root.name, "version": dataset.version, **manifest.counts}
    for heading, part in (
        ("Dataset", own),
        ("Pair", manifest.pair),
        ("How it was run", manifest.settings),
        ("Prompts", manifest.corpus),
    ):
        items = [
            fill("<dt>{name}</dt><dd>{value}</dd>", name=_NAMES.get(name, name), value=value)
            for name, value in _flat(part)
        ]
        draw(
            '<h3 class="nla-h3">{heading}</h3><dl class="nla-facts">{items}</dl>',
            heading=heading,
            items=join(items),
        )


_NAMES: Final = {
    "d_model": "width of a vector (d_model)",
    "layer": "layer (block K, from 0)",
    "median_norm": "median ‖h‖",
    "reference_n": "vectors behind rawvar",
    "pair_id": "pair",
    "explanation_temperature": "temperature of explanations",
    "explanation_tokens": "tokens of an explanation, at most",
    "max_new_tokens": "tokens of an answer, at most",
    "temperature": "temperature of answers",
    "samples": "explanations of a token",
    "dtype": "number format",
    "n_prompts": "prompts",
}
"""What a reader is told instead of the manifest's keys; any other key has its underscores taken."""


def _flat(part: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        else:
            yield prefix + (name if name in _NAMES else name.replace("_", " ")), _value(value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, Mapping):  # a file of the corpus: its name, and enough to tell it by
        words = [f"{v[:12]}…" if k == "sha256" else str(v) for k, v in value.items()]
        return f"{words[0]} ({', '.join(words[1:])})" if len(words) > 1 else "".join(words)
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return str(value)
