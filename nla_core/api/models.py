"""What is asked and answered, as pydantic models: the source of the OpenAPI document.

Queries and bodies are checked against these. Answers are not, they are written as they are: a page
of readings is checked once, by the tests, instead of on every request.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from nla_core import prompts
from nla_core.analysis import themes
from nla_core.api.wire import LARGEST_INTEGER, Refusal
from nla_core.data.queries import BANDS, TranscriptSort
from nla_core.data.query import Mode, Within
from nla_core.errors import NLAError
from nla_core.jobs import request as asking
from nla_core.jobs.estimate import Estimate
from nla_core.jobs.models import ModelState
from nla_core.jobs.settings import Limits
from nla_core.jobs.store import Failure, RunState
from nla_core.schema import Finish, Flag, Role, Section, Status

PAGE: Final = 50
MOST: Final = 500
"""Rows of one page of JSON."""

LONGEST_TEXT: Final = 1000
"""Characters of a text parameter."""

LAST_POSITION: Final = 2**31 - 1
EVENTS: Final = 500


# ---- parameters ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Between:
    """Marks a number that has to be written plainly and to lie in inclusive bounds."""

    low: float = -LARGEST_INTEGER
    high: float = LARGEST_INTEGER

    def __get_pydantic_core_schema__(
        self, kind: type, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        def read(value: Any) -> Any:
            return self._read(kind, value) if isinstance(value, str) else value

        return core_schema.no_info_before_validator_function(read, handler(kind))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        bounds = {"minimum": self.low, "maximum": self.high}
        return handler(schema) | {
            name: bound for name, bound in bounds.items() if abs(bound) < LARGEST_INTEGER
        }

    def _read(self, kind: type, text: str) -> float:
        what = "a whole number" if kind is int else "a number"
        try:
            # int() and float() also take underscores, blanks and the digits of every script.
            if not text.isascii() or "_" in text or text != text.strip() or len(text) > 40:
                raise ValueError(text)
            value = float(kind(text)) if kind is float else int(text)
        except ValueError:
            raise _refused(f"it is not {what}", f"Give {what}") from None
        if not self.low <= value <= self.high:  # nor is NaN
            raise _refused(
                f"it lies outside {float(self.low):g} to {float(self.high):g}",
                "Give a number between these",
            )
        return value


def _refused(why: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("parameter", "{why}", {"why": why, "fix": fix})


def _switch(value: Any) -> Any:
    if isinstance(value, str):
        if value not in ("0", "1", "true", "false"):
            raise _refused("it is neither true nor false", "Use true or false")
        return value in ("1", "true")
    return value


def _bands(name: str) -> str:
    return "; ".join(f"{band.name}: {band.label}" for band in BANDS[name])


Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Position = Annotated[int, Between(0, LAST_POSITION)]
OfTranscript = Field(description="Readings of this transcript.")
Category = Annotated[Text | None, Field(description="Only this category.")]
Tag = Annotated[Text | None, Field(description="Only transcripts with this tag.")]
OfFlag = Annotated[
    Flag | None,
    Field(description="Only what has this flag; of transcripts, those with such a reading."),
]
OfRole = Annotated[Role | None, Field(description="Only tokens that this side speaks.")]
FveMin = Field(description="FVE at least this.")
From = Annotated[Position | None, Field(description="From this token position on.")]
UpTo = Annotated[Position | None, Field(description="Up to this token position, inclusive.")]
Unlike = Annotated[Text | None, Field(description="A phrase whose meaning is pushed away.")]
Next = Annotated[
    Text | None,
    Field(description="The `next` of the page before, with the same filters and order."),
]
Format = Annotated[
    Literal["json", "jsonl", "csv"],
    Field(description="`json` is a page. `jsonl` and `csv` stream everything that matches."),
]


class Params(BaseModel):
    """Parameters of an address; an empty one counts as left out."""

    model_config = ConfigDict(use_enum_values=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if value != ""}


class OfDataset(Params):
    dataset: Text | None = Field(
        None, description="Name of the dataset; without it the first that /datasets lists."
    )


class Paged(Params):
    limit: Annotated[int, Between(1)] | None = Field(
        None,
        description=f"Rows: of a page {PAGE} unless given, at most {MOST}; of a stream all.",
    )
    next: Next = None

    def page_size(self) -> int:
        """Rows of the page that is asked for. Raises Refusal where there are too many."""
        size = self.limit or PAGE
        if size > MOST:
            raise Refusal(
                400,
                NLAError(
                    f"A page of {size:,} rows is too long",
                    why=f"a page holds at most {MOST} of them",
                    fix="Ask for fewer and follow `next`; transcripts and readings can also be "
                    "streamed whole, with format=jsonl or format=csv",
                ),
            )
        return size


class FacetParams(OfDataset):
    category: Category = None
    contains: Text | None = Field(
        None, description="Literal text in title, prompt id, tags and messages, in any case."
    )
    tag: Tag = None
    flag: OfFlag = None
    fidelity: Literal["high", "good", "fair", "poor", "negative"] | None = Field(
        None, description=f"By mean FVE: {_bands('fidelity')}."
    )
    length: Literal["tiny", "short", "medium", "long"] | None = Field(
        None, description=f"By tokens: {_bands('length')}."
    )


class Ordered(FacetParams):
    sort: TranscriptSort = Field(
        "title", description="What to order by; rows without a value come last either way."
    )
    descending: Switch = Field(False, description="The other way round.")


class TranscriptParams(Paged, Ordered):
    format: Format = "json"


class ReadingParams(Paged, OfDataset):
    transcript_id: Annotated[Text | None, OfTranscript] = None
    category: Category = None
    flag: OfFlag = None
    role: OfRole = None
    section: Section | None = Field(
        None, description="`content` is the conversation, `template` the markup around it."
    )
    fve_min: Annotated[Annotated[float, Between()] | None, FveMin] = None
    fve_max: Annotated[float, Between()] | None = Field(None, description="FVE below this.")
    position: Position | None = Field(None, description="Only this token position.")
    format: Format = "json"


class Words(OfDataset):
    q: Text = Field("", description="Words, or an idea in your own words. Any text is a query.")
    mode: Mode = Field("hybrid", description="By words, by meaning, or both.")
    within: Within = Field("explanations", description="Explanations, or the visible text.")
    unspoken: Switch = Field(
        False, description="Only readings that say what the visible text does not."
    )


class HitParams(Paged, OfDataset):
    category: Category = None
    tag: Tag = None
    role: OfRole = None
    flag: OfFlag = None
    without_flag: Flag | None = Field(None, description="Only what does not have this flag.")
    fve_min: Annotated[Annotated[float, Between(-1e6, 1)] | None, FveMin] = None
    first: From = None
    last: UpTo = None
    per_transcript: Annotated[int, Between(1, 1_000)] | None = Field(
        None, description="At most so many hits of each transcript."
    )
    unlike: Unlike = None


class SearchParams(HitParams, Words):
    pass


class SimilarParams(HitParams):
    reading_id: Text = Field(description="The reading that others shall be like.")


class ThemeParams(OfDataset):
    transcript_id: Annotated[Text, OfTranscript]
    first: From = None
    last: UpTo = None
    limit: Annotated[int, Between(1, 100)] = Field(themes.MOST, description="Most themes.")


class RunParams(Paged):
    state: RunState | None = Field(None, description="Only runs in this state.")


class EventParams(Params):
    since: Annotated[int, Between(0)] = Field(0, description="How many events were seen.")
    limit: Annotated[int, Between(1, 5_000)] = Field(
        EVENTS, description="Events of a page; a stream has no limit."
    )
    format: Literal["json", "jsonl"] = Field(
        "json", description="`jsonl`: a line an event, as they come, until the run has ended."
    )


# ---- bodies --------------------------------------------------------------------------------------


def _line(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair at character {error.start}") from None
    return text if text.strip() else ""


Line = Annotated[str, AfterValidator(_line)]
Whole = Annotated[int, Field(strict=True)]


def _least(low: int, **more: float) -> Any:
    """Bounds for the document alone: the run's own checks refuse them with what would fit."""
    return Field(json_schema_extra={"minimum": low, **more})


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Message(Body):
    role: Role
    content: str


