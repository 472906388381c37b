"""What a language model is asked about a prefix, and what is kept of its answer.

Knows the question's wording and the forms in which models wrap an answer. Knows nothing of how the
model is reached. The decision a reader would question: the teacher is shown the target's own next
tokens; it would guess others, while the vector holds the target's.
"""

from __future__ import annotations

import re

from nla_core.schema import Section
from precompute.train.labels import next_words, tidy
from precompute.train.teachers.base import LabelRequest

VERSION = 1
"""Raised when a changed wording should make new labels."""
SNIPPETS = 3
SNIPPET_CHARACTERS = 180
MIN_LETTERS = 8
SHOWN_CHARACTERS = 3000
"""The end of longer prefixes is shown."""

_QUESTION = """\
Between the lines of dashes stands the beginning of {kind}. A language model has read exactly \
this much, not a token more, and is now about to predict the next token.

-----
{text}
-----

The last token it read is "{last}"{where}. What it expects to come next, likeliest first: {top}.

What would a model that has read exactly this prefix be using to make that prediction? Answer \
with two or three short snippets, one a line, each of at most twenty words, from the wide to the \
narrow. Begin with what kind of text this is and what it is about. If something is still open (a \
sentence, a list, a quotation, a rhyme, a piece of code), say what it asks for. The last snippet \
is about the final token: the word or phrase that it ends, quoted with the words before it, and \
what that leads to. Say nothing about text that has not come yet beyond what is expected. Write \
the snippets only."""


def question(request: LabelRequest) -> str:
    """The message sent to a teacher about one request."""
    text = request.text
    if len(text) > SHOWN_CHARACTERS:
        text = "…" + text[-SHOWN_CHARACTERS:]
    last = request.last
    where = ""
    if last.section is Section.TEMPLATE:
        where = f", markup before the {last.role}'s turn"
    elif request.is_chat:
        where = f", written by the {last.role}"
    top = ", ".join(f'"{w}"' for w in next_words(request.top_tokens, request.top_probs))
    return _QUESTION.format(
        kind="a conversation" if request.is_chat else "a text",
        text=text,
        last=tidy(last.text) or "\\n",
        where=where,
        top=top or "nothing in particular",
    )


_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_OPEN_THOUGHT = re.compile(r"<think(?:ing)?>.*", re.DOTALL)
# Only tags that wrap answers: quoted markup of the text itself must stay.
_TAG = re.compile(
    r"</?(?:explanation|answer|output|response|snippets?)\b[^<>]{0,40}>|<\|[^|<>]{0,40}\|>|^```\w*\s*$",
    re.MULTILINE | re.IGNORECASE,
)
_BULLET = re.compile(r"^\s*(?:[-*•–>#]+|\(?\d{1,2}[.):]|[a-c][.)]|snippet \d+[:.]?)\s+", re.I)
_OPENING = re.compile(
    r"(?:sure|certainly|of course|absolutely|okay|ok|great|no problem)\s*[,.!:]+\s*", re.I
)
_ANNOUNCEMENT = re.compile(
    r"(?:here (?:are|is|'s)|below (?:are|is)|these are|the following|i (?:would|will|'ll|can)|"
    r"(?:two|three|my|the) (?:short )?snippets?|based on|answer)\b[^:]{0,120}:\s*",
    re.I,
)
_REFUSAL = re.compile(
    r"(?:i'?m sorry|i am sorry|sorry,|i can'?t|i cannot|i'?m (?:not able|unable)|as an ai\b)", re.I
)


def cleaned(answer: str) -> str | None:
    """Two or three snippets, one a line, of a model's answer; None if nothing usable is left.

    Thoughts, tags, numbering, announcements and repetitions go; the last snippet always stays.
    """
    whole = answer.encode("utf-8", "ignore").decode()  # half a surrogate pair cannot be stored
    text = _OPEN_THOUGHT.sub("", _THOUGHT.sub("", whole.replace("\r", "")))
    text = _TAG.sub("", text).replace("**", "").replace("�", "").replace("\x00", "")
    snippets: list[str] = []
    for line in text.split("\n"):
        snippet = " ".join(_BULLET.sub("", line).split())
        if not snippets:
            snippet = _ANNOUNCEMENT.sub("", _OPENING.sub("", snippet, count=1), count=1)
        if re.search(r"\w", snippet) and snippet not in snippets:
            snippets.append(_shortened(snippet))
    if len(snippets) > SNIPPETS:
        snippets = [*snippets[: SNIPPETS - 1], snippets[-1]]
    label = "\n".join(snippets)
    if sum(c.isalpha() for c in label) < MIN_LETTERS or _REFUSAL.match(label):
        return None
    return label


def _shortened(snippet: str) -> str:
    """At most SNIPPET_CHARACTERS, cut after a word."""
    if len(snippet) <= SNIPPET_CHARACTERS:
        return snippet
    head = snippet[: SNIPPET_CHARACTERS - 1]
    return (head.rsplit(" ", 1)[0] if " " in head else head).rstrip(",;:") + "…"
