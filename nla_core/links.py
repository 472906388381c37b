"""What a link is: how values stand in it, and what each page's link holds.

A view is a frozen dataclass, one a page, and its fields say how they stand in a link; no parameter
is named anywhere else. There is one URL a view, so that a link, the Back button and what the page
shows cannot disagree. Reading never raises: it takes the best value it can and adds one sentence
for what it had to drop or mend, because a mangled link is a person's problem to see, not a
program's to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Generic, Literal, Self, TypeVar, get_args
from urllib.parse import parse_qsl, urlencode

from nla_core.schema import Flag, Role
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
SearchMode = Literal["hybrid", "keyword", "semantic"]
SearchIn = Literal["explanations", "visible"]
CompareMeasure = Literal["fve", "so_far", "to_come", "unspoken"]
"""What colours the tokens on Compare: fidelity, likeness to the text on either side, claims."""

FLAGS: Final = tuple(map(str, Flag))
ROLES: Final = tuple(map(str, Role))
FLAG_SENTENCE: Final = "No reading is flagged “{value}”; the filter was left out."
LONGEST_NOTE: Final = 280
NARROWING: Final = frozenset(
    ("category", "tag", "flag", "fidelity", "length", "contains", "sort", "descending")
)
"""Fields of `ViewState` that decide what is in a list and in which order."""

ID_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
LONGEST_TEXT: Final = 200
LARGEST_INDEX: Final = 10_000_000

# Mail programs and chat windows glue these to the end of a link, or put them around it.
_GLUED: Final = " \t\r\n.,;:!?)]}>\"'`*…”’"
_OPENING: Final = " \t\r\n([{<\"'`*“‘"
# What advertising and mail systems append to every link; saying so would only be noise.
_TRACKING: Final = re.compile(r"utm_\w+|fbclid|gclid|mc_[ce]id|ref|source")

Problems = list[str]
L = TypeVar("L")


@dataclass(frozen=True, slots=True)
class Codec:
    """How one field stands in a link: its parameter, what it is when absent, both directions.

    ``read`` adds a sentence for what it had to drop or mend; ``write`` is never given the default.
    """

    param: str
    default: Any
    read: Callable[[str, Problems], Any]
    write: Callable[[Any], str] = str


def _field(
    param: str,
    default: Any,
    read: Callable[[str, Problems], Any],
    write: Callable[[Any], str] = str,
) -> Any:
    """A field of a dataclass that is a link."""
    return field(default=default, metadata={"codec": Codec(param, default, read, write)})


def identifier(param: str, what: str) -> Any:
    def read(value: str, problems: Problems) -> str | None:
        text = unglued(value)
        if not text or ID_FORM.fullmatch(text):
            return text or None
        problems.append(
            f"“{short(text)}” cannot be the id of a {what}; ids are letters, digits, "
            "“-”, “_” and “.”."
        )
        return None

    return _field(param, None, read)


def index(param: str, name: str, default: int | None = None) -> Any:
    def read(value: str, problems: Problems) -> int | None:
        text = unglued(value)
        if not text:
            return default
        if (number := _whole(text)) is not None:
            return number
        problems.append(f"The {name} “{short(text)}” is not a whole number, so it was left out.")
        return default

    return _field(param, default, read)


def span(param: str, name: str) -> Any:
    """Two positions, first and last, both included: ``12-40``."""

    def read(value: str, problems: Problems) -> tuple[int, int] | None:
        text = unglued(value)
        if not text:
            return None
        ends = [_whole(part.strip()) for part in re.split("[-–]", text)]
        if len(ends) == 1:
            ends *= 2
        if len(ends) == 2 and ends[0] is not None and ends[1] is not None:
            return (min(ends[0], ends[1]), max(ends[0], ends[1]))
        problems.append(f"The {name} “{short(text)}” is not of the form 12-40; it was left out.")
        return None

    return _field(param, None, read, lambda value: f"{value[0]}-{value[1]}")


def number(param: str, name: str, low: float, high: float) -> Any:
    """A decimal number in [low, high], two decimals; None when absent."""

    def read(value: str, problems: Problems) -> float | None:
        text = unglued(value).replace("−", "-")
        if not text:
            return None
        if re.fullmatch(r"-?\d{1,9}(\.\d{0,9})?", text, re.ASCII) and low <= float(text) <= high:
            return round(float(text), 2) + 0.0  # no minus zero
        problems.append(
            f"The {name} “{short(text)}” is not a number from {low:g} to {high:g}; it was left out."
        )
        return None

    return _field(param, None, read, lambda value: f"{value:.2f}".rstrip("0").rstrip("."))


def free_text(param: str, name: str, default: str | None = "", longest: int = LONGEST_TEXT) -> Any:
    def read(value: str, problems: Problems) -> str | None:
        text = "".join(c for c in value if c.isprintable()).strip()
        if len(text) > longest:
            problems.append(f"The {name} is longer than {longest} characters and was cut.")
        return text[:longest].rstrip() or default

    return _field(param, default, read)


def long_text(param: str, name: str, longest: int) -> Any:
    """A text of several lines."""

    def read(value: str, problems: Problems) -> str:
        text = "".join(c for c in value.replace("\r\n", "\n") if c.isprintable() or c == "\n")
        if len(text) > longest:
            problems.append(f"The {name} is longer than {longest} characters and was cut.")
        return text[:longest]

    return _field(param, "", read)


def numbers(
    param: str, name: str, default: tuple[float, ...], low: float, high: float, most: int
) -> Any:
    """Decimal numbers in [low, high], parted by commas, two decimals each, none twice."""

    def read(value: str, problems: Problems) -> tuple[float, ...]:
        found: dict[float, None] = {}
        for part in value.replace("−", "-").split(","):
            text = unglued(part)
            if (
                re.fullmatch(r"-?\d{1,9}(\.\d{0,9})?", text, re.ASCII)
                and low <= float(text) <= high
            ):
                found[round(float(text), 2) + 0.0] = None
            elif text:
                problems.append(
                    f"The {name} “{short(text)}” is not a number from {low:g} to {high:g}; it was "
                    "left out."
                )
        return tuple(found)[:most] or default

    return _field(
        param,
        default,
        read,
        lambda value: ",".join(f"{x:.2f}".rstrip("0").rstrip(".") for x in value),
    )


def choice(param: str, options: Sequence[str], default: str | None, sentence: str) -> Any:
    """One of a closed set, whatever its case; ``sentence`` says that {value} is none of them."""

    def read(value: str, problems: Problems) -> str | None:
        text = unglued(value).lower()
        if text in options:
            return text
        if text:
            problems.append(sentence.format(value=short(text)))
        return default

    return _field(param, default, read)


def switch(param: str) -> Any:
    def read(value: str, problems: Problems) -> bool:
        text = unglued(value).lower()
        if text in ("1", "true", "yes", "on"):
            return True
        if text not in ("", "0", "false", "no", "off"):
            problems.append(
                f"The field “{param}” is 0 or 1, not “{short(text)}”; it was read as 0."
            )
        return False

    return _field(param, False, read, lambda _: "1")


# ---- a link --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parsed(Generic[L]):
    """A view, and in plain words what of the link could not be used as it stood.

    ``wanted`` is the transcript that was asked for when its id has no possible form, so that the
    page can still offer the nearest one.
    """

    view: L
    problems: tuple[str, ...] = ()
    wanted: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """Base of what a page shows: a frozen dataclass whose fields say how they stand in a link."""

    @classmethod
    def codecs(cls) -> Mapping[str, Codec]:
        """The codec of each field, in the order in which a link writes them."""
        return {each.name: each.metadata["codec"] for each in fields(cls)}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every query parameter that ``params`` may write."""
        return tuple(codec.param for codec in cls.codecs().values())

    @classmethod
    def parse(cls, params: Mapping[str, str]) -> Parsed[Self]:
        """The view that ``params`` stand for. Never raises, whatever the values are."""
        problems: Problems = []
        given = _known(params, cls.names(), problems)
        values = {
            name: codec.read(given[codec.param], problems)
            if codec.param in given
            else codec.default
            for name, codec in cls.codecs().items()
        }
        view = cls(**values)
        return Parsed(view.normal(), (*problems, *view.complaints(given)), view.wanted(given))

    @classmethod
    def parse_query(cls, query: str) -> Parsed[Self]:
        """``parse`` for the text after the question mark; the last of repeated fields counts."""
        return cls.parse(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))

    def normal(self) -> Self:
        """The same view without fields that mean nothing by themselves."""
        return self

    def complaints(self, given: Mapping[str, str]) -> Sequence[str]:
        """What is wrong with the fields of a link taken together, before they are made normal."""
        return ()

    def wanted(self, given: Mapping[str, str]) -> str | None:
        """The transcript that ``given`` asks for by an id that cannot be one."""
        return None

    def changed(self, **changes: Any) -> Self:
        """The same view after somebody chose something else."""
        return replace(self, **changes).normal()

    def params(self) -> dict[str, str]:
        """The one URL form: fixed names in fixed order, defaults left out."""
        view = self.normal()
        return {
            codec.param: codec.write(getattr(view, name))
            for name, codec in self.codecs().items()
            if getattr(view, name) != codec.default
        }

    @property
    def query(self) -> str:
        """The query part of a link to this view, without the question mark."""
        return urlencode(self.params())