class RunPrompt(Body):
    """A text with a chat around it, or a plain one; the assistant may have the last word."""

    messages: list[Message] = []
    text: str | None = Field(None, description="Read as it stands, without a chat around it.")
    title: Line = ""
    where: Line = Field("", description="Where it came from, for messages about it.")

    @model_validator(mode="after")
    def _check(self) -> RunPrompt:
        if self.text is not None and self.messages:
            raise ValueError("it has both a text and messages")
        if self.text is None:
            prompts.messages_of(self._turns(), may_answer=True)
        else:
            prompts.text_of(self.text, "text", max(1, len(self.text)))
        return self

    def _turns(self) -> list[dict[str, str]]:
        return [{"role": m.role.value, "content": m.content} for m in self.messages]

    def prompt(self) -> asking.RunPrompt:
        return asking.RunPrompt(
            messages=tuple(self._turns()), text=self.text, title=self.title, where=self.where[:200]
        )


def _short_prompt(value: Any) -> Any:
    """A string is a question of a user, a list a conversation."""
    if isinstance(value, str):
        value = [{"role": Role.USER, "content": value}]
    return {"messages": value} if isinstance(value, list) else value


def _short_positions(value: Any) -> Any:
    return {"which": value} if isinstance(value, str) else value


class Positions(Body):
    """all: every character of the conversation; answer: those of the answer; last n; every n-th;
    list: the positions in at, for one prompt."""

    which: asking.Which | None = None
    n: Whole = 0
    at: list[Whole] = []

    def places(self) -> asking.Positions:
        default = asking.Which.LIST if self.at else asking.Which.ALL
        return asking.Positions(self.which or default, self.n, tuple(self.at))


