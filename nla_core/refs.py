"""What a link is: one token of one transcript, and the view around it.

Knows the fields of the Explore and Browse pages, what may not hang in the air, and the fields that
other pages share. Does not know how a value stands in a link (links.py) nor which transcripts
exist. The decision a reader would question: there is one
frozen type a page and one URL a view, so that a link, the Back button and the state of the page
cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Literal, TypeVar, get_args
from urllib.parse import parse_qsl, urlencode

from nla_core import links
from nla_core.links import ID_FORM, LARGEST_INDEX, LONGEST_TEXT, Field, unglued
from nla_core.schema import Flag

SortKey = Literal[
    "title",
    "category",
    "n_tokens",
    "n_readings",
    "mean_fve",
    "flagged_share",
    "max_surprisal",
]
Measure = Literal["fve", "surprisal", "norm", "phrase"]
"""What colours the tokens: fidelity, surprisal, percentile of ‖h‖, likeness to a phrase."""

FidelityBand = Literal["high", "good", "fair", "poor", "negative"]
LengthBand = Literal["tiny", "short", "medium", "long"]
Layout = Literal["cards", "table"]


LONGEST_NOTE: Final = 280
__all__ = ["ID_FORM", "LARGEST_INDEX", "LONGEST_TEXT"]  # what a link may hold, for its readers


@dataclass(frozen=True, slots=True)
class TokenRef:
    """One reading: a transcript, a token position in it (from 0), a sample (from 0)."""

    transcript: str
    position: int
    sample: int = 0

    @property
    def query(self) -> str:
        """The query part of a link to this token, without the question mark."""
        return self.view.query

    @property
    def view(self) -> ViewState:
        return ViewState(transcript=self.transcript, position=self.position, sample=self.sample)


@dataclass(frozen=True, slots=True)
class ViewState:
    """What the pages Explore and Browse show; whatever is not here is not state.

    A position, a range (first and last token, both included) or a note needs a transcript, a
    sample or a paragraph needs a position, the measure ``phrase`` needs a phrase; ``normal`` drops
    what hangs in the air. ``reading`` is the id of one reading, the short form of a link: the page
    that meets it puts its transcript and position in its place.
    """

    dataset: str | None = None
    reading: str | None = None
    transcript: str | None = None
    position: int | None = None
    sample: int = 0
    paragraph: int | None = None
    range: tuple[int, int] | None = None
    note: str = ""
    measure: Measure = "fve"
    phrase: str = ""
    category: str | None = None
    tag: str | None = None
    flag: str | None = None
    fidelity: FidelityBand | None = None
    length: LengthBand | None = None
    contains: str = ""
    sort: SortKey = "category"
    descending: bool = False
    layout: Layout = "cards"
    after: str | None = None
    markup: bool = False

    @property
    def token(self) -> TokenRef | None:
        if self.transcript is None or self.position is None:
            return None
        return TokenRef(self.transcript, self.position, self.sample)

    def normal(self) -> ViewState:
        here = self.transcript is not None
        position = self.position if here else None
        return replace(
            self,
            position=position,
            sample=self.sample if position is not None else 0,
            paragraph=self.paragraph if position is not None else None,
            range=self.range if here else None,
            note=self.note if here else "",
            measure="fve" if self.measure == "phrase" and not self.phrase else self.measure,
        )

    def at(self, position: int | None, sample: int = 0) -> ViewState:
        """The same view with another token locked, or none. A note belongs to what it was on."""
        return replace(self, position=position, sample=sample, paragraph=None, note="").normal()

    def opened(self, transcript: str | None) -> ViewState:
        """The same list with another transcript opened and no token locked."""
        return replace(
            self, transcript=transcript, position=None, sample=0, reading=None, range=None
        ).normal()

    def filtered(self, **changes: Any) -> ViewState:
        """The same view with another filter or order; a list that changed begins at its top."""
        return replace(self, **changes, after=None)

    def params(self) -> dict[str, str]:
        """The one URL form: fixed names in fixed order, defaults left out."""
        return written(self.normal(), VIEW)

    @property
    def query(self) -> str:
        return urlencode(self.params())


FLAGS: Final = tuple(map(str, Flag))
FLAG_SENTENCE: Final = "No reading is flagged “{value}”; the filter was left out."
DATASET: Final = links.identifier("d", "dataset")
CATEGORY: Final = links.free_text("c", "category", default=None)
TAG: Final = links.free_text("tag", "tag", default=None)
FLAG: Final = links.choice("flag", FLAGS, None, FLAG_SENTENCE)
RANGE: Final = links.span("h", "range")
AFTER: Final = links.free_text("after", "place in the list", default=None, longest=400)

TRANSCRIPT: Final = links.identifier("t", "transcript")
POSITION: Final = links.index("p", "position")
SAMPLE: Final = links.index("s", "sample", default=0)

VIEW: Final[dict[str, Field]] = {
    "dataset": DATASET,
    "reading": links.identifier("r", "reading"),
    "transcript": TRANSCRIPT,
    "position": POSITION,
    "sample": SAMPLE,
    "paragraph": links.index("para", "paragraph"),
    "range": RANGE,
    "note": links.free_text("note", "note", longest=LONGEST_NOTE),
    "measure": links.choice(
        "m", get_args(Measure), "fve", "Tokens cannot be coloured by “{value}”; FVE is shown."
    ),
    "phrase": links.free_text("ph", "phrase"),
    "category": CATEGORY,
    "tag": TAG,
    "flag": FLAG,
    "fidelity": links.choice(
        "fid", get_args(FidelityBand), None, "“{value}” is no band of fidelity; it was left out."
    ),
    "length": links.choice(
        "len", get_args(LengthBand), None, "“{value}” is no band of length; it was left out."
    ),
    "contains": links.free_text("q", "filter"),
    "sort": links.choice(
        "sort",
        get_args(SortKey),
        "category",
        "Transcripts cannot be sorted by “{value}”; sorting by category instead.",
    ),
    "descending": links.switch("desc"),
    "layout": links.choice("as", get_args(Layout), "cards", "“{value}” is no layout."),
    "after": AFTER,
    "markup": links.switch("markup"),
}
PARAMS: Final = tuple(field.param for field in VIEW.values())
"""Every query parameter that ``ViewState.params`` may write."""

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Parsed(Generic[V]):
    """A view, and in plain words what of the link could not be used as it stood.

    ``wanted`` is the transcript that was asked for when its id has no possible form, so that the
    page can still offer the nearest one.
    """

    view: V
    problems: tuple[str, ...] = ()
    wanted: str | None = None


def parse_query(query: str) -> Parsed[ViewState]:
    """``parse`` for the text after the question mark; the last of repeated fields counts."""
    return parse(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))


def parse(params: Mapping[str, str]) -> Parsed[ViewState]:
    """The view that ``params`` stand for. Never raises, whatever the values are."""
    problems: list[str] = []
    given = links.known(params, PARAMS, problems)
    values = values_of(given, VIEW, problems)
    asked = unglued(given.get("t"))
    wanted = asked[:LONGEST_TEXT] if asked and values["transcript"] is None else None
    if "t" in given and not asked:
        problems.append("The link names no transcript: its field “t” is empty.")
    elif values["position"] is not None and values["transcript"] is None and wanted is None:
        problems.append("The link names a position but no transcript, so no token is shown.")
    elif values["sample"] and values["position"] is None:
        problems.append("The link names a sample but no position, so no token is shown.")
    return Parsed(ViewState(**values).normal(), tuple(problems), wanted)


def values_of(
    given: Mapping[str, str], fields: Mapping[str, Field], problems: list[str]
) -> dict[str, Any]:
    return {
        attribute: field.default
        if field.param not in given
        else field.read(given[field.param], problems)
        for attribute, field in fields.items()
    }


def written(view: Any, fields: Mapping[str, Field]) -> dict[str, str]:
    return links.written({name: getattr(view, name) for name in fields}, fields)
