"""The report of an evaluation: one Markdown file and its pictures, from the figures alone.

Knows how figures are named, ordered and explained to a reader. Measures nothing. The decision a
reader would question: the report is a pure function of eval.json, so a test can hold the files in
the repository to the figures, and no number in them can be older than the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nla_core.data.files import explained, write_atomic
from precompute.evaluation import plots
from precompute.evaluation.markdown import table
from precompute.evaluation.plots import Bar
from precompute.evaluation.targets import Verdict, verdicts

REPORT = "report.md"
Figures = Mapping[str, Any]

CONTROLS = {
    "empty": "an empty text",
    "random_words": "random words of the explanations",
    "shuffled_words": "its own words, shuffled",
    "another_explanation": "another item's explanation",
    "without_quotes": "the prose without its quotations",
    "only_quotes": "the quotations without the prose",
}
PARTS = {"note_alone": "the note alone", "text_alone": "the running text alone"}
NOTE_LANES = {
    "note": "the explanation's note",
    "text_field": "its running text",
    "another_pair": "another pair's explanation",
    "context_tail": "the last 60 characters before the token",
    "nearest_vector": "the note of the nearest training vector",
    "best_written": "the training note that agrees best with the linear map",
    "linear": "the linear map itself",
}
FLOORS = {
    "mean": "nothing: the direction of the average vector",
    "last_token": "a look-up by last token",
    "nearest_1": "the nearest training vector",
    "nearest_8": "the mean of the eight nearest training vectors",
}
DEFINITIONS = """\
- **mse_nrm**: mean squared difference of two vectors after both are scaled to length √d; 0 to 4.
- **FVE**, fraction of variance explained: 1 − mean mse_nrm / rawvar. **rawvar** is the variance of
  the scaled vectors of the pair's reference set about their mean. Every FVE here, that of a group
  too, is divided by this same rawvar. 1 is a perfect copy.
- **Interval**: 95 %, bootstrap over whole documents, 2,000 draws; rawvar is held fixed.
- **Rank**: the rebuilt vector's own original is the nearest, by centred cosine, among the vectors
  named: all of the set, a fixed 500 of it, or those of the same document.
- **Worth k tokens**: how many last tokens the target itself must re-read, with nothing before them,
  for its vector to score what the explanation scores. Straight lines between the k measured, no
  token counting as the average vector; k cannot exceed the largest one measured.
- **Quotations**: spans in double quotes, outside of the field of next words. They count as found if
  the context up to the position holds them, forgetting case and spaces. Only spans of two or more
  words count, unless said otherwise; the share is of spans, not of texts.
- **Next words**: those of the field `next`. Top-1: the share of texts that name the target's
  likeliest token, of the texts that name any. Top-5: the share of named words that are among its
  five likeliest. Real: the share of texts that name the token that really came, of those where one
  did.
- **Another's**: the same figure with another document's explanation: what common words alone give.
- **distinct-3**: different word triples among all of them. **Duplicates**: texts that repeat an
  earlier one word for word. **Cut**: texts that reached the length limit before they closed.
- **Random words** are drawn from all explanations as often as they occur. A text without quotations
  is unchanged without them, and empty with them only.
"""


def render(figures: Figures) -> dict[str, str]:
    """File name -> content of the whole report; the same however the figures' keys are ordered."""
    figures = {key: _ordered(value) for key, value in figures.items()}
    pictures = _pictures(figures)
    sections = [
        _head(figures),
        _goals(verdicts(figures)),
        _fidelity(figures),
        _controls(figures, pictures),
        _notes(figures),
        _tail(figures, pictures),
        _groups(figures, pictures),
        _texts(figures),
        _second(figures),
        _best_of(figures),
        _left_out(figures),
        f"## Definitions\n\n{DEFINITIONS}",
    ]
    text = "\n".join(section.rstrip() + "\n" for section in sections if section)
    return {REPORT: text, **pictures}