class Sampling(Body):
    max_tokens: Annotated[Whole, _least(0)] | None = None
    temperature: Annotated[float, Field(strict=True), _least(0, maximum=10)] | None = Field(
        default=None, description="0 is greedy."
    )
    seed: Annotated[Whole, _least(0, exclusiveMaximum=2**31)] | None = None

    def over(self, default: asking.Sampling) -> asking.Sampling:
        """``default`` with what was given in its place."""
        return replace(default, **self.model_dump(exclude_none=True))


AnyPrompt = Annotated[
    RunPrompt,
    BeforeValidator(_short_prompt, json_schema_input_type=str | list[Message] | RunPrompt),
]


class RunRequest(Body):
    """Held against the limits of /runs/limits as a whole; never trimmed."""

    pair: Line = Field("", description="Without it the first that /runs/pairs lists.")
    prompt: AnyPrompt | None = None
    prompts: list[AnyPrompt] | None = Field(None, description="Instead of prompt.")
    positions: Annotated[
        Positions,
        BeforeValidator(
            _short_positions, json_schema_input_type=Literal["all", "answer"] | Positions
        ),
    ] = Positions()
    samples: Annotated[Whole, _least(1)] = Field(1, description="Explanations of each position.")
    target: Sampling = Field(
        Sampling(),
        description="How the answer is written: 48 tokens, greedy. With max_tokens 0 the prompt is "
        "read as it stands.",
    )
    verbalizer: Sampling = Field(
        Sampling(), description="How explanations are written: up to 80 tokens, greedy."
    )
    name: Line = ""
    note: Line = ""

    @model_validator(mode="after")
    def _has_prompts(self) -> RunRequest:
        if (self.prompt is None) == (self.prompts is None):
            raise ValueError("it needs either prompt or prompts")
        return self

    def request(self, first_pair: str) -> asking.RunRequest:
        """Raises NLAError for values that do not go together."""
        prompts = [self.prompt] if self.prompt else self.prompts or []
        default: dict[str, Any] = {one.name: one.default for one in fields(asking.RunRequest)}
        return asking.RunRequest(
            pair=self.pair if "pair" in self.model_fields_set else first_pair,
            prompts=tuple(prompt.prompt() for prompt in prompts),
            positions=self.positions.places(),
            samples=self.samples,
            target=self.target.over(default["target"]),
            verbalizer=self.verbalizer.over(default["verbalizer"]),
            name=self.name,
            note=self.note,
        )