def _known(params: Mapping[str, str], names: Sequence[str], problems: Problems) -> dict[str, str]:
    """The fields of ``params`` that mean something here; each of the others becomes a sentence."""
    fields: dict[str, str] = {}
    for name, value in params.items():
        meant = name.strip().lower()
        while meant.startswith("amp;"):  # &amp; pasted from the source of a page
            meant = meant.removeprefix("amp;")
        if meant in names:
            fields.setdefault(meant, value)
        elif not _TRACKING.fullmatch(meant):
            problems.append(f"The link has a field “{short(name)}” that means nothing here.")
    return fields


def unglued(value: str | None) -> str:
    return (value or "").lstrip(_OPENING).rstrip(_GLUED)


def short(text: str) -> str:
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= 40 else shown[:39] + "…"


def _whole(text: str) -> int | None:
    # isdecimal alone admits the digits of every script; a link of ours holds only these.
    good = text.isascii() and text.isdecimal() and int(text[:12]) <= LARGEST_INDEX
    return int(text) if good else None


# ---- the pages -----------------------------------------------------------------------------------


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
class ViewState(Link):
    """What the pages Explore and Browse show; whatever is not here is not state.

    A position, a range (first and last token, both included) or a note needs a transcript, a
    sample or a paragraph needs a position, the measure ``phrase`` needs a phrase; ``normal`` drops
    what hangs in the air. ``reading`` is the id of one reading, the short form of a link: the page
    that meets it puts its transcript and position in its place.
    """

    dataset: str | None = identifier("d", "dataset")
    reading: str | None = identifier("r", "reading")
    transcript: str | None = identifier("t", "transcript")
    position: int | None = index("p", "position")
    sample: int = index("s", "sample", default=0)
    paragraph: int | None = index("para", "paragraph")
    range: tuple[int, int] | None = span("h", "range")
    note: str = free_text("note", "note", longest=LONGEST_NOTE)
    measure: Measure = choice(
        "m", get_args(Measure), "fve", "Tokens cannot be coloured by “{value}”; FVE is shown."
    )
    phrase: str = free_text("ph", "phrase")
    category: str | None = free_text("c", "category", default=None)
    tag: str | None = free_text("tag", "tag", default=None)
    flag: str | None = choice("flag", FLAGS, None, FLAG_SENTENCE)
    fidelity: FidelityBand | None = choice(
        "fid", get_args(FidelityBand), None, "“{value}” is no band of fidelity; it was left out."
    )
    length: LengthBand | None = choice(
        "len", get_args(LengthBand), None, "“{value}” is no band of length; it was left out."
    )
    contains: str = free_text("q", "filter")
    sort: SortKey = choice(
        "sort",
        get_args(SortKey),
        "category",
        "Transcripts cannot be sorted by “{value}”; sorting by category instead.",
    )
    descending: bool = switch("desc")
    layout: Layout = choice("as", get_args(Layout), "cards", "“{value}” is no layout.")
    after: str | None = free_text("after", "place in the list", default=None, longest=400)
    markup: bool = switch("markup")

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

    def wanted(self, given: Mapping[str, str]) -> str | None:
        asked = unglued(given.get("t"))
        return asked[:LONGEST_TEXT] if asked and self.transcript is None else None

    def complaints(self, given: Mapping[str, str]) -> Sequence[str]:
        if "t" in given and not unglued(given["t"]):
            return ["The link names no transcript: its field “t” is empty."]
        if self.position is not None and self.transcript is None and self.wanted(given) is None:
            return ["The link names a position but no transcript, so no token is shown."]
        if self.sample and self.position is None:
            return ["The link names a sample but no position, so no token is shown."]
        return []

    def at(self, position: int | None, sample: int = 0) -> ViewState:
        """The same view with another token locked, or none. A note belongs to what it was on."""
        return replace(self, position=position, sample=sample, paragraph=None, note="").normal()

    def opened(self, transcript: str | None) -> ViewState:
        """The same list with another transcript opened and no token locked."""
        return replace(
            self, transcript=transcript, position=None, sample=0, reading=None, range=None
        ).normal()

    def changed(self, **changes: Any) -> ViewState:
        """The same view after a choice; a list with another filter or order begins at its top."""
        if changes.keys() & NARROWING:
            changes = {"after": None, **changes}
        return replace(self, **changes).normal()