def _ordered(value: Any) -> Any:
    """Mappings by the number their keys begin with (``64-127``), then by name."""
    if not isinstance(value, Mapping):
        return value

    def place(key: str) -> tuple[int, str]:
        number = re.match(r"\d+", key)
        return (int(number[0]) if number else -1, key)

    return {key: _ordered(value[key]) for key in sorted(value, key=place)}


def write_report(figures: Figures, folder: Path) -> None:
    """Write the report into ``folder``; raises NLAError where that cannot be."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in render(figures).items():
            write_atomic(folder / name, content)


def _head(figures: Figures) -> str:
    return (
        f"# Evaluation of {figures['pair_id']}\n\n"
        f"{figures['n']:,} held-out vectors of {figures['documents']:,} documents: the output of "
        f"block {figures['layer']} of `{figures['target']}`. Pair revision "
        f"`{figures['revision']}`; rawvar {_f(figures['rawvar'])} over "
        f"{figures['reference_n']:,} vectors. Greedy "
        f"explanations of at most {figures['explanation_tokens']} tokens. Terms are defined at the "
        "end.\n"
    )


def _goals(found: Sequence[Verdict]) -> str:
    rows = []
    for verdict in found:
        goal = verdict.goal
        show = _percent if goal.share else _f
        bar = f"{'≥' if goal.at_least else '≤'} {show(goal.bar)}"
        if verdict.value is None or verdict.short_by is None:
            rows.append((goal.name, "not measured", bar, "unknown"))
        else:
            by = f"{100 * verdict.short_by:.1f} points" if goal.share else _f(verdict.short_by)
            short = f"no, short by {by}" if verdict.short_by else "yes"
            rows.append((goal.name, show(verdict.value), bar, short))
    missed = [v for v in found if v.short_by]
    unknown = sum(v.value is None for v in found)
    known = len(found) - unknown
    line = f"{known - len(missed)} of {known} goals that were measured are met"
    line += f"; {unknown} not measured." if unknown else "."
    return f"## Against the goals\n\n{table(('figure', 'value', 'goal', 'met'), rows)}\n{line}\n"


def _fidelity(figures: Figures) -> str:
    names = {
        "fve": "FVE of the whole loop (AV text, AR vector)",
        "fve_gold": "FVE of the AR on gold labels",
        "centred_cosine": "centred cosine of the loop",
        "mse_nrm": "mse_nrm of the loop",
    }
    rows = []
    for key, name in names.items():
        ci = figures.get(f"{key}_ci")
        rows.append((name, _f(figures[key]), f"{_f(ci['low'])} to {_f(ci['high'])}" if ci else ""))
    shares = {
        "rank_at_1": f"own vector first among all {figures['n']:,}",
        "rank_at_1_500": "own vector first among 500",
        "rank_same_document": "own vector first among the same document's "
        f"(chance {_percent(figures.get('rank_same_document_chance', 0.0))})",
    }
    rows += [(name, _percent(figures[k]), "") for k, name in shares.items() if k in figures]
    return "## Fidelity\n\n" + table(("", "value", "95 % interval"), rows)


def _controls(figures: Figures, pictures: Mapping[str, str]) -> str:
    controls = figures["controls"]
    rows = [(name, _f(controls[key])) for key, name in CONTROLS.items()]
    rows += [(name, _f(controls[key])) for key, name in PARTS.items() if key in controls]
    floors = [(name, _f(figures[key])) for key, name in FLOORS.items() if key in figures]
    bank = f"The bank of training vectors holds {figures['bank_n']:,}; the nearest are found with "
    return (
        "## Control lanes and floors\n\nTexts that should score badly, or that keep one part of "
        f"the explanation:\n\n{table(('the AR reads', 'FVE'), rows)}\n"
        f"What needs no explanation at all. {bank}the true vector in hand.\n\n"
        f"{table(('instead', 'FVE'), floors)}\n{_image('controls.svg', pictures)}"
    )


def _notes(figures: Figures) -> str:
    """Retrieval of written notes, where the pair was measured on an annotated file."""
    if "notes" not in figures:
        return ""
    notes = figures["notes"]
    rows = [
        (
            NOTE_LANES[name],
            _f(lane["rank_1"]),
            _f(lane["rank_5"]),
            f"{lane['median']:.0f}",
            _f(lane["rank_1_centred"]),
            _f(lane["rank_5_centred"]),
        )
        for name, lane in notes["lanes"].items()
        if name in NOTE_LANES
    ]
    chance = notes["chance"]
    of_chance = _f(chance["rank_1"]), _f(chance["rank_5"]), f"{chance['median']}"
    rows.append(("chance", *of_chance, "", ""))
    heads = ("ranked by", "rank 1", "rank 5", "median", "rank 1, centred", "rank 5, centred")
    return (
        f"## What the notes say\n\nOne token of each of {notes['n']} texts has a written note. "
        "Sentence embeddings rank it among all of them; *centred* takes the mean note from both "
        f"sides first.\n\n{table(heads, rows)}"
    )


def _tail(figures: Figures, pictures: Mapping[str, str]) -> str:
    if "tail_k" not in figures:
        return ""
    rows = [(k, _f(value)) for k, value in figures["tail_k"].items()]
    return (
        f"## Worth {_tokens(figures['worth_k_tokens'], figures)}\n\n"
        "Copying the end of the context is the easy way to score. The target itself, re-reading "
        "only its last k tokens, scores this; the explanations score as much as "
        f"{_tokens(figures['worth_k_tokens'], figures)}, gold labels as much as "
        f"{_tokens(figures['worth_k_tokens_gold'], figures)}.\n\n"
        f"{table(('k', 'FVE'), rows)}\n{_image('tail.svg', pictures)}"
    )


def _tokens(k: float, figures: Figures) -> str:
    largest = max(map(int, figures["tail_k"]))
    return f"{largest} tokens or more" if k >= largest else f"{k:.1f} tokens"


def _groups(figures: Figures, pictures: Mapping[str, str]) -> str:
    parts = ["## Where it holds\n"]
    for key, name in (
        ("by_position", "position"),
        ("by_role", "role"),
        ("by_category", "category"),
    ):
        if key in figures:
            rows = [
                (group, f"{v['n']:,}", _f(v["fve"]), _f(v["fve_gold"]))
                for group, v in figures[key].items()
            ]
            parts.append(table((name, "vectors", "FVE", "FVE of gold labels"), rows))
            parts.append(_image(f"{key}.svg", pictures))
    parts.append(_image("distribution.svg", pictures))
    return "\n".join(part for part in parts if part)


def _texts(figures: Figures) -> str:
    def three(key: str) -> tuple[str, str, str]:
        values = (figures.get(key + suffix) for suffix in ("", "_gold", "_another"))
        first, second, third = ("" if v is None else _percent(v) for v in values)
        return first, second, third

    plain = [
        ("cut by the length limit", _percent(figures["cut_rate"])),
        ("duplicates", _percent(figures["duplicate_rate"])),
        ("distinct-3", _f(figures["distinct_3"])),
        ("mean length in tokens", f"{figures['mean_tokens']:.1f}"),
        ("mean length in characters", f"{figures['mean_characters']:.1f}"),
    ]
    claims = {
        "quote_precision": f"quotations found ({figures['quotes_n']:,} of two or more words)",
        "quote_precision_all": f"all quoted spans found ({figures['quotes_all_n']:,})",
        "next_named": "texts that name next words",
        "next_hit_top1": "next words: top-1",
        "next_hit_top5": "next words: top-5",
        "next_hit_real": "next words: real",
    }
    rows = [(name, *three(key)) for key, name in claims.items() if key in figures]
    header = ("", "explanations", "gold labels", "another's")
    return f"## What the texts say\n\n{table(('', 'value'), plain)}\n{table(header, rows)}"


def _second(figures: Figures) -> str:
    if "second_ar_fve" not in figures:
        return ""
    rows = [
        (
            name,
            _f(figures["fve" + suffix]),
            _f(figures["second_ar_fve" + suffix]),
            _f(figures["second_ar_difference" + suffix]),
        )
        for name, suffix in (("explanations", ""), ("gold labels", "_gold"))
    ]
    return "## A second reconstructor\n\nAn AR that was not trained together with the AV.\n\n" + (
        table(("FVE of", "own AR", "second AR", "difference"), rows)
    )


def _best_of(figures: Figures) -> str:
    if "best_of_n" not in figures:
        return ""
    rows = []
    for name, key in (("one sample", "single"), ("the best by the own AR", "")):
        own, second = (
            f"best_of_{key + '_' if key else ''}{kind}" for kind in ("fve", "second_ar_fve")
        )
        rows.append((name, _f(figures[own]), _f(figures[second]) if second in figures else ""))
    return (
        f"## Best of {figures['best_of_n']}\n\nSampled at temperature "
        f"{figures['best_of_temperature']:g} and chosen by the pair's own AR with the true vector "
        "in hand. Choosing by the AR can also choose what fools it: the second AR's score tells."
        "\n\n" + table(("", "own AR", "second AR"), rows)
    )


def _left_out(figures: Figures) -> str:
    if not figures["left_out"]:
        return ""
    rows = [(f"`{name}`", why) for name, why in figures["left_out"].items()]
    return "## Left out\n\n" + table(("figure", "why"), rows)


def _pictures(figures: Figures) -> dict[str, str]:
    loop = f"FVE of {figures['pair_id']}"
    bars = [Bar("the explanation", figures["fve"]), Bar("the gold label", figures["fve_gold"])]
    bars += [Bar(name, figures["controls"][key]) for key, name in CONTROLS.items()]
    bars += [Bar(name, figures[key]) for key, name in FLOORS.items() if key in figures]
    result = {
        "controls.svg": plots.bars(
            "FVE of explanations, control texts and floors", _spoken(bars), bars
        )
    }
    for key, what in (("by_position", "position"), ("by_category", "category")):
        groups = [
            Bar(name, v["fve"], v["fve_gold"], f"{v['n']}") for name, v in figures[key].items()
        ]
        result[f"{key}.svg"] = plots.bars(
            f"{loop} by {what} (vectors)", _spoken(groups), groups, "gold labels"
        )
    if "tail_k" in figures:
        points = {0: figures["mean"]} | {int(k): v for k, v in figures["tail_k"].items()}
        result["tail.svg"] = plots.curve(
            "FVE of the target re-reading its last tokens, and of the explanations",
            _spoken([Bar(f"{k} tokens", v) for k, v in points.items()]),
            points,
            figures["fve"],
            "explanations",
            figures["worth_k_tokens"],
        )
    edges, counts = figures["histogram"]["edges"], figures["histogram"]["counts"]
    result["distribution.svg"] = plots.histogram(
        "Vectors by FVE (the first bar holds all below)",
        f"{sum(counts)} vectors; their mean is {figures['fve']:.2f}",
        edges,
        counts,
        figures["fve"],
    )
    return result


def _spoken(rows: Iterable[Bar]) -> str:
    """What a picture shows, for those who do not see it."""
    return "; ".join(f"{row.label}: {row.value:.2f}" for row in rows)


def _image(name: str, pictures: Mapping[str, str]) -> str:
    if name not in pictures:
        return ""
    title = pictures[name].split("<title>")[1].split("</title>")[0]
    return f'<img src="{name}" alt="{title}">\n'


def _f(value: float) -> str:
    text = f"{value:.3f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
