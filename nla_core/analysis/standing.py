"""The rule: a claim is said, foreseen, unspoken, not found or unclear.

Its numbers are read from a fitted file; nothing in the rule is tuned by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import numpy as np

from nla_core.analysis.claims import END, STATEMENTS, Claim, Kind, as_word, without_quotes
from nla_core.analysis.semantic import Embed, Near, SemanticIndex
from nla_core.analysis.visible import (
    Span,
    Visible,
    Word,
    about_speech,
    about_texts,
    plain_quote,
    words,
)
from nla_core.data.files import sha256_json
from nla_core.errors import NLAError
from nla_core.schema import Role

THRESHOLDS_FILE = Path(__file__).with_name("thresholds.json")

RULE_VERSION = 1
"""Raised when the rule itself changes what it says for the same thresholds."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """All between 0 and 1. ``word_*`` are cosines of single words, ``sentence_*`` mixed scores of
    shared words and meaning, of which ``sentence_mix`` is the weight of the words.
    """

    word_said: float
    word_foreseen: float
    word_unspoken: float
    sentence_mix: float
    sentence_said: float
    sentence_foreseen: float
    sentence_unspoken: float

    @property
    def key(self) -> str:
        """12 hex digits that change with any threshold and with the rule."""
        return sha256_json({"rule": RULE_VERSION, **asdict(self)})[:12]

    @classmethod
    def load(cls, path: Path = THRESHOLDS_FILE) -> Thresholds:
        """Raises NLAError for a file that is missing, lacks a field or holds no share."""
        wanted = [field.name for field in fields(cls)]
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            values = {name: float(data[name]) for name in wanted}
            bad = [name for name, value in values.items() if not 0.0 <= value <= 1.0]
            if bad:
                raise ValueError(f"{bad[0]} is {values[bad[0]]}, not between 0 and 1")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NLAError(
                f"The thresholds in {path} cannot be used",
                why=f"reading them gave: {error!r}",
                fix="Restore the file (git checkout) or fit it again: "
                "`python -m precompute eval-compare --fit`",
            ) from error
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one reading expects next. ``ranks`` are 1-based places in the target's top tokens, None
    for a word that is not among them; ``mass`` is the probability the target gives to all words
    named, at most 1; ``came`` says whether the token that came was named, None at the end."""

    words: tuple[str, ...]
    ranks: tuple[int | None, ...]
    mass: float
    came: bool | None

    @property
    def first_named(self) -> bool:
        """Whether the target's likeliest token is among the words."""
        return 1 in self.ranks


def expected_words(claims: Sequence[Claim]) -> tuple[str, ...]:
    """The words that claims name as next, in order, as ``as_word`` writes them; of a phrase, the
    first word."""
    found = [as_word(claim.text) for claim in claims if claim.kind is Kind.PREDICTION]
    return tuple(dict.fromkeys(word.split()[0] for word in found if word))


def expectation(
    claims: Sequence[Claim],
    top_tokens: Sequence[str],
    top_probs: Sequence[float],
    next_token: str | None,
) -> Expectation | None:
    """None for a reading that names no next word. ``top_tokens`` are likeliest first."""
    named = expected_words(claims)
    if not named:
        return None
    places: dict[str, list[int]] = {}
    for rank, token in enumerate(top_tokens, start=1):
        places.setdefault(as_word(token), []).append(rank)
    ranks = tuple(places[word][0] if word in places else None for word in named)
    hit = {rank for word in named for rank in places.get(word, ())}
    mass = sum(float(p) for rank, p in enumerate(top_probs, start=1) if rank in hit)
    came = as_word(next_token) in named if next_token is not None else None
    return Expectation(named, ranks, min(1.0, mass), came)


class Standing(StrEnum):
    SAID = "said"
    FORESEEN = "foreseen"
    UNSPOKEN = "unspoken"
    QUOTE_NOT_FOUND = "quote not found"
    UNCLEAR = "unclear"


