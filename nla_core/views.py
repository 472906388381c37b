"""What a link to Search, Compare, Audit or Steer holds.

Knows the fields of these pages. Does not know how a value stands in a link (links.py) nor what is
found. The decision a reader would question: every page has a frozen view of its own instead of one
large view for all; what a page cannot show has no place in its links.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args
from urllib.parse import parse_qsl, urlencode

from nla_core import links
from nla_core.links import Field
from nla_core.refs import (
    AFTER,
    CATEGORY,
    DATASET,
    FLAG,
    FLAG_SENTENCE,
    FLAGS,
    POSITION,
    RANGE,
    SAMPLE,
    TAG,
    TRANSCRIPT,
    Parsed,
    ViewState,
    values_of,
    written,
)
from nla_core.schema import Role
from nla_core.steering.experiment import (
    DEFAULT_ALPHAS,
    LARGEST_ALPHA,
    LONGEST_EDIT,
    LONGEST_PROMPT,
    LONGEST_WORD,
    MOST_ALPHAS,
    MOST_NEW_TOKENS,
    MOST_SEEDS,
    MOST_WORDS,
    Place,
)

SearchMode = Literal["hybrid", "keyword", "semantic"]
SearchIn = Literal["explanations", "visible"]
CompareMeasure = Literal["fve", "so_far", "to_come", "unspoken"]
"""What colours the tokens on Compare: fidelity, likeness to the text on either side, claims."""


@dataclass(frozen=True, slots=True)
class SearchView:
    """What the Search page shows. ``like`` and ``unlike`` are one reading's id and a text."""

    dataset: str | None = None
    text: str = ""
    mode: SearchMode = "hybrid"
    within: SearchIn = "explanations"
    like: str | None = None
    unlike: str = ""
    unspoken: bool = False
    category: str | None = None
    tag: str | None = None
    role: str | None = None
    flag: str | None = None
    without: str | None = None
    floor: float | None = None
    range: tuple[int, int] | None = None
    after: str | None = None

    def asked(self, **changes: Any) -> SearchView:
        """The same search with something changed; its results begin at their top."""
        return replace(self, **changes, after=None)

    def params(self) -> dict[str, str]:
        return written(self, SEARCH)

    @property
    def query(self) -> str:
        return urlencode(self.params())

    @property
    def empty(self) -> bool:
        """Nothing is asked for yet."""
        return not self.text and self.like is None


@dataclass(frozen=True, slots=True)
class CompareView:
    """What the Compare page shows: one reading against its transcript, and a pinned other one.

    ``floor`` and ``flagged`` say which readings are ranked, ``role`` whose tokens; ``habits`` keeps
    claims that the verbalizer makes everywhere.
    """

    dataset: str | None = None
    transcript: str | None = None
    position: int | None = None
    sample: int = 0
    pinned: str | None = None
    measure: CompareMeasure = "fve"
    role: str | None = None
    floor: float | None = None
    flagged: bool = False
    habits: bool = False

    def at(self, position: int | None, sample: int = 0) -> CompareView:
        return replace(self, position=position, sample=sample).normal()

    def opened(self, transcript: str | None) -> CompareView:
        return replace(self, transcript=transcript, position=None, sample=0)

    def normal(self) -> CompareView:
        position = self.position if self.transcript is not None else None
        return replace(self, position=position, sample=self.sample if position is not None else 0)

    @property
    def explore(self) -> ViewState:
        """The same token on the Explore page."""
        return _explored(self)

    def params(self) -> dict[str, str]:
        return written(self.normal(), COMPARE)

    @property
    def query(self) -> str:
        return urlencode(self.params())


@dataclass(frozen=True, slots=True)
class AuditView:
    """What the Audit page shows: which readings count, one concept and category, the leaderboard's
    standing."""

    dataset: str | None = None
    concept: str | None = None
    category: str | None = None
    standing: Literal["unspoken", "foreseen"] = "unspoken"
    floor: float | None = None
    flagged: bool = False
    habits: bool = False

    def params(self) -> dict[str, str]:
        return written(self, AUDIT)

    @property
    def query(self) -> str:
        return urlencode(self.params())