class NewName(Body):
    name: Line = ""
    note: Line = ""

    @model_validator(mode="after")
    def _changes_something(self) -> NewName:
        if not self.model_fields_set:
            raise ValueError("it needs a name or a note")
        return self


# ---- answers -------------------------------------------------------------------------------------

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PageOf = Annotated[str, Field(description="Path and query of the page that shows this.")]
NextPage = Annotated[
    str | None, Field(description="Token of the page that follows; null on the last.")
]
AnswerFinish = Literal["stop", "length", "none"]


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Refused(Answer):
    what: str = Field(description="What was refused.")
    why: str = Field(description="The mechanical reason.")
    fix: str = Field(description="What works instead.")


class Error(Answer):
    """The one body of every refusal."""

    error: Refused


class Source(Answer):
    """Where the answer comes from; also in the headers X-NLA-Dataset, -Version and -Pair."""

    dataset: str = Field(description="Name of the dataset's folder.")
    version: str = Field(
        description="`v-` and 12 hex digits; the same rows always have the same version.",
        pattern="^v-[0-9a-f]{12}$",
    )
    pair: str = Field(description="Which NLA wrote the readings.")
    revision: str = Field(description="Revision of that pair.")
    target: str = Field(description="The model that is read.")
    layer: int | None = Field(description="Its block whose output is read.")


class Sourced(Answer):
    source: Source


class Transcript(Answer):
    transcript_id: str
    prompt_id: str
    category: str
    title: str
    tags: list[str]
    status: Status
    error: str | None = Field(description="Why there are no readings, where status is `error`.")
    n_tokens: Count
    n_answer_tokens: Count
    answer_finish: AnswerFinish
    n_readings: Count
    mean_fve: float | None = Field(description="Mean FVE of its readings.")
    flagged_share: Share | None = Field(description="Share of readings with any flag.")
    seed: int
    max_surprisal: float | None = Field(description="Nats; the most surprising content token.")
    flags: list[Flag] = Field(description="Flags that at least one of its readings has.")
    sparkline: list[float] = Field(
        description="Mean FVE along the transcript, in equal shares of its explained positions.",
        max_length=24,
    )
    page: PageOf


class TranscriptWithMessages(Transcript):
    messages: list[Message]


class SaidToken(Answer):
    position: Count
    token_id: Count
    chip: Count = Field(
        description="Tokens that share a chip are bytes of one character; the text stands at the "
        "first."
    )
    text: str
    role: Role
    section: Section
    turn: Count = Field(description="Index of the message, from 0.")
    norm: float = Field(ge=0, description="L2 norm of the residual stream after the pair's layer.")
    norm_pct: float = Field(
        ge=0, le=100, description="Percentile of that norm in the pair's reference set."
    )
    surprisal: float | None = Field(description="Nats, given the tokens before; null at 0.")
    top_tokens: list[str] = Field(description="Likeliest next tokens.")
    top_probs: list[Annotated[float, Field(ge=0, le=1.001)]]


class Token(SaidToken):
    transcript_id: str


class RunReading(Answer):
    position: Count = Field(description="Token position, from 0.")
    sample: Count = Field(description="Which of several samples, from 0.")
    explanation: str = Field(
        description="What the activation verbalizer wrote. Text of a model: read it with its score."
    )
    finish: Finish
    n_tokens: int = Field(description="Length of the explanation in tokens.")
    mse_nrm: float = Field(
        ge=-0.0001,
        le=4.0001,
        description="Squared error of the rebuilt vector, both scaled to L2 = sqrt(d).",
    )
    cosine: float
    centred_cosine: float = Field(description="Cosine after the mean vector is taken off both.")
    fve: float = Field(
        le=1.001, description="Fraction of variance explained: 1 - mse_nrm / rawvar of the pair."
    )
    flags: list[Flag]
    seed: int