STANDING_TEXT: dict[Standing, str] = {
    Standing.SAID: "stands in the visible text up to this token",
    Standing.FORESEEN: "stands only in the visible text after this token",
    Standing.UNSPOKEN: "stands nowhere in the visible text",
    Standing.QUOTE_NOT_FOUND: "is given as a quotation, and the transcript does not hold it",
    Standing.UNCLEAR: "cannot be held against the visible text with confidence",
}
"""What each says of a claim, for legends: 'this claim ...'."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``score`` is in [0, 1]: how well the evidence supports the claim; for ``unspoken`` how far
    the claim is from everything; for a quotation that is not found, the share of its words that
    stand together. ``evidence`` is None where there is nothing to point at."""

    standing: Standing
    score: float
    evidence: Span | None


_ROLES = {
    "user": Role.USER,
    "answer": Role.ASSISTANT,
    "assistant": Role.ASSISTANT,
    "system": Role.SYSTEM,
}

SIM_LOW, SIM_HIGH = 0.15, 0.75
"""Cosines of MiniLM between which a sentence goes from unrelated to the same thing said."""


class Meaning:
    """Similarities of all claims of one transcript to its windows and words, computed at once."""

    def __init__(self, visible: Visible, embed: Embed, claims: Sequence[Claim]) -> None:
        self.windows = SemanticIndex.of_windows(visible, embed)
        self._words = SemanticIndex.of_words(visible, embed)
        self._rows: dict[tuple[bool, str], np.ndarray] = {}
        for is_sentence in (True, False):
            index = self.windows if is_sentence else self._words
            wanted = [
                own_words(c)
                for c in claims
                if (c.kind in STATEMENTS) is is_sentence
                and c.kind not in (Kind.QUOTE, Kind.TEXT, Kind.PLACE)
            ]
            wanted = list(dict.fromkeys(wanted))
            if wanted:
                rows = index.similarities(embed(wanted))
                self._rows.update(((is_sentence, t), r) for t, r in zip(wanted, rows, strict=True))

    def nearest(self, claim: Claim, position: int) -> tuple[Near | None, Near | None]:
        """(best up to the token, best after it); a sentence to windows, anything else to words."""
        is_sentence = claim.kind in STATEMENTS
        index = self.windows if is_sentence else self._words
        return index.nearest(self._rows[is_sentence, own_words(claim)], position)


def judge(
    claim: Claim,
    visible: Visible,
    position: int,
    meaning: Meaning | None,
    thresholds: Thresholds,
) -> Verdict:
    """The standing of one claim of the reading at ``position``.

    Without ``meaning`` only words count: the lexical baseline.
    """
    match claim.kind:
        case Kind.PLACE:
            return _place(claim, visible, position)
        case Kind.QUOTE | Kind.TEXT:
            return _quotation(claim.text, visible, position)
        case Kind.PREDICTION:
            return _expected(claim, visible, position, meaning, thresholds)
        case Kind.SENTENCE | Kind.WHAT | Kind.NOW:
            return _sentence(claim, visible, position, meaning, thresholds)
        case _:
            return _topic(claim, visible, position, meaning, thresholds)


def content_words(claim: Claim) -> tuple[Word, ...]:
    """The words by which a claim is judged: content words, in a sentence none about texts, in a
    note none about speech either.

    ``[end]`` is a mark, not a word.
    """
    if claim.kind is Kind.PREDICTION and as_word(claim.text) == END:
        return ()
    return _content_words(own_words(claim), claim.kind)


@lru_cache(maxsize=65_536)  # the same few thousand words are claimed over and over
def _content_words(text: str, kind: Kind) -> tuple[Word, ...]:
    found = [word for word in words(text) if word.is_content]
    if kind in STATEMENTS:
        found = [word for word in found if not about_texts(word)]
    if kind in (Kind.WHAT, Kind.NOW):
        found = [word for word in found if not about_speech(word)]
    return tuple(found)


def own_words(claim: Claim) -> str:
    """What a sentence says in its own words: its quotations are claims of their own."""
    return without_quotes(claim.text) if claim.kind in STATEMENTS else claim.text