@dataclass(frozen=True, slots=True)
class SearchView(Link):
    """What the Search page shows. ``like`` and ``unlike`` are one reading's id and a text."""

    dataset: str | None = identifier("d", "dataset")
    text: str = free_text("q", "search")
    mode: SearchMode = choice(
        "mode", get_args(SearchMode), "hybrid", "There is no way to search called “{value}”."
    )
    within: SearchIn = choice(
        "in", get_args(SearchIn), "explanations", "“{value}” cannot be searched."
    )
    like: str | None = identifier("like", "reading")
    unlike: str = free_text("unlike", "text to stay away from")
    unspoken: bool = switch("unspoken")
    category: str | None = free_text("c", "category", default=None)
    tag: str | None = free_text("tag", "tag", default=None)
    role: str | None = choice("role", ROLES, None, "Nobody speaks as “{value}”.")
    flag: str | None = choice("flag", FLAGS, None, FLAG_SENTENCE)
    without: str | None = choice("noflag", FLAGS, None, FLAG_SENTENCE)
    floor: float | None = number("fve", "fidelity floor", -3, 1)
    range: tuple[int, int] | None = span("h", "range")
    after: str | None = free_text("after", "place in the list", default=None, longest=400)

    def changed(self, **changes: Any) -> SearchView:
        """The same search with something changed; its results begin at their top."""
        return replace(self, **{"after": None, **changes})

    @property
    def empty(self) -> bool:
        """Nothing is asked for yet."""
        return not self.text and self.like is None


