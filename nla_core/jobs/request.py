"""What a visitor asks for, and what a server allows: prompts, positions, sampling, limits.

A request is frozen and has a key. Name and note stay out of the key, and so do device, number
format and the versions of libraries: the same question is answered from what is there, wherever it
was computed, and the manifest says where that was. A request over a limit is refused as a whole and
never trimmed, since half of what was asked is not an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from nla_core.data.files import sha256_json
from nla_core.errors import NLAError
from nla_core.jobs.settings import Limits
from nla_core.prompts import Message, messages_of, text_of
from nla_core.readings import Said
from nla_core.schema import Role, Section

if TYPE_CHECKING:
    from nla_core.jobs.store import Run

RUN_PREFIX = "run-"
TITLE_LENGTH = 80
NAME_LENGTH = 120
NOTE_LENGTH = 4_000
SHOWN_PROBLEMS = 5


class Which(StrEnum):
    """Which positions are read."""

    ALL = "all"  # every character of the conversation itself
    ANSWER = "answer"  # only those of the answer
    LAST = "last"  # the last n of these
    EVERY = "every"  # each n-th of these
    LIST = "list"  # positions of the tokenised text, template included


@dataclass(frozen=True, slots=True)
class Positions:
    """``n`` belongs to LAST and EVERY, ``at`` to LIST. Raises NLAError where it is missing."""

    which: Which = Which.ALL
    n: int = 0
    at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.which in (Which.LAST, Which.EVERY) and self.n < 1:
            raise _bad("positions", f"{self.which} {self.n}", "a count of 1 or more")
        if self.which is Which.LIST and (not self.at or min(self.at) < 0):
            raise _bad("positions", f"the list {list(self.at[:5])}", "positions of 0 or more")

    def choose(self, said: Said, content: Sequence[int]) -> list[int]:
        """Positions to read, in order. ``content`` are those of the conversation itself.

        A listed position that lies behind the end of the answer is returned, too; see ``beyond``.
        """
        match self.which:
            case Which.ALL:
                return list(content)
            case Which.ANSWER:
                last = len(said.messages) - 1
                return [p for p in content if _answers(said, p, last)]
            case Which.LAST:
                return list(content[-self.n :])
            case Which.EVERY:
                return list(content[:: self.n])
            case Which.LIST:
                return sorted(set(self.at))

    def most(self, n_tokens: int, new_tokens: int) -> int:
        """An upper bound of how many there can be in a prompt of ``n_tokens``."""
        match self.which:
            case Which.ALL:
                return n_tokens + new_tokens
            case Which.ANSWER:
                return new_tokens or n_tokens
            case Which.LAST:
                return min(self.n, n_tokens + new_tokens)
            case Which.EVERY:
                return -(-(n_tokens + new_tokens) // self.n)
            case Which.LIST:
                return len(set(self.at))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one of the two models writes: ``temperature`` 0 is greedy, ``max_tokens`` its limit."""

    max_tokens: int
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class RunPrompt:
    """Messages, or a plain ``text``. ``where`` says which line of an upload it came from.

    The assistant may have the last word: then it is the beginning of the answer.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    title: str = ""
    where: str = ""

    def __post_init__(self) -> None:
        try:
            if self.text is not None:
                if self.messages:
                    raise ValueError("field 'messages': expected none beside a plain text")
                text_of(self.text, "text", max(1, len(self.text)))
            else:
                messages_of([dict(m) for m in self.messages], may_answer=True)
            if self.title.strip():
                text_of(self.title, "title")
        except ValueError as error:
            raise NLAError(
                f"{self.where or 'The prompt'} cannot be used",
                why=str(error),
                fix="Correct it and try again",
            ) from None

    @property
    def content(self) -> tuple[Message, ...] | str:
        """What the target is given."""
        return self.messages if self.text is None else self.text

    @property
    def n_characters(self) -> int:
        if self.text is not None:
            return len(self.text)
        return sum(len(message["content"]) for message in self.messages)

    @property
    def label(self) -> str:
        """The title, or the beginning of what was asked."""
        asked = self.text or next(
            (m["content"] for m in reversed(self.messages) if m["role"] == Role.USER), ""
        )
        title = " ".join((self.title or asked).split())
        return title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1] + "…"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """``pair`` is the name it has here; ``target`` writes answers, ``verbalizer`` explanations."""

    pair: str
    prompts: tuple[RunPrompt, ...]
    positions: Positions = Positions()
    samples: int = 1
    target: Sampling = Sampling(max_tokens=48)
    verbalizer: Sampling = Sampling(max_tokens=80)
    name: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not self.prompts:
            raise _bad("prompts", "none", "at least one")
        if self.samples < 1:
            raise _bad("samples", self.samples, "1 or more")
        if self.target.max_tokens < 0:
            raise _bad("new tokens", self.target.max_tokens, "0 (read as it stands) or more")
        if self.verbalizer.max_tokens < 1:
            raise _bad("the length limit", self.verbalizer.max_tokens, "1 or more")
        for who, sampling in (("target", self.target), ("verbalizer", self.verbalizer)):
            if not 0 <= sampling.temperature <= 10:
                raise _bad(f"the {who}'s temperature", sampling.temperature, "0 (greedy) to 10")
            if not 0 <= sampling.seed < 2**31:
                raise _bad(f"the {who}'s seed", sampling.seed, "0 or more and below 2^31")
        if self.samples > 1 and self.verbalizer.temperature == 0:
            raise NLAError(
                f"{self.samples} samples of each explanation would all be the same",
                why="the verbalizer's temperature is 0, which is greedy",
                fix="Set it to 0.7, or ask for one sample",
            )
        if self.positions.which is Which.LIST and len(self.prompts) > 1:
            raise _bad(
                "positions", f"a list for {len(self.prompts)} prompts", "a list for one prompt"
            )
        self._refuse_repeats()
        for field, text, limit in (
            ("name", self.name, NAME_LENGTH),
            ("note", self.note, NOTE_LENGTH),
        ):
            if len(text) > limit:
                raise _bad(field, f"{len(text)} characters", f"up to {limit}")

    def named(self) -> RunRequest:
        """With a name: that of its first prompt where none was given."""
        if self.name:
            return self
        more = len(self.prompts) - 1
        return replace(self, name=self.prompts[0].label + (f" and {more} more" if more else ""))

    def run_id(self, pair: Mapping[str, Any]) -> str:
        """The run's name, which follows from what decides its readings.

        ``pair`` is `Pair.describe()`, of which id, revision and target count.
        """
        asked = self.to_json()
        content = {
            **{name: asked[name] for name in ("positions", "samples", "target", "verbalizer")},
            "pair": [pair["pair_id"], pair["revision"], pair["target"]],
            "prompts": [prompt.text or list(prompt.messages) for prompt in self.prompts],
        }
        return RUN_PREFIX + sha256_json(content)[:12]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunRequest:
        """The reverse of ``to_json``. Raises KeyError, TypeError or NLAError for anything else."""
        places = data["positions"]
        return cls(
            pair=data["pair"],
            prompts=tuple(
                RunPrompt(**{**prompt, "messages": tuple(prompt["messages"])})
                for prompt in data["prompts"]
            ),
            positions=Positions(Which(places["which"]), places["n"], tuple(places["at"])),
            samples=data["samples"],
            target=Sampling(**data["target"]),
            verbalizer=Sampling(**data["verbalizer"]),
            name=data["name"],
            note=data["note"],
        )

    def _refuse_repeats(self) -> None:
        seen: dict[str, int] = {}
        for number, prompt in enumerate(self.prompts, start=1):
            first = seen.setdefault(sha256_json([prompt.text, list(prompt.messages)]), number)
            if first != number:
                raise NLAError(
                    f"Prompt {number} repeats prompt {first}",
                    why="the same prompt with the same settings has the same readings",
                    fix="Leave one of them out, or ask for more samples",
                )


def _answers(said: Said, position: int, last: int) -> bool:
    token = said.tokens[position]
    return token.role == Role.ASSISTANT and token.turn == last and token.section == Section.CONTENT


def _bad(field: str, found: object, expected: str) -> NLAError:
    return NLAError(
        f"{field} cannot be {found}".capitalize(), why=f"Expected {expected}", fix="Change it"
    )


class OverLimit(NLAError):
    """One limit was exceeded; ``limit`` is its name in `Limits`."""

    def __init__(self, limit: str, what: str, *, why: str, fix: str) -> None:
        super().__init__(what, why=why, fix=fix)
        self.limit = limit


def check_request(
    request: RunRequest, limits: Limits, count: Callable[[RunPrompt], int], context: int
) -> tuple[int, ...]:
    """The length in tokens of each prompt of a request that is within the limits.

    ``count`` gives the tokens of a prompt, or raises NLAError; ``context`` is the target's. Raises
    NLAError naming the limit, or the lines of the upload that are at fault.
    """
    asked = request
    _within("prompts", len(asked.prompts), limits.prompts, "Split the upload")
    _within("samples", asked.samples, limits.samples, "Ask for fewer samples")
    _within("new_tokens", asked.target.max_tokens, limits.new_tokens, "Ask for a shorter answer")
    _within(
        "explanation_tokens",
        asked.verbalizer.max_tokens,
        limits.explanation_tokens,
        "Ask for shorter explanations",
    )
    lengths = _lengths(asked, limits, count, context)
    if asked.positions.which is Which.LIST:
        _positions_exist(asked, lengths[0])
    most = [asked.positions.most(n, asked.target.max_tokens) for n in lengths]
    readings = sum(most) * asked.samples
    fits = max(1, limits.readings // max(1, asked.samples * len(most)))
    _within(
        "readings",
        readings,
        limits.readings,
        f"Read only the last {fits} positions of each prompt, or fewer prompts",
    )
    return lengths


def check_queue(
    visitor: str, open_runs: Sequence[Run], n_stored: int | None, limits: Limits
) -> None:
    """Whether one more run of this visitor has a place. Raises NLAError.

    ``n_stored`` counts runs on the disk, and is None where the run is one of them.
    """
    own = sum(visitor in run.visitors for run in open_runs)
    _within(
        "queue_per_visitor",
        own + 1,
        limits.queue_per_visitor,
        "Wait until one of your runs is finished, or cancel one",
    )
    _within(
        "queue_total", len(open_runs) + 1, limits.queue_total, "Try again when some are finished"
    )
    if n_stored is not None:
        _within("stored_runs", n_stored + 1, limits.stored_runs, "Delete a run that is not needed")


def _lengths(
    request: RunRequest, limits: Limits, count: Callable[[RunPrompt], int], context: int
) -> tuple[int, ...]:
    lengths: list[int] = []
    problems: list[str] = []
    room = context - request.target.max_tokens
    for number, prompt in enumerate(request.prompts, start=1):
        where = prompt.where or (f"prompt {number}" if len(request.prompts) > 1 else "the prompt")
        if prompt.n_characters > limits.prompt_characters:
            problems.append(
                f"{where} has {prompt.n_characters:,} characters and the limit prompt_characters "
                f"is {limits.prompt_characters:,}"
            )
            continue
        try:
            n = count(prompt)
        except NLAError as error:
            problems.append(f"{where}: {error.what} ({error.why})")
            continue
        lengths.append(n)
        if n > limits.prompt_tokens:
            problems.append(
                f"{where} has {n:,} tokens and the limit prompt_tokens is {limits.prompt_tokens:,}"
            )
        elif n > room:
            problems.append(
                f"{where} has {n:,} tokens, and with an answer of {request.target.max_tokens} "
                f"the target's context of {context:,} leaves room for {max(0, room):,}"
            )
        elif n == 0:
            problems.append(f"{where} has no tokens")
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        raise NLAError(
            "Nothing was queued: not every prompt fits"
            if len(request.prompts) > 1
            else "Nothing was queued: the prompt does not fit",
            why="; ".join(problems[:SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else ""),
            fix="Shorten or leave out what is named",
        )
    return tuple(lengths)


def _positions_exist(request: RunRequest, n_tokens: int) -> None:
    end = n_tokens + request.target.max_tokens
    wrong = [p for p in request.positions.at if p >= end]
    if wrong:
        raise NLAError(
            f"Position {wrong[0]} does not exist",
            why=f"the prompt and its answer have positions 0 to {end - 1} at most",
            fix="Choose positions inside the text",
        )


def _within(name: str, found: int, limit: int, fix: str) -> None:
    if found > limit:
        raise OverLimit(
            name,
            f"Nothing was queued: {name.replace('_', ' ')} would be {found:,}",
            why=f"the limit {name} is {limit:,} on this server",
            fix=fix,
        )