def _place(claim: Claim, visible: Visible, position: int) -> Verdict:
    role = _ROLES.get(claim.text.casefold())
    if role is None:  # "Text": raw text, which has no speaker
        return Verdict(Standing.UNCLEAR, 0.0, None)
    if visible.roles[position] == role:
        return Verdict(Standing.SAID, 1.0, None)
    later = role in visible.roles[position + 1 :]
    return Verdict(Standing.FORESEEN if later else Standing.UNSPOKEN, 1.0, None)


def _quotation(quote: str, visible: Visible, position: int) -> Verdict:
    before, after = visible.find_quote(quote, position)
    if before is not None:
        return Verdict(Standing.SAID, 1.0, before)
    if after is not None:
        return Verdict(Standing.FORESEEN, 1.0, after)
    if not plain_quote(quote):  # blanks alone: a quoted line break
        blank = quote.replace("\\n", "\n").replace("\\t", "\t")
        at = visible.text.rfind(blank, 0, visible.cut(position)) if blank else -1
        if at >= 0:
            return Verdict(Standing.SAID, 1.0, visible.span(at, at + len(blank)))
    share, run = visible.longest_run(quote, position)
    return Verdict(Standing.QUOTE_NOT_FOUND, share, run)


def _expected(
    claim: Claim, visible: Visible, position: int, meaning: Meaning | None, limits: Thresholds
) -> Verdict:
    word = as_word(claim.text)
    if word == END:
        ends = position + 1 >= len(visible) or visible.ends[position + 1] == visible.cut(position)
        return Verdict(Standing.FORESEEN if ends else Standing.UNCLEAR, float(ends), None)
    if (came := comes_next(word, visible, position)) is not None:
        return Verdict(Standing.FORESEEN, 1.0, came)
    if len(words(word)) > 1:
        quoted = _quotation(claim.text, visible, position)
        if quoted.standing is not Standing.QUOTE_NOT_FOUND:
            return quoted
    return _topic(claim, visible, position, meaning, limits)


def comes_next(word: str, visible: Visible, position: int) -> Span | None:
    """Where an expected word stands if it is what the visible text goes on with; else None.

    An inflected form counts, and so does the rest of a word that the token has begun. A word is
    what comes next even if a punctuation mark comes before it; a line break is not passed over.
    """
    cut = visible.cut(position)
    rest = visible.text[cut : cut + len(word) + 8]
    literal = word.replace("\\n", "\n").replace("\\t", "\t")
    for lead in dict.fromkeys((0, len(rest) - len(rest.lstrip(" ")))):
        end = lead + len(literal)
        if literal and rest[lead:end].casefold() == literal:
            following = visible.text[cut + end : cut + end + 1]
            if not (literal[-1].isalnum() and following.isalnum()):
                return visible.span(cut + lead, cut + end)
    named = words(word)
    at = visible.words_before(position)
    if len(named) == 1 and at < len(visible.words):
        coming = visible.words[at]
        gap = visible.text[cut : coming.start]
        if coming.start >= cut and coming.stem == named[0].stem and "\n" not in gap:
            return visible.span(coming.start, coming.end)
    return None


def _topic(
    claim: Claim, visible: Visible, position: int, meaning: Meaning | None, limits: Thresholds
) -> Verdict:
    named = content_words(claim)
    if not named:
        return Verdict(Standing.UNCLEAR, 0.0, None)
    places = [visible.find_word(word.stem, position) for word in named]
    if all(before for before, _ in places):
        return Verdict(Standing.SAID, 1.0, _around(visible, [b for b, _ in places if b]))
    if all(before or after for before, after in places):
        later = [after for before, after in places if not before and after]
        return Verdict(Standing.FORESEEN, 1.0, _around(visible, later))
    # 14 is not nearly 15, nor Peru nearly Chile; and the encoder reads Latin script only.
    if claim.kind is Kind.NAME or any(w.is_number or not w.text.isascii() for w in named):
        return Verdict(Standing.UNSPOKEN, 1.0, None)
    before, after = meaning.nearest(claim, position) if meaning else (None, None)
    if before and before.score >= limits.word_said:
        return Verdict(Standing.SAID, before.score, before.span)
    if after and after.score >= limits.word_foreseen:
        return Verdict(Standing.FORESEEN, after.score, after.span)
    return _far(before, after, 0.0, limits.word_unspoken)