class Reading(RunReading):
    reading_id: str
    transcript_id: str
    row: Count = Field(description="Row in vectors/explanations.f16.npy.")
    role: Role = Field(description="Who speaks the token.")
    section: Section
    token: str = Field(
        description="Text of the explained token, or of the whole character it is part of."
    )
    category: str
    title: str = Field(description="Title of the transcript.")
    page: PageOf


class DatasetSummary(Answer):
    dataset: str = Field(description="What the parameter of that name takes.")
    version: str
    schema_version: int
    pair: dict[str, Any] = Field(
        description="The NLA: pair_id, revision, layer, d_model, target, rawvar, ..."
    )
    corpus: dict[str, Any]
    counts: dict[str, int]
    git_commit: str | None


class UnreadableDataset(Answer):
    dataset: str
    error: Refused


class DatasetList(Answer):
    datasets: list[DatasetSummary] = Field(description="The default one first.")
    unreadable: list[UnreadableDataset]


class DatasetManifest(Answer):
    dataset: str
    manifest: dict[str, Any] = Field(
        description="version, schema_version, pair, corpus, settings, counts, files, ..."
    )


class CategoryCount(Answer):
    category: str
    n_transcripts: int
    n_readings: int


class CategoryList(Sourced):
    categories: list[CategoryCount]


class FacetValue(Answer):
    value: str = Field(description="What to give the parameter of that name.")
    n_transcripts: int = Field(ge=1)
    n_readings: Count
    label: str = Field("", description="The range of a band, in words.")


class FacetValues(Answer):
    category: list[FacetValue]
    tag: list[FacetValue]
    flag: list[FacetValue]
    fidelity: list[FacetValue]
    length: list[FacetValue]


class Facets(Sourced):
    facets: FacetValues


class TranscriptPage(Sourced):
    transcripts: list[Transcript] = Field(max_length=MOST)
    next: NextPage
    total: Count = Field(description="Transcripts under these filters.")


class TranscriptInFull(Sourced):
    transcript: TranscriptWithMessages
    tokens: list[Token]
    readings: list[Reading]


class ReadingPage(Sourced):
    readings: list[Reading] = Field(max_length=MOST)
    next: NextPage


class ReadingInFull(Sourced):
    reading: Reading
    token: Token


class Hit(Answer):
    row: Count = Field(
        description="Of the readings file, or of the message where visible text was searched."
    )
    transcript_id: str
    title: str
    category: str
    score: float = Field(
        description="Cosine for search by meaning alone, else the sum of 1 / (60 + rank)."
    )
    ranks: dict[str, Annotated[int, Field(ge=1)]] = Field(
        description="Place, from 1, that each method gave it."
    )
    similarity: float | None = Field(description="Cosine, where it was computed.")
    position: Count
    role: Role
    text: str = Field(description="The explanation, or the message.")
    spans: list[tuple[int, int]] = Field(description="Character ranges of text that match.")
    reading_id: str | None
    sample: int | None
    fve: float | None
    flags: list[Flag]
    positions: list[int] = Field(
        description="Where visible text was searched: the token at which each span begins."
    )
    page: PageOf


class NearQuery(Answer):
    label: str
    q: str
    hits: int
    exact: bool


class Hits(Sourced):
    hits: list[Hit] = Field(max_length=MOST)
    next: NextPage
    total: Count
    exact: bool = Field(description="Whether total is exact; else it is a lower bound.")
    found: dict[str, int] = Field(description="Hits of each method.")
    categories: dict[str, int]
    notes: list[str] = Field(description="What was read differently from what was typed.")
    why: list[str] = Field(description="Why there are no hits for the words.")
    near: list[NearQuery] = Field(description="Other queries that find something.")


