"""Standings against the labelled set: accuracy, precision and recall, baselines, fitted thresholds.

Knows the form of the labelled set and how the two halves are used: thresholds are chosen on the
readings marked ``fit`` and every figure is of the readings marked ``report``. Knows no rule; that
is `nla_core.analysis.standing`. The decision a reader would question: the halves are divided by
transcript, not by claim, since claims of one transcript repeat each other's words.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nla_core.analysis.claims import Claim, Kind
from nla_core.analysis.semantic import Embed
from nla_core.analysis.standing import Meaning, Standing, Thresholds, judge
from nla_core.analysis.visible import Visible
from nla_core.errors import NLAError

LABELS = Path("tests/data/standing.jsonl")
POSITION = 0  # a labelled reading is a transcript of one token before and one after

_GRID: dict[str, tuple[float, ...]] = {
    "word_said": (0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9),
    "word_foreseen": (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9),
    "word_unspoken": (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8),
    "sentence_mix": (0.4, 0.5, 0.6, 0.7),
    "sentence_said": (0.5, 0.55, 0.6, 0.65, 0.7),
    "sentence_foreseen": (0.4, 0.45, 0.5, 0.55, 0.6),
    "sentence_unspoken": (0.35, 0.4, 0.45, 0.5, 0.55),
}


@dataclass(frozen=True, slots=True)
class Labelled:
    """One labelled claim and what is needed to judge it. ``passes`` are the two labels given
    before they were settled into ``label``."""

    claim: Claim
    visible: Visible
    label: Standing
    passes: tuple[Standing, Standing]
    source: str  # "demo" or "written"
    half: str  # "fit" or "report"
    meaning: Meaning | None = None


def read_labelled(path: Path, embed: Embed | None = None) -> list[Labelled]:
    """All claims of the set; with ``embed``, ready to be judged by meaning as well.

    Raises NLAError naming the line that is no labelled reading.
    """
    found: list[Labelled] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise NLAError(
            f"The labelled claims {path} cannot be read",
            why=str(error),
            fix="Run from the folder of the project, or name the file with --labels",
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            found.extend(_of_reading(json.loads(line), embed))
        except (ValueError, KeyError, TypeError) as error:
            raise NLAError(
                f"Line {number} of {path} is no labelled reading",
                why=repr(error),
                fix="Restore the file (git checkout), or mend the line",
            ) from error
    return found


def _of_reading(row: Mapping[str, Any], embed: Embed | None) -> Iterator[Labelled]:
    visible = Visible.of_text(
        row["before"],
        row["after"],
        role=row["role"],
        roles_after=row["roles_after"],
        ends_turn=row["ends_turn"],
    )
    claims = [Claim(Kind(c["kind"]), c["text"], c["start"], c["end"]) for c in row["claims"]]
    meaning = Meaning(visible, embed, claims) if embed else None
    for claim, labels in zip(claims, row["claims"], strict=True):
        passes = Standing(labels["first"]), Standing(labels["second"])
        label = Standing(labels["label"])
        yield Labelled(claim, visible, label, passes, row["source"], row["half"], meaning)


def predict(items: Sequence[Labelled], thresholds: Thresholds) -> list[Standing]:
    return [
        judge(item.claim, item.visible, POSITION, item.meaning, thresholds).standing
        for item in items
    ]


def fit(items: Sequence[Labelled], start: Thresholds) -> Thresholds:
    """The thresholds with the most right standings among ``items``: words first, then sentences.

    Of several that are equally right, the middle one in the order of the grid: least at the edge.
    """
    # A word that stands in the text is judged by that alone, whatever the thresholds.
    words = [
        item
        for item in items
        if item.claim.kind in (Kind.TOPIC, Kind.PREDICTION)
        and item.meaning is not None
        and predict([replace(item, meaning=None)], start)[0] is Standing.UNSPOKEN
    ]
    sentences = [i for i in items if i.claim.kind is Kind.SENTENCE]
    best = start
    for prefix, part in (("word_", words), ("sentence_", sentences)):
        names = [name for name in _GRID if name.startswith(prefix)]
        scored: dict[int, list[Thresholds]] = {}
        for values in itertools.product(*(_GRID[name] for name in names)):
            tried = replace(best, **dict(zip(names, values, strict=True)))
            if _is_ordered(tried):
                right = sum(p is i.label for p, i in zip(predict(part, tried), part, strict=True))
                scored.setdefault(right, []).append(tried)
        equals = scored[max(scored)]
        best = equals[len(equals) // 2]
    return best


def _is_ordered(limits: Thresholds) -> bool:
    """What is far from everything cannot also be near enough."""
    return limits.word_unspoken <= min(limits.word_said, limits.word_foreseen) and (
        limits.sentence_unspoken <= min(limits.sentence_said, limits.sentence_foreseen)
    )


def figures(items: Sequence[Labelled], thresholds: Thresholds) -> dict[str, Any]:
    """Figures of the ``report`` half, of each source and kind alone, with baselines beside them.

    The lexical baseline judges by words alone, with its own thresholds fitted on the other half.
    """
    fitted = [item for item in items if item.half == "fit"]
    held = [item for item in items if item.half == "report"]
    common = Counter(item.label for item in fitted).most_common(1)[0][0]
    words_only = fit([replace(item, meaning=None) for item in fitted], thresholds)
    judged = [
        Row(item, standing, lexical, common)
        for item, standing, lexical in zip(
            held,
            predict(held, thresholds),
            predict([replace(item, meaning=None) for item in held], words_only),
            strict=True,
        )
    ]
    result = _scores(judged) | {"majority_class": str(common)}
    result["by_source"] = {
        source: _scores([row for row in judged if row.item.source == source])
        for source in sorted({item.source for item in held})
    }
    result["by_kind"] = {
        str(kind): _scores([row for row in judged if row.item.claim.kind is kind])
        for kind in Kind
        if any(row.item.claim.kind is kind for row in judged)
    }
    result["fit_half_accuracy"] = _share(
        p is i.label for p, i in zip(predict(fitted, thresholds), fitted, strict=True)
    )
    result["n_fit"] = len(fitted)
    result["n_readings"] = len({id(item.visible) for item in items})
    result["two_passes"] = agreement([item.passes for item in items])
    return result


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled claim and what three ways of judging say of it."""

    item: Labelled
    standing: Standing
    lexical: Standing
    majority: Standing


