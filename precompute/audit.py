"""Verb ``audit``: concepts over a dataset, foresight, the leaderboard, and transcripts as text.

Knows which tables go into the result and the form of the dump. Does not know how anything is
counted. The decision a reader would question: scores that `compare` has stored for the same
watchlist are used as they are, any other watchlist is scored here and not kept, so that trying out
a concept leaves no files behind.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nla_core.analysis.audit import ANY_OF, LABEL, AuditColumns, audit_table
from nla_core.analysis.concepts import (
    SHIPPED,
    Concept,
    ConceptScores,
    Corpus,
    Matcher,
    read_concepts,
)
from nla_core.analysis.derived import Claims, StoredScores
from nla_core.analysis.foresight import foresight, foresight_summary, lines_of
from nla_core.analysis.semantic import EmbedOnce
from nla_core.data.dataset import Dataset
from nla_core.data.files import explained, write_atomic
from nla_core.embed import MiniLM
from nla_core.errors import EXIT_OK, NLAError
from precompute.output import say, write_result

HELP = (
    "For each concept of a watchlist and each category: transcripts where the explanations hold "
    "it, where the visible text does, both, neither, with intervals and noise floors. Also how "
    "early rhymes and last words are foreseen, and the unspoken claims that recur. With --dump, "
    "write every reading as a line `[position] 'token': explanation`."
)
EXAMPLE = (
    "python -m precompute audit --dataset data/demo --concepts nla_core/analysis/concepts.json "
    "--json audit.json"
)
FORESIGHT_CATEGORY = "rhyme and planning"
LEADERS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset", type=Path, required=True, metavar="DIR", help="the dataset, e.g. data/demo"
    )
    parser.add_argument(
        "--concepts", type=Path, default=SHIPPED, metavar="FILE", help="the watchlist"
    )
    parser.add_argument(
        "--any-of", type=int, default=ANY_OF, metavar="N", help=f"readings a transcript ({ANY_OF})"
    )
    parser.add_argument(
        "--fidelity-floor", type=float, metavar="FVE", help="leave out readings below this FVE"
    )
    parser.add_argument(
        "--flagged", action="store_true", help="keep early, high-norm and low-fidelity readings"
    )
    parser.add_argument(
        "--foresight",
        default=FORESIGHT_CATEGORY,
        metavar="CATEGORY",
        help=f"category of prompts with a planned ending ({FORESIGHT_CATEGORY})",
    )
    parser.add_argument(
        "--dump", type=Path, metavar="OUT", help="write transcripts and readings as text"
    )
    parser.add_argument(
        "--category", metavar="NAME", help="only this category in the dump and the leaderboard"
    )


def main(args: argparse.Namespace) -> int:
    if args.any_of < 1:
        raise NLAError(
            f"--any-of {args.any_of} makes no sense",
            why="It must be a number of at least 1",
            fix="Correct --any-of",
        )
    concepts = read_concepts(args.concepts)
    dataset = Dataset.open(args.dataset)
    if args.dump:
        with explained(args.dump):
            args.dump.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(args.dump, dump(dataset, args.category))
    columns = _columns(dataset, concepts, args)
    ids = [concept.id for concept in concepts]
    limits = np.array([concept.threshold for concept in concepts], np.float32)
    table = audit_table(columns, ids, limits, args.any_of)
    lines = lines_of(dataset, args.foresight)
    found = foresight(lines)
    leaders, why_none = _leaders(dataset, args)
    summary = foresight_summary(found)
    _show(table, summary, leaders)
    write_result(
        args,
        {
            "label": LABEL,
            "dataset": str(args.dataset),
            "version": dataset.version,
            "any_of": args.any_of,
            "fidelity_floor": args.fidelity_floor,
            "flagged": args.flagged,
            "concepts": [concept.to_json() for concept in concepts],
            "table": _records(table),
            "foresight": {"category": args.foresight, "summary": summary}
            | {"transcripts": [asdict(item) for item in found]},
            "leaderboard": _records(leaders),
            "leaderboard_left_out": why_none,
        },
    )
    return EXIT_OK


def dump(dataset: Dataset, category: str | None = None) -> str:
    """Every transcript as text, for grep and for agents: a heading, then a line a reading.

    ``[position] 'token': explanation``; line breaks inside of either are written ``\\n``.
    """
    parts: list[str] = []
    for _, meta in dataset.transcripts(category=category).iterrows():
        transcript_id = meta["transcript_id"]
        texts = dataset.tokens(transcript_id)["text"].tolist()
        parts.append(f"# {meta['prompt_id']} | {meta['category']} | {transcript_id}")
        parts.append(_one_line("".join(texts)))
        parts += [
            f"[{row.position}] '{_one_line(texts[row.position])}': {_one_line(row.explanation)}"
            for row in dataset.readings(transcript_id).itertuples()
        ]
        parts.append("")
    return "\n".join(parts) + "\n"


def _one_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")


def _columns(
    dataset: Dataset, concepts: tuple[Concept, ...], args: argparse.Namespace
) -> AuditColumns:
    try:
        stored = StoredScores.open(dataset, concepts)
        return stored.columns(args.fidelity_floor, flagged=args.flagged)
    except NLAError:
        say("this watchlist has no stored scores for this version: scoring it now")
    embed = EmbedOnce(MiniLM().embed)
    corpus = Corpus.of(dataset, embed)
    scores = ConceptScores.of(corpus, Matcher.of(concepts, embed), embed)
    return scores.columns(corpus, corpus.usable(args.fidelity_floor, flagged=args.flagged))


def _leaders(dataset: Dataset, args: argparse.Namespace) -> tuple[pd.DataFrame, str | None]:
    """The leaderboard, or an empty one and the reason."""
    try:
        claims = Claims.open(dataset)
        return claims.leaderboard(
            category=args.category, trusted_only=not args.flagged, limit=LEADERS
        ), None
    except NLAError as error:
        say(str(error))
        return pd.DataFrame(), str(error)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: plain numbers, no NaN."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [
        {str(k): v.item() if isinstance(v, np.generic) else v for k, v in row.items()}
        for row in rows
    ]


def _show(table: pd.DataFrame, summary: dict[str, Any], leaders: pd.DataFrame) -> None:
    print(f"{'concept':>18}  explanations (floor)  visible text (floor)   ({LABEL})")
    for row in table[table["category"] == "all"].itertuples():
        print(
            f"{row.concept:>18}  {row.explanations_share or 0:.2f} [{row.low:.2f}, {row.high:.2f}] "
            f"({row.floor or 0:.2f})   {row.text_share or 0:.2f} ({row.text_floor or 0:.2f})"
        )
    if summary["n_readings"]:
        print(
            f"last words foreseen in {summary['transcripts_foreseen']} of "
            f"{summary['n_transcripts']} transcripts; {summary['readings_share']:.3f} of readings, "
            f"control {summary['control_share']:.3f}"
        )
    for row in leaders.head(10).itertuples():
        print(
            f"{row.text:>18}  unspoken, recurring in {row.n_recurring} readings of "
            f"{row.n_transcripts} transcripts"
        )
