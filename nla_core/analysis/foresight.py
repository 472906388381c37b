"""How early the last word of an answer appears in the explanations before it is said.

Knows one transcript's visible text and readings at a time, and other transcripts as control. Does
not know what a rhyme is. The decision a reader would question: the control looks for the same word
in explanations of other transcripts. A frequent word turns up everywhere, and only what is above
that rate is foresight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nla_core.analysis.transcript import visible_of
from nla_core.analysis.visible import Visible, content_stems, words
from nla_core.data.dataset import Dataset
from nla_core.intervals import wilson
from nla_core.schema import Role


@dataclass(frozen=True, slots=True)
class Line:
    """A transcript made ready: ``word`` is the stem of the answer's last content word, which first
    stands at token ``at``; ``held`` are the stems of each explanation before it and after the
    answer began, ``distances`` how many tokens before ``at`` each of them stands."""

    transcript_id: str
    word: str
    at: int
    distances: tuple[int, ...]
    held: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Foresight:
    """``earliest`` is the largest number of tokens ahead at which the word was named, None where it
    never was; ``hits`` of ``n`` readings name it, ``control`` is the share of readings of other
    transcripts that do."""

    transcript_id: str
    word: str
    n: int
    hits: int
    earliest: int | None
    control: float


def line_of(
    transcript_id: str, visible: Visible, positions: Sequence[int], explanations: Sequence[str]
) -> Line | None:
    """None where the last turn is no answer or its last word was said before the answer began."""
    content = [word for word in visible.words if word.is_content]
    if not content or visible.roles[-1] != Role.ASSISTANT:
        return None
    last = content[-1]
    at = visible.span(last.start, last.end).first
    begin = at
    while begin > 0 and visible.roles[begin - 1] == Role.ASSISTANT:
        begin -= 1
    first = visible.words[visible.indices(last.stem)[0]]
    if first.start < visible.begins[begin]:
        return None
    at = visible.span(first.start, first.end).first
    early = [
        (at - position, content_stems(words(text)))
        for position, text in zip(positions, explanations, strict=True)
        if begin <= position < at
    ]
    return Line(
        transcript_id,
        last.stem,
        at,
        tuple(distance for distance, _ in early),
        tuple(held for _, held in early),
    )


def lines_of(dataset: Dataset, category: str) -> list[Line]:
    """The transcripts of a category that end in a word nobody had said before the answer."""
    lines = []
    for transcript_id in dataset.transcripts(category=category)["transcript_id"]:
        tokens = dataset.tokens(transcript_id)
        readings = dataset.readings(transcript_id)
        line = line_of(
            transcript_id,
            visible_of({name: tokens[name].tolist() for name in tokens.columns}),
            readings["position"].tolist(),
            readings["explanation"].tolist(),
        )
        if line is not None:
            lines.append(line)
    return lines


def foresight(lines: Sequence[Line]) -> list[Foresight]:
    """One entry a transcript with readings before its last word."""
    found = []
    for line in lines:
        if not line.held:
            continue
        hits = [d for d, held in zip(line.distances, line.held, strict=True) if line.word in held]
        others = [
            line.word in held
            for other in lines
            if other.transcript_id != line.transcript_id and other.word != line.word
            for held in other.held
        ]
        found.append(
            Foresight(
                line.transcript_id,
                line.word,
                len(line.held),
                len(hits),
                max(hits, default=None),
                sum(others) / len(others) if others else 0.0,
            )
        )
    return found


def foresight_summary(found: Sequence[Foresight]) -> dict[str, float | int | None]:
    """Shares over transcripts and readings, with the control beside them."""
    n = sum(item.n for item in found)
    hits = sum(item.hits for item in found)
    low, high = wilson(hits, n)
    foreseen = [item.earliest for item in found if item.earliest is not None]
    return {
        "n_transcripts": len(found),
        "transcripts_foreseen": len(foreseen),
        "n_readings": n,
        "readings_share": hits / n if n else None,
        "low": low,
        "high": high,
        "control_share": sum(i.control * i.n for i in found) / n if n else None,
        "mean_earliest": sum(foreseen) / len(foreseen) if foreseen else None,
    }