class Theme(Answer):
    term: str
    count: int = Field(ge=2, description="In how many of the readings it stands.")
    expected: float = Field(
        ge=0, description="In how many one would expect it, from its share in the whole dataset."
    )
    positions: list[int]


class Themes(Sourced):
    n_readings: Count = Field(description="Readings looked at, the first sample of each position.")
    themes: list[Theme] = Field(description="The most telling first.")


class RunRow(Answer):
    run_id: str = Field(
        description="Follows from what was asked: the same question has the same run."
    )
    name: str
    note: str
    state: RunState
    place: Count | None = Field(
        description="0 at work, else how many runs are before it; null when it does not wait."
    )
    pair: str = Field(description="Id of the pair.")
    n_prompts: Count
    done: Count = Field(description="Readings made.")
    failed: Count = Field(description="Readings and prompts that failed.")
    total: Count = Field(
        description="Readings there will be; a bound while prompts are not transcribed."
    )
    created: float = Field(description="Seconds since 1970.")
    finished: float | None = Field(description="Seconds since 1970.")
    version: str | None = Field(
        description="Version of the dataset it became; null before anything is published."
    )
    error: str | None = Field(description="Why all of it failed.")
    dataset: str | None = Field(description="Name of that dataset in this API.")
    page: str | None = Field(description="Path and query of the page that shows it.")


class Run(RunRow):
    """A run at a moment."""

    model: str = Field(description="State of the pair's models on the device that is furthest.")
    n_transcribed: Count = Field(description="Prompts that were answered.")
    total_is_known: bool
    rate: float | None = Field(description="Readings a second, of late.")
    seconds_left: float | None
    started: float | None
    n_events: Count = Field(description="Where events go on.")


class RunPage(Answer):
    runs: list[RunRow]
    next: NextPage
    queue: list[str] = Field(description="Runs that wait or are at work, oldest first.")


class RunInFull(Answer):
    run: Run
    request: RunRequest = Field(description="What was asked, in full; it can be sent again.")
    failures: list[Failure]


class Submitted(Answer):
    run_id: str
    is_new: bool = Field(description="False where the readings are there, or are being made.")
    run: Run
    estimate: Estimate = Field(
        description="Seconds, queue included; null where this machine has never loaded the pair."
    )


class Estimated(Answer):
    estimate: Estimate


class RunNow(Answer):
    run: Run


class Retried(RunNow):
    again: Count = Field(description="What is done again.")


class Deleted(Answer):
    deleted: str


class RunEvent(Answer):
    """tokens: a prompt was answered; text: an explanation is whole, its score comes later; reading:
    with its score; failure; retry: it is done again. Only streams have again (forget what came
    before), run (how it stands) and error (it is gone)."""

    kind: Literal["tokens", "text", "reading", "failure", "retry", "again", "run", "error"]
    prompt: Count = Field(0, description="Index of the prompt.")
    position: Count | None = None
    sample: Count = 0
    transcript_id: str = ""
    messages: list[Message] = Field([], description="The answer is the last one.")
    tokens: list[SaidToken] = []
    n_answer_tokens: Count = 0
    answer_finish: AnswerFinish = "none"
    explanation: str = ""
    finish: Finish = Finish.CLOSED
    reading: RunReading | None = None
    reason: str = ""
    run: Run | None = None
    error: Refused | None = None


class RunEvents(Answer):
    run: Run
    events: list[RunEvent]
    next: Count = Field(description="Send it as since.")
    again: bool = Field(description="Forget what was seen before: the server was started anew.")


class RunLimits(Answer):
    limits: Limits


class RunnablePair(Answer):
    model_config = ConfigDict(extra="allow")

    pair: str = Field(description="The name that POST /runs takes.")
    pair_id: str
    revision: str
    target: str
    layer: int
    d_model: int
    models: dict[str, ModelState] = Field(description="State of its models by device.")


class UnreadablePair(Answer):
    pair: str
    error: Refused


class RunPairs(Answer):
    pairs: list[RunnablePair]
    unreadable: list[UnreadablePair]
