"""Labels without any LLM: what a model would be using here to predict the next token.

Knows how to word the place in the text, the last words, the target's own next-token predictions,
the topic of what came earlier, and the text that leads up to the token. Knows nothing of vectors.
The decision a reader would question: the last words are quoted first and the running text stands
at the very end. The AV writes left to right, so it settles on what its vector shows most plainly
and only then spells out how the text arrives there; and the AR, which reads the explanation's last
token, stands where the target stood: a frozen target that re-reads six tokens so already scores an
FVE of .55.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nla_core.models.chat import Piece
from nla_core.schema import Role, Section

QUOTED_WORDS = 2
TAIL_TOKENS = (5, 9)  # tokens of running text, drawn a label
NEXT_TOKENS = 3
TOPIC_WORDS = (1, 3)
DROP_RATE = 0.08  # each optional field is left out this often, so that RL finds both forms
MIN_NEXT_PROB = 0.03
RECENCY = 0.985  # a topic word's weight falls by this factor per token of distance
GENRE_WINDOW = 400  # characters before the token that decide its genre

_WORD = re.compile(r"[A-Za-z][A-Za-z'-]{3,}")
_CODE = re.compile(r"[{};]|\bdef \w+\(|\w\(\)|</\w|=>|==|\bSELECT\b|\bimport \w")
_LIST = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
_SPEECH = re.compile(r"^[A-Z][\w ]{0,20}:\s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Idf:
    """Inverse document frequencies of lower-cased words; unseen words count as rarest."""

    weights: dict[str, float]
    default: float

    @classmethod
    def fit(cls, texts: Iterable[str]) -> Idf:
        counts: Counter[str] = Counter()
        n = 0
        for text in texts:
            n += 1
            counts.update({w.lower() for w in _WORD.findall(text)})
        weights = {w: math.log((n + 1) / (c + 1)) for w, c in counts.items() if c > 1}
        return cls(weights, math.log(n + 1))

    def __getitem__(self, word: str) -> float:
        return self.weights.get(word, self.default)


def structured_label(
    pieces: Sequence[Piece],
    top_tokens: Sequence[str],
    top_probs: Sequence[float],
    idf: Idf,
    *,
    rng: random.Random | None = None,
) -> str:
    """The label of the last token of ``pieces``; ``top_*`` are the target's predictions there.

    ``rng`` varies the length of the fields and leaves some out; without it (test sets) every field
    is there at its middle length.
    """
    length = rng.randint(*TAIL_TOKENS) if rng else sum(TAIL_TOKENS) // 2
    tail = tail_text(pieces, length)
    parts = [f'{place(pieces)}, at "{last_words(pieces)}".']
    following = next_words(top_tokens, top_probs)
    if following and not _dropped(rng):
        parts.append(f"Next: {' / '.join(following)}.")
    n_topics = rng.randint(*TOPIC_WORDS) if rng else sum(TOPIC_WORDS) // 2
    topic = topic_words(pieces, tail, idf)[:n_topics]
    if topic and not _dropped(rng):
        parts.append(f"About: {', '.join(topic)}.")
    return " ".join([*parts, f"Text: {tail}"])


def note_label(
    note: str,
    pieces: Sequence[Piece],
    top_tokens: Sequence[str],
    top_probs: Sequence[float],
    *,
    rng: random.Random | None = None,
) -> str:
    """A label in natural language: the note, the target's next tokens, the running text.

    The note comes first because that is what people read; the running text comes last because the
    AR reads the last token. See docs/experiments.md for what was measured.
    """
    length = rng.randint(*TAIL_TOKENS) if rng else sum(TAIL_TOKENS) // 2
    parts = [tidy(note)]
    if following := next_words(top_tokens, top_probs):
        parts.append(f"Next: {' / '.join(following)}.")
    return " ".join([*parts, f"Text: {tail_text(pieces, length)}"])


@dataclass(frozen=True, slots=True)
class LabelParts:
    """A label of the natural form, cut at its field names; a part that is missing is empty."""

    note: str
    following: str
    text: str


_PARTS = re.compile(
    r"^(?P<note>.*?)(?:(?:^|\s)Next: (?P<next>.*?)\.?)?(?:(?:^|\s)Text: (?P<text>.*))?$",
    re.DOTALL,
)


def label_parts(label: str) -> LabelParts:
    """The note, the next tokens and the running text of a label or of an AV's explanation."""
    found = _PARTS.match(label)
    assert found is not None, "every part is optional"
    return LabelParts(
        found["note"].strip(), (found["next"] or "").strip(), (found["text"] or "").strip()
    )


_WHOLE = re.compile(
    r"(?P<head>.*?)(?: (?P<next>Next: .*?\.))?(?: (?P<about>About: .*?\.))? (?P<text>Text: .*)",
    re.DOTALL,
)