def _scores(rows: Sequence[Row]) -> dict[str, Any]:
    per = {}
    for standing in Standing:
        labelled = sum(row.item.label is standing for row in rows)
        named = sum(row.standing is standing for row in rows)
        both = sum(row.standing is row.item.label is standing for row in rows)
        per[str(standing)] = {
            "n": labelled,
            "precision": both / named if named else None,
            "recall": both / labelled if labelled else None,
        }
    return {
        "n": len(rows),
        "standing_accuracy": _share(row.standing is row.item.label for row in rows),
        "baseline_lexical": _share(row.lexical is row.item.label for row in rows),
        "baseline_majority": _share(row.majority is row.item.label for row in rows),
        "standings": per,
    }


def _share(hits: Iterable[bool]) -> float:
    found = list(hits)
    return sum(found) / max(1, len(found))


def agreement(pairs: Sequence[tuple[Standing, Standing]]) -> dict[str, float]:
    """Share of equal labels of two passes, and Cohen's kappa: the share beyond chance."""
    n = len(pairs)
    same = sum(a is b for a, b in pairs) / n
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    chance = sum(first[s] * second[s] for s in Standing) / n**2
    kappa = 1.0 if chance == 1.0 else (same - chance) / (1.0 - chance)
    return {"n": n, "agreement": same, "kappa": kappa}