@dataclass(frozen=True, slots=True)
class SteerView:
    """A whole steering experiment: a reading of a dataset, or a text of one's own, and its edit.

    With a transcript ``original`` is the dataset's own reading and empty here; ``also`` are tokens
    whose readings are edited alike. ``answer`` goes on where the answer begins instead of after the
    token. ``preset`` names the shipped preset that this is, unchanged.
    """

    dataset: str | None = None
    preset: str | None = None
    transcript: str | None = None
    position: int | None = None
    sample: int = 0
    also: tuple[int, int] | None = None
    answer: bool = False
    pair: str | None = None
    prompt: str = ""
    original: str = ""
    edited: str = ""
    place: Place = "token"
    prompt_only: bool = False
    alphas: tuple[float, ...] = DEFAULT_ALPHAS
    words: str = ""
    seeds: int = 20
    first_seed: int = 0
    new_tokens: int = 24
    temperature: float | None = None

    def changed(self, **changes: Any) -> SteerView:
        """Something else is asked for; it is no preset any more."""
        return replace(self, **changes, preset=None).normal()

    def normal(self) -> SteerView:
        position = self.position if self.transcript is not None else None
        of_reading = position is not None
        return replace(
            self,
            transcript=self.transcript if of_reading else None,
            position=position,
            sample=self.sample if of_reading else 0,
            also=self.also if of_reading else None,
            answer=self.answer and of_reading,
            pair=None if of_reading else self.pair,
            prompt="" if of_reading else self.prompt,
            original="" if of_reading else self.original,
            seeds=min(max(self.seeds, 1), MOST_SEEDS),
            new_tokens=min(max(self.new_tokens, 1), MOST_NEW_TOKENS),
        )

    @property
    def explore(self) -> ViewState:
        """The token that is edited, on the Explore page."""
        return _explored(self)

    def params(self) -> dict[str, str]:
        return written(self.normal(), STEER)

    @property
    def query(self) -> str:
        return urlencode(self.params())


def _explored(view: CompareView | SteerView) -> ViewState:
    return ViewState(
        dataset=view.dataset,
        transcript=view.transcript,
        position=view.position,
        sample=view.sample,
    ).normal()


ROLE: Final = links.choice("role", tuple(map(str, Role)), None, "Nobody speaks as “{value}”.")
FLOOR: Final = links.number("fve", "fidelity floor", -3, 1)

