"""All that decides a steering experiment, checked, as JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Any, Final, Literal, get_args

from nla_core.errors import NLAError
from nla_core.readings import short_hash

WORD: Final = re.compile(r"\s+|[^\W_]+|[\W_]")


def changes(edit: Edit) -> list[tuple[str, str]]:
    """Runs of words that the edit replaced, each with what stands there now."""
    old, new = WORD.findall(edit.original), WORD.findall(edit.edited)
    found = SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes()
    return [
        ("".join(old[a0:a1]), "".join(new[b0:b1]))
        for kind, a0, a1, b0, b1 in found
        if kind != "equal"
    ]


def carried_over(edit: Edit, others: Iterable[str]) -> tuple[Edit, ...]:
    """``edit`` itself, then one for each of ``others`` that holds a word it replaced.

    Only replacements and deletions of whole words are carried over: an insertion has no place in
    another text.
    """
    replaced = [(old, new) for old, new in changes(edit) if re.search(r"\w", old)]
    found = [edit]
    for text in others:
        edited = text
        for old, new in replaced:
            pieces = re.split(rf"(?<!\w){re.escape(old)}(?!\w)", edited)
            edited = new.join(pieces)
        if edited != text and edited.strip():
            found.append(Edit(text, edited))
    return tuple(found)


def words_of(text: str) -> tuple[str, ...]:
    """Named words out of what somebody typed: parted by commas or lines, each once."""
    return tuple(dict.fromkeys(w.strip() for w in re.split(r"[,;\n]", text) if w.strip()))


def hits(text: str, words: Sequence[str]) -> tuple[str, ...]:
    """Which of ``words`` stand in ``text`` as whole words, whatever their case."""
    return tuple(word for word in words if _pattern(word).search(text))


def hits_at(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Where they stand, in order and without overlaps."""
    found = sorted(match.span() for word in words for match in _pattern(word).finditer(text))
    kept: list[tuple[int, int]] = []
    for low, high in found:
        if not kept or low >= kept[-1][1]:
            kept.append((low, high))
    return kept


def _pattern(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)


Place = Literal["token", "last", "prompt"]
"""Where in the prompt the direction is added: at the token that was read, at the prompt's last
token, at all of its tokens."""

LONGEST_EDIT: Final = 1500
LONGEST_PROMPT: Final = 2000
LONGEST_WORD: Final = 40
MOST_WORDS: Final = 16
MOST_ALPHAS: Final = 8
MOST_SEEDS: Final = 100
MOST_NEW_TOKENS: Final = 80
MOST_CONTINUATIONS: Final = 1200
LARGEST_ALPHA: Final = 10.0
DEFAULT_ALPHAS: Final = (0.25, 0.5, 0.75)
DEFAULT_TEMPERATURE: Final = 0.8


