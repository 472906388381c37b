"""What a link to Run holds: a run with one of its prompts and tokens, or the editor.

Knows its fields. Does not know how a value stands in a link (links.py), nor any run. The decision a
reader would question: the prompt that is being written is not in it; prompts are long and can be
private, and a run has an address as soon as it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl, urlencode

from nla_core import links
from nla_core.links import Field
from nla_core.refs import DATASET, POSITION, SAMPLE, TRANSCRIPT, Parsed, values_of, written


@dataclass(frozen=True, slots=True)
class RunView:
    """``dataset`` and ``transcript`` are a conversation that the editor begins with."""

    run: str | None = None
    prompt: int = 0
    position: int | None = None
    sample: int = 0
    dataset: str | None = None
    transcript: str | None = None

    def at(self, position: int | None, sample: int = 0) -> RunView:
        return replace(self, position=position, sample=sample if position is not None else 0)

    def params(self) -> dict[str, str]:
        return written(self, RUN)

    @property
    def query(self) -> str:
        return urlencode(self.params())


RUN: Final[dict[str, Field]] = {
    "run": links.identifier("run", "run"),
    "prompt": links.index("n", "prompt", default=0),
    "position": POSITION,
    "sample": SAMPLE,
    "dataset": DATASET,
    "transcript": TRANSCRIPT,
}
RUN_PARAMS: Final = tuple(field.param for field in RUN.values())


def parse_run(params: Mapping[str, str]) -> Parsed[RunView]:
    """The run or the editor that ``params`` stand for. Never raises."""
    problems: list[str] = []
    values = values_of(links.known(params, RUN_PARAMS, problems), RUN, problems)
    return Parsed(RunView(**values), tuple(problems))


def parse_run_query(query: str) -> Parsed[RunView]:
    """``parse_run`` for the text after the question mark."""
    return parse_run(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))
