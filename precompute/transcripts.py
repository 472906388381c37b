"""Verb ``transcripts``: conversations from elsewhere as a corpus: chat files and Inspect logs.

Knows what a corpus file looks like. Does not know the forms that chats are kept in
(`nla_core.conversations`), nor any model. The decision a reader would question: what another model
said is kept as it is, so the run that follows reads the transcript and answers nothing
(``run --max-new-tokens 0``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any, Final

from nla_core.conversations import conversations, normalised
from nla_core.data.files import explained, write_atomic
from nla_core.errors import EXIT_OK, NLAError
from nla_core.prompts import messages_of
from precompute.output import write_result

HELP = (
    "Turn conversations from elsewhere into a corpus: JSON or JSON lines of chat messages, and "
    "evaluation logs of Inspect (.eval or JSON). Then `run --max-new-tokens 0` reads them as they "
    "are, without a new answer."
)
EXAMPLE = "python -m precompute transcripts logs/*.eval --category agents --out agents.jsonl"

SHOWN_PROBLEMS: Final = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="chats or logs")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the corpus")
    parser.add_argument(
        "--category", help="category of all of them (default: the task, or the file's name)"
    )


def main(args: argparse.Namespace) -> int:
    problems: list[str] = []
    prompts: dict[str, dict[str, Any]] = {}
    for path in args.files:
        for where, category, title, raw in conversations(path):
            try:
                messages = normalised(raw)
                messages_of([dict(m) for m in messages], may_answer=True)
            except ValueError as error:
                problems.append(f"{where}, {error}")
                continue
            content = json.dumps(messages, ensure_ascii=False)
            key = "t-" + hashlib.sha256(content.encode()).hexdigest()[:12]
            prompts[key] = {
                "id": key,
                "category": (args.category or category)[:200],
                "title": " ".join(title.split())[:120] or key,
                "messages": messages,
            }
    if problems or not prompts:
        more = len(problems) - SHOWN_PROBLEMS
        raise NLAError(
            "These transcripts cannot be read" if problems else "There are no transcripts here",
            why="; ".join(problems[:SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
            or "no file holds a conversation",
            fix="Correct these places; nothing was written",
        )
    with explained(args.out):
        args.out.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(prompt, ensure_ascii=False) for prompt in prompts.values()]
        write_atomic(args.out, "\n".join(lines) + "\n")
    print(f"{len(prompts):,} transcripts in {args.out}")
    write_result(args, {"transcripts": len(prompts), "out": str(args.out)})
    return EXIT_OK
