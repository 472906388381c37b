"""What a language model is asked about the beginning of a text, and what is kept of its answer.

The teacher is shown the target's own next tokens: it would guess others, while the vector holds the
target's. A note is asked for without them, because notes do not depend on a target.
"""

from __future__ import annotations

import re

from nla_core.models.chat import Prompt
from nla_core.schema import Section
from precompute.train.labels import next_words, tidy
from precompute.train.teachers import LabelRequest

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


# ---- notes ---------------------------------------------------------------------------------------

GUIDELINES = """\
Write one line of 11 to 22 words in two parts with a semicolon between them: first what this is, \
then what is happening just here.
First part: the kind of text, or what somebody does by saying it; who speaks to whom, if that \
shows; what the user wants; the subject in concrete words.
Second part: what the last few words before the mark are doing: the step, the claim, the thing \
being named, the tone, what has to follow in sense.
Use only what stands before the mark; where little has been said, say little. Write common \
English, also for code and for other languages, and name the language then. No quotation marks. Do \
not speak of a model, a mark or the text as such. Begin with a capital and end with a full stop.
Name what an attentive person notices: a mood, an intention, a refusal, flattery, a hedge, a rule \
or secret in a system prompt, a test, a role, a rhyme that is due, a false premise, a step of a \
sum, a step of code, an ending in sight.

Examples:
[user] The kettle I ordered leaks and I want
Complaint about a leaking kettle that was ordered; demand being put, curt.
[system] You are a travel agent. Never name prices. [user] So what does the night train
Travel agent forbidden to name prices; user begins to ask for exactly that.
[assistant] 14 boxes of 6 make 14 × 6 = 60 + 24 =
Multiplication of boxes worked in parts; the sum of the two parts is due."""

_NOTE_QUESTION = """\
{guidelines}

Between the lines of dashes stands the beginning of {kind}; the mark is where it ends.

-----
{text}
-----

Write the note for this mark, the one line only."""


def note_question(prompt: Prompt, turn: int, end: int) -> str:
    """The message that asks for the note at character ``end`` of message ``turn``."""
    if isinstance(prompt, str):
        kind, text = "a text", prompt[:end]
    else:
        said = [*prompt[:turn], {**prompt[turn], "content": prompt[turn]["content"][:end]}]
        text = "\n\n".join(f"[{message['role']}] {message['content']}" for message in said)
        kind = "a conversation"
    return _NOTE_QUESTION.format(guidelines=GUIDELINES, kind=kind, text=text)


def note_of(answer: str) -> str:
    """The note in a model's answer, without what models wrap it in; empty where there is none."""
    first, *_ = (cleaned(answer) or "").split("\n")
    return "" if first.endswith("…") else first.strip('"“” ')