def _sentence(
    claim: Claim, visible: Visible, position: int, meaning: Meaning | None, limits: Thresholds
) -> Verdict:
    named = content_words(claim)
    if not named:
        return Verdict(Standing.UNCLEAR, 0.0, None)
    limit = visible.words_before(position)
    so_far = [_agrees(word, visible, 0, limit) for word in named]
    at_all = [_agrees(word, visible, 0, len(visible.words)) for word in named]
    before, after = meaning.nearest(claim, position) if meaning else (None, None)
    mix = limits.sentence_mix if meaning else 1.0
    said = _mixed(so_far, before, mix)
    coming = _mixed(at_all, after, mix) if any(at_all) and at_all != so_far else 0.0
    firm = [_is_firm(word, visible) for word in named]
    hits = [hit for hit in so_far if hit]
    if said >= limits.sentence_said and _all_hit(so_far, firm):
        is_near = before is not None and before.score > SIM_HIGH / 2
        span = before.span if before and is_near else _around(visible, hits[-1:])
        return Verdict(Standing.SAID, said, span)
    if coming >= limits.sentence_foreseen and _all_hit(at_all, firm) and coming > said:
        later = [hit for hit, early in zip(at_all, so_far, strict=True) if hit and not early]
        return Verdict(Standing.FORESEEN, coming, _around(visible, later[:1]))
    best = max(said, coming)
    if best < limits.sentence_unspoken:
        return Verdict(Standing.UNSPOKEN, 1.0 - best, None)
    return Verdict(Standing.UNCLEAR, best, before.span if before else None)


def _agrees(word: Word, visible: Visible, low: int, high: int) -> Word | None:
    """The last such word among ``[low, high)`` that is negated as this one is; None without."""
    for index in reversed(visible.indices(word.stem)):
        if low <= index < high and visible.words[index].negated == word.negated:
            return visible.words[index]
    return None


def _is_firm(word: Word, visible: Visible) -> bool:
    """Whether meaning must not stand in for this word: a number, or one that the transcript has
    and only negated where the claim does not negate it, or the other way round."""
    found = visible.indices(word.stem)
    turned = bool(found) and all(visible.words[i].negated != word.negated for i in found)
    return word.is_number or turned


def _all_hit(hits: Sequence[Word | None], firm: Sequence[bool]) -> bool:
    return all(hit is not None for hit, is_firm in zip(hits, firm, strict=True) if is_firm)


def _mixed(hits: Sequence[Word | None], near: Near | None, mix: float) -> float:
    share = sum(hit is not None for hit in hits) / len(hits)
    if near is None:
        return mix * share if mix < 1.0 else share
    similarity = float(np.clip((near.score - SIM_LOW) / (SIM_HIGH - SIM_LOW), 0.0, 1.0))
    return mix * share + (1.0 - mix) * similarity


def _far(before: Near | None, after: Near | None, floor: float, limit: float) -> Verdict:
    best = max([floor, *(near.score for near in (before, after) if near)])
    if best < limit:
        return Verdict(Standing.UNSPOKEN, 1.0 - max(0.0, best), None)
    nearest = max((n for n in (before, after) if n), key=lambda near: near.score)
    return Verdict(Standing.UNCLEAR, best, nearest.span)


def _around(visible: Visible, found: Sequence[Word]) -> Span | None:
    """From the first to the last word if they stand close together, else the last one alone."""
    if not found:
        return None
    start, end = min(w.start for w in found), max(w.end for w in found)
    if end - start > 120:
        start, end = found[-1].start, found[-1].end
    return visible.span(start, end)