@dataclass(frozen=True, slots=True)
class CompareView(Link):
    """What the Compare page shows: one reading against its transcript, and a pinned other one.

    ``floor`` and ``flagged`` say which readings are ranked, ``role`` whose tokens; ``habits`` keeps
    claims that the verbalizer makes everywhere.
    """

    dataset: str | None = identifier("d", "dataset")
    transcript: str | None = identifier("t", "transcript")
    position: int | None = index("p", "position")
    sample: int = index("s", "sample", default=0)
    pinned: str | None = identifier("pin", "reading")
    measure: CompareMeasure = choice(
        "m", get_args(CompareMeasure), "fve", "Tokens cannot be coloured by “{value}” here."
    )
    role: str | None = choice("role", ROLES, None, "Nobody speaks as “{value}”.")
    floor: float | None = number("fve", "fidelity floor", -3, 1)
    flagged: bool = switch("flagged")
    habits: bool = switch("habits")

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


@dataclass(frozen=True, slots=True)
class AuditView(Link):
    """What the Audit page shows: which readings count, one concept and category, the leaderboard's
    standing."""

    dataset: str | None = identifier("d", "dataset")
    concept: str | None = identifier("concept", "concept")
    category: str | None = free_text("c", "category", default=None)
    standing: Literal["unspoken", "foreseen"] = choice(
        "st", ("unspoken", "foreseen"), "unspoken", "“{value}” claims are not ranked."
    )
    floor: float | None = number("fve", "fidelity floor", -3, 1)
    flagged: bool = switch("flagged")
    habits: bool = switch("habits")