def parts_of_label(label: str) -> list[str]:
    """A label's parts in order: place or note, ``Next:``, ``About:``, ``Text:``, as far as there.

    A label of another form, such as a teacher's, is one part. Joined by spaces, the parts are the
    label again.
    """
    found = _WHOLE.fullmatch(label)
    return [label] if found is None else [part for part in found.groups() if part]


def without_parts(label: str, rate: float, rng: random.Random) -> str:
    """The label with each of its parts left out at ``rate``, but never all of them."""
    parts = parts_of_label(label)
    kept = [part for part in parts if rng.random() >= rate]
    return " ".join(kept or [rng.choice(parts)])


def place(pieces: Sequence[Piece]) -> str:
    """Who speaks, and what kind of text it is: ``Answer, prose``; raw text has no speaker."""
    last = pieces[-1]
    is_raw = all(p.section is Section.CONTENT and p.turn == 0 for p in pieces)
    speaker = {Role.USER: "User", Role.ASSISTANT: "Answer", Role.SYSTEM: "System"}[last.role]
    return f"{'Text' if is_raw else speaker}, {genre(_turn_text(pieces)[-GENRE_WINDOW:])}"


def genre(text: str) -> str:
    """``code``, ``list``, ``speech``, ``numbers`` or ``prose``, by marks that are easy to see."""
    if len(_CODE.findall(text)) >= 2:
        return "code"
    if len(_LIST.findall(text)) >= 2:
        return "list"
    if len(_SPEECH.findall(text)) >= 2 or text.count('"') >= 4:
        return "speech"
    if sum(c.isdigit() for c in text) > 0.08 * len(text):
        return "numbers"
    return "prose"


def last_words(pieces: Sequence[Piece], count: int = QUOTED_WORDS) -> str:
    """The last ``count`` words of the token's turn up to the token, as they can be quoted."""
    text = _turn_text(pieces)
    words = tidy(text[-120:]).split(" ")
    return " ".join(words[-count:]).strip() or "\\n"


def tail_text(pieces: Sequence[Piece], length: int) -> str:
    """The last words verbatim; where a turn began within them, its speaker stands in brackets."""
    last = pieces[-1]
    start = len(pieces) - 1
    while start > 0 and len(pieces) - start < length and _same_turn(pieces[start - 1], last):
        start -= 1
    opened = start > 0 and not _same_turn(pieces[start - 1], last)
    if not opened:
        # Begin at a word, not in the middle of one, as long as two tokens remain.
        while start < len(pieces) - 2 and not pieces[start].text[:1].isspace():
            start += 1
    text = tidy("".join(p.text for p in pieces[start:])) or "\\n"
    return f"[{last.role}] {text}" if opened else text


def next_words(top_tokens: Sequence[str], top_probs: Sequence[float]) -> list[str]:
    """Up to three distinct likely continuations; end-of-turn markup reads ``[end]``."""
    found: list[str] = []
    for token, prob in zip(top_tokens, top_probs, strict=True):
        word = "[end]" if token.startswith("<|") else tidy(token)
        if word and word not in found and (prob >= MIN_NEXT_PROB or not found):
            found.append(word)
    return found[:NEXT_TOKENS]


def topic_words(pieces: Sequence[Piece], tail: str, idf: Idf) -> list[str]:
    """Words before the tail by TF-IDF, the heaviest first, recent ones weighing more."""
    weights: dict[str, float] = {}
    text, ends = "", []
    for piece in pieces:
        text += piece.text if piece.section is Section.CONTENT else "\n"
        ends.append(len(text))
    in_tail = {w.lower() for w in _WORD.findall(tail)}
    index = 0
    for match in _WORD.finditer(text):
        while ends[index] < match.end():
            index += 1
        word = match.group().lower()
        if word not in in_tail:
            recency = RECENCY ** (len(pieces) - 1 - index)
            weights[word] = weights.get(word, 0.0) + idf[word] * recency
    return sorted(weights, key=lambda word: -weights[word])


def tidy(text: str) -> str:
    """One line, no double quotes: what can stand between quotes in a label."""
    text = text.replace("�", "").replace('"', "'").replace("\r", "")
    return text.replace("\n", "\\n").replace("\t", "\\t").strip()


def _turn_text(pieces: Sequence[Piece]) -> str:
    return "".join(p.text for p in pieces if _same_turn(p, pieces[-1]))


def _same_turn(piece: Piece, last: Piece) -> bool:
    return piece.section is Section.CONTENT and piece.turn == last.turn


def _dropped(rng: random.Random | None) -> bool:
    return rng is not None and rng.random() < DROP_RATE