class Arm(StrEnum):
    """What is added: nothing, the edit's direction, or a random one of the same length."""

    BASELINE = "baseline"
    STEERED = "steered"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Edit:
    """An explanation before and after somebody changed it."""

    original: str
    edited: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """``prompt`` is a plain text; where it is empty, ``token_ids`` are those of a transcript.

    ``read_at`` is the token whose vector the explanations are about, None for the last one.
    ``alphas`` are lengths in units of that vector's own; ``every`` adds to each new token, too.
    Seeds are ``first_seed`` and the ``n_seeds - 1`` after it, the same for all arms.
    """

    pair: str
    edits: tuple[Edit, ...]
    prompt: str = ""
    token_ids: tuple[int, ...] = ()
    read_at: int | None = None
    place: Place = "token"
    every: bool = True
    alphas: tuple[float, ...] = DEFAULT_ALPHAS
    words: tuple[str, ...] = ()
    first_seed: int = 0
    n_seeds: int = 20
    new_tokens: int = 24
    temperature: float = DEFAULT_TEMPERATURE

    @property
    def key(self) -> str:
        """Twelve hex digits: the same for the same experiment."""
        return short_hash(self.as_json())

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.first_seed, self.first_seed + self.n_seeds))

    @property
    def n_continuations(self) -> int:
        return self.n_seeds * (1 + 2 * len(self.alphas))

    def as_json(self) -> dict[str, Any]:
        """JSON-able; ``of_json`` gives the same experiment back."""
        return asdict(self)

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Experiment:
        """Raises NLAError where ``value`` is not what ``as_json`` writes."""
        try:
            given = {**value, "edits": tuple(Edit(**edit) for edit in value["edits"])}
            for name in ("token_ids", "alphas", "words"):
                given[name] = tuple(given.get(name, ()))
            return cls(**given)
        except (KeyError, TypeError) as error:
            known = ", ".join(field.name for field in fields(cls))
            raise NLAError(
                "This is not a steering experiment",
                why=f"{type(error).__name__}: {error}",
                fix=f"Its fields are {known}",
            ) from None

    def checked(self) -> Experiment:
        """The experiment, if it can be run. Raises NLAError that says what cannot be."""
        for holds, what, why, fix in self._rules():
            if not holds:
                raise NLAError(what, why=why, fix=fix)
        return self

    def _rules(self) -> list[tuple[bool, str, str, str]]:
        lengths = [len(text) for edit in self.edits for text in (edit.original, edit.edited)]
        numbers = [*self.alphas, self.temperature]
        return [
            (
                bool(self.prompt.strip() or self.token_ids),
                "There is no prompt",
                "steering changes how the model goes on, and there is nothing to go on from",
                "Type a text, or come from a reading",
            ),
            (
                len(self.prompt) <= LONGEST_PROMPT,
                "The prompt is too long",
                f"it has {len(self.prompt):,} characters, and the limit is {LONGEST_PROMPT:,}",
                "Shorten it",
            ),
            (
                bool(self.edits) and all(edit.edited.strip() for edit in self.edits),
                "The edited explanation is empty",
                "an empty text says nothing of a direction",
                "Write what the model should represent instead",
            ),
            (
                all(edit.original.strip() for edit in self.edits),
                "There is no explanation to edit",
                "the direction leads from one text to another, and the first one is empty",
                "Read the token first, or type what it says",
            ),
            (
                max(lengths, default=0) <= LONGEST_EDIT,
                "The explanation is too long",
                f"it has {max(lengths, default=0):,} characters, the limit is {LONGEST_EDIT:,}",
                "Shorten it",
            ),
            (
                any(edit.original.strip() != edit.edited.strip() for edit in self.edits),
                "Nothing was edited",
                "both texts are the same, so the difference of their vectors is zero",
                "Change a word of the explanation",
            ),
            (
                all(math.isfinite(number) for number in numbers),
                "A number is not finite",
                f"found {', '.join(map(str, numbers))}",
                "Use plain numbers for α and the temperature",
            ),
            (
                0 < len(self.alphas) <= MOST_ALPHAS
                and len(set(self.alphas)) == len(self.alphas)
                and all(0 < abs(alpha) <= LARGEST_ALPHA for alpha in self.alphas),
                "The sweep of α cannot be run",
                f"it needs 1 to {MOST_ALPHAS} different values other than 0, none beyond "
                f"{LARGEST_ALPHA:g}; found {', '.join(f'{a:g}' for a in self.alphas) or 'none'}",
                "Name the values, such as 0.5, 1, 2; 0 is always there, as the baseline",
            ),
            (
                len(self.words) <= MOST_WORDS
                and all(0 < len(word.strip()) <= LONGEST_WORD for word in self.words),
                "The named words cannot be followed",
                f"there may be {MOST_WORDS}, of up to {LONGEST_WORD} characters each",
                "Name fewer or shorter words",
            ),
            (
                1 <= self.n_seeds <= MOST_SEEDS and 0 <= self.first_seed < 2**31 - MOST_SEEDS,
                "The seeds cannot be used",
                f"there may be 1 to {MOST_SEEDS}, from 0 on; found {self.n_seeds} from "
                f"{self.first_seed}",
                "Choose another number of seeds",
            ),
            (
                0 <= self.temperature <= 2 and 1 <= self.new_tokens <= MOST_NEW_TOKENS,
                "The sampling settings are out of range",
                f"temperature is 0 to 2 and new tokens 1 to {MOST_NEW_TOKENS}; found "
                f"{self.temperature:g} and {self.new_tokens}",
                "Choose other values",
            ),
            (
                self.n_continuations <= MOST_CONTINUATIONS,
                "The experiment is too large",
                f"{self.n_seeds} seeds for the baseline and twice for each of {len(self.alphas)} "
                f"values of α are {self.n_continuations:,} texts; the limit is "
                f"{MOST_CONTINUATIONS:,}",
                "Choose fewer seeds or fewer values of α",
            ),
            (
                self.place in get_args(Place),
                f"There is no place “{self.place}”",
                f"places are {', '.join(get_args(Place))}",
                "Choose one of them",
            ),
        ]
