"""One reading in the words of others: Markdown for a note, JSON for a program, BibTeX for a paper.

Knows what has to be said beside an explanation for it to be checked. Does not know under which
address the explorer runs. The decision a reader would question: the address is the placeholder
``LINK``, which the browser replaces, because only the browser knows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from nla_core.exports import Provenance

LINK: Final = "{{link}}"

_TEX: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_"},
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What is cited. ``fve`` is that of this sample; ``flags`` in plain words."""

    reading_id: str
    transcript_id: str
    title: str
    position: int
    token: str
    sample: int
    explanation: str
    fve: float
    flags: Sequence[str]


def markdown(reading: Reading, source: Provenance) -> str:
    """A quotation with where it comes from; safe to paste where Markdown is read."""
    quoted = "\n".join(f"> {_plain(line)}" for line in reading.explanation.splitlines() or [""])
    flags = f", flagged: {', '.join(reading.flags)}" if reading.flags else ""
    return (
        f"{quoted}\n\n"
        f"Reading of token {reading.position} {_code(reading.token)} in “{_plain(reading.title)}”, "
        f"FVE {reading.fve:.2f}{flags}. Pair {source.pair} ({source.revision}), layer "
        f"{source.layer}, dataset {source.dataset} {source.version}. [Open]({LINK})\n"
    )


def as_json(reading: Reading, source: Provenance) -> str:
    content = {**asdict(reading), "source": asdict(source), "link": LINK}
    return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def bibtex(reading: Reading, source: Provenance, year: int) -> str:
    title = _tex(f"NLA reading of token {reading.position} in “{reading.title}”")
    note = _tex(
        f"Pair {source.pair} ({source.revision}), layer {source.layer}, dataset {source.dataset} "
        f"{source.version}, FVE {reading.fve:.2f}"
    )
    return (
        f"@misc{{nla-{reading.reading_id},\n"
        f"  title = {{{{{title}}}}},\n"
        "  author = {{NLA Explorer}},\n"
        f"  year = {{{year}}},\n"
        f"  howpublished = {{\\url{{{LINK}}}}},\n"
        f"  note = {{{note}}},\n"
        "}\n"
    )


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in " ".join(text.split()))


def _plain(text: str) -> str:
    """Signs that Markdown or HTML would act on are escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$!])", r"\\\1", text)


def _code(text: str) -> str:
    """A token as code: the fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    shown = text.replace("\n", "↵").replace("\t", "⇥")
    pad = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{pad}{shown}{pad}{fence}"