SEARCH: Final[dict[str, Field]] = {
    "dataset": DATASET,
    "text": links.free_text("q", "search"),
    "mode": links.choice(
        "mode", get_args(SearchMode), "hybrid", "There is no way to search called “{value}”."
    ),
    "within": links.choice(
        "in", get_args(SearchIn), "explanations", "“{value}” cannot be searched."
    ),
    "like": links.identifier("like", "reading"),
    "unlike": links.free_text("unlike", "text to stay away from"),
    "unspoken": links.switch("unspoken"),
    "category": CATEGORY,
    "tag": TAG,
    "role": ROLE,
    "flag": FLAG,
    "without": links.choice("noflag", FLAGS, None, FLAG_SENTENCE),
    "floor": FLOOR,
    "range": RANGE,
    "after": AFTER,
}
COMPARE: Final[dict[str, Field]] = {
    "dataset": DATASET,
    "transcript": TRANSCRIPT,
    "position": POSITION,
    "sample": SAMPLE,
    "pinned": links.identifier("pin", "reading"),
    "measure": links.choice(
        "m", get_args(CompareMeasure), "fve", "Tokens cannot be coloured by “{value}” here."
    ),
    "role": ROLE,
    "floor": FLOOR,
    "flagged": links.switch("flagged"),
    "habits": links.switch("habits"),
}
AUDIT: Final[dict[str, Field]] = {
    "dataset": DATASET,
    "concept": links.identifier("concept", "concept"),
    "category": CATEGORY,
    "standing": links.choice(
        "st", ("unspoken", "foreseen"), "unspoken", "“{value}” claims are not ranked."
    ),
    "floor": FLOOR,
    "flagged": links.switch("flagged"),
    "habits": links.switch("habits"),
}
STEER: Final[dict[str, Field]] = {
    "dataset": DATASET,
    "preset": links.identifier("preset", "preset"),
    "transcript": TRANSCRIPT,
    "position": POSITION,
    "sample": SAMPLE,
    "also": links.span("also", "range of readings"),
    "answer": links.switch("answer"),
    "pair": links.identifier("pair", "pair"),
    "prompt": links.long_text("text", "prompt", LONGEST_PROMPT),
    "original": links.long_text("said", "original explanation", LONGEST_EDIT),
    "edited": links.long_text("edit", "edited explanation", LONGEST_EDIT),
    "place": links.choice("at", get_args(Place), "token", "“{value}” is no place to steer at."),
    "prompt_only": links.switch("once"),
    "alphas": links.numbers("a", "α", DEFAULT_ALPHAS, -LARGEST_ALPHA, LARGEST_ALPHA, MOST_ALPHAS),
    "words": links.free_text("w", "list of words", longest=MOST_WORDS * LONGEST_WORD),
    "seeds": links.index("n", "number of seeds", default=20),
    "first_seed": links.index("seed", "first seed", default=0),
    "new_tokens": links.index("new", "number of new tokens", default=24),
    "temperature": links.number("temp", "temperature", 0, 2),
}
SEARCH_PARAMS: Final = tuple(field.param for field in SEARCH.values())
COMPARE_PARAMS: Final = tuple(field.param for field in COMPARE.values())
AUDIT_PARAMS: Final = tuple(field.param for field in AUDIT.values())
STEER_PARAMS: Final = tuple(field.param for field in STEER.values())


def parse_search(params: Mapping[str, str]) -> Parsed[SearchView]:
    """The search that ``params`` stand for. Never raises."""
    problems: list[str] = []
    values = values_of(links.known(params, SEARCH_PARAMS, problems), SEARCH, problems)
    return Parsed(SearchView(**values), tuple(problems))


def parse_compare(params: Mapping[str, str]) -> Parsed[CompareView]:
    """The comparison that ``params`` stand for. Never raises."""
    problems: list[str] = []
    values = values_of(links.known(params, COMPARE_PARAMS, problems), COMPARE, problems)
    return Parsed(CompareView(**values).normal(), tuple(problems))


def parse_compare_query(query: str) -> Parsed[CompareView]:
    """``parse_compare`` for the text after the question mark."""
    return parse_compare(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))


def parse_audit(params: Mapping[str, str]) -> Parsed[AuditView]:
    """The audit that ``params`` stand for. Never raises."""
    problems: list[str] = []
    values = values_of(links.known(params, AUDIT_PARAMS, problems), AUDIT, problems)
    return Parsed(AuditView(**values), tuple(problems))


def parse_steer(params: Mapping[str, str]) -> Parsed[SteerView]:
    """The experiment that ``params`` stand for. Never raises."""
    problems: list[str] = []
    values = values_of(links.known(params, STEER_PARAMS, problems), STEER, problems)
    if (values["transcript"] is None) != (values["position"] is None):
        problems.append("The link names a token without its transcript, or the other way round.")
    view = SteerView(**values).normal()
    if (view.seeds, view.new_tokens) != (values["seeds"], values["new_tokens"]):
        problems.append(
            f"There are 1 to {MOST_SEEDS} seeds and 1 to {MOST_NEW_TOKENS} new tokens; the nearest "
            "were taken."
        )
    return Parsed(view, tuple(problems))


def parse_steer_query(query: str) -> Parsed[SteerView]:
    """``parse_steer`` for the text after the question mark."""
    return parse_steer(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))