@dataclass(frozen=True, slots=True)
class RunView(Link):
    """What the Run page shows: a run with one of its prompts and tokens, or the editor.

    ``dataset`` and ``transcript`` are a conversation that the editor begins with. The prompt that
    is being written is not in the link: prompts are long and can be private, and a run has an
    address as soon as it is asked for.
    """

    run: str | None = identifier("run", "run")
    prompt: int = index("n", "prompt", default=0)
    position: int | None = index("p", "position")
    sample: int = index("s", "sample", default=0)
    dataset: str | None = identifier("d", "dataset")
    transcript: str | None = identifier("t", "transcript")

    def at(self, position: int | None, sample: int = 0) -> RunView:
        return replace(self, position=position, sample=sample if position is not None else 0)


@dataclass(frozen=True, slots=True)
class SteerView(Link):
    """A whole steering experiment: a reading of a dataset, or a text of one's own, and its edit.

    With a transcript ``original`` is the dataset's own reading and empty here; ``also`` are tokens
    whose readings are edited alike. ``answer`` goes on where the answer begins instead of after the
    token. ``preset`` names the shipped preset that this is, unchanged.
    """

    dataset: str | None = identifier("d", "dataset")
    preset: str | None = identifier("preset", "preset")
    transcript: str | None = identifier("t", "transcript")
    position: int | None = index("p", "position")
    sample: int = index("s", "sample", default=0)
    also: tuple[int, int] | None = span("also", "range of readings")
    answer: bool = switch("answer")
    pair: str | None = identifier("pair", "pair")
    prompt: str = long_text("text", "prompt", LONGEST_PROMPT)
    original: str = long_text("said", "original explanation", LONGEST_EDIT)
    edited: str = long_text("edit", "edited explanation", LONGEST_EDIT)
    place: Place = choice("at", get_args(Place), "token", "“{value}” is no place to steer at.")
    prompt_only: bool = switch("once")
    alphas: tuple[float, ...] = numbers(
        "a", "α", DEFAULT_ALPHAS, -LARGEST_ALPHA, LARGEST_ALPHA, MOST_ALPHAS
    )
    words: str = free_text("w", "list of words", longest=MOST_WORDS * LONGEST_WORD)
    seeds: int = index("n", "number of seeds", default=20)
    first_seed: int = index("seed", "first seed", default=0)
    new_tokens: int = index("new", "number of new tokens", default=24)
    temperature: float | None = number("temp", "temperature", 0, 2)

    def changed(self, **changes: Any) -> SteerView:
        """The same experiment with something changed; it is no preset any more."""
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

    def complaints(self, given: Mapping[str, str]) -> Sequence[str]:
        found = []
        if (self.transcript is None) != (self.position is None):
            found.append("The link names a token without its transcript, or the other way round.")
        normal = self.normal()
        if (self.seeds, self.new_tokens) != (normal.seeds, normal.new_tokens):
            found.append(
                f"There are 1 to {MOST_SEEDS} seeds and 1 to {MOST_NEW_TOKENS} new tokens; the "
                "nearest were taken."
            )
        return found

    @property
    def explore(self) -> ViewState:
        """The token that is edited, on the Explore page."""
        return _explored(self)


def _explored(view: CompareView | SteerView) -> ViewState:
    return ViewState(
        dataset=view.dataset,
        transcript=view.transcript,
        position=view.position,
        sample=view.sample,
    ).normal()
