"""What an explanation claims, read off its wording: quotations, and the words named as next.

Knows the forms that labels and verbalizers write: double quotes, straight or curly, and a field
``next: a / b / c``. Knows nothing of vectors or models. The decision a reader would question: it
reads tolerantly, since a verbalizer that learned the form imitates it imperfectly; what stands in
the field ``next`` is never counted as a quotation, because it claims what comes, not what was read.
"""

from __future__ import annotations

import re

END = "[end]"
"""How an explanation writes that the text or the turn ends."""

_QUOTE = re.compile(r'"([^"]*)"|“([^“”]*)”')
_NEXT = re.compile(r"\bnext(?:\s+(?:tokens?|words?))?\s*[:=]\s*", re.IGNORECASE)
_FIELD_AFTER = re.compile(r"\.?(?<!/)\s+[^\W\d_]+(?: [^\W\d_]+)?:\s|\n|;\s")
_MARKUP = re.compile(r"<\|?[^<>\s]+\|?>")
_WRAPPED = re.compile(r"""^(["'`“])(.+)(["'`”])$""", re.DOTALL)


def next_words(text: str) -> list[str]:
    """The words of the field ``next``, in order, as ``as_word`` writes them; [] without a field."""
    return [word for _, _, word in next_items(text)]


def next_items(text: str) -> list[tuple[int, int, str]]:
    """(start, end, word) of each distinct word of the field ``next``; [] without a field."""
    span = next_span(text)
    if span is None:
        return []
    body = text[span[0] : span[1]]
    separator = r"\s+/\s+"
    if not re.search(separator, body.strip()):
        separator = "/" if "/" in body.strip().strip("/") else ", "
    items: dict[str, tuple[int, int, str]] = {}
    at = 0
    for gap in [*re.finditer(separator, body), None]:
        part = body[at : gap.start() if gap else len(body)]
        stripped = part.strip()
        if word := as_word(_WRAPPED.sub(r"\2", stripped)):
            start = span[0] + at + part.index(stripped)
            items.setdefault(word, (start, start + len(stripped), word))
        at = gap.end() if gap else len(body)
    return list(items.values())


def as_word(token: str) -> str:
    """A token as an explanation would name it: one line, no spaces around, case forgotten.

    Markup such as ``<|im_end|>`` reads ``[end]``; "" for a token that holds nothing to name.
    """
    if _MARKUP.fullmatch(token.strip()):
        return END
    text = token.replace("\ufffd", "").replace('"', "'").replace("\r", "")
    return text.replace("\n", "\\n").replace("\t", "\\t").strip().casefold()


def quotes(text: str) -> list[str]:
    """Quoted spans that claim to be read from the context, in order; empty ones are left out."""
    return [found for _, _, found in quote_spans(text)]


def without_quotes(text: str) -> str:
    """The prose alone: every quotation taken out with its marks."""
    kept, at = [], 0
    for start, end, _ in quote_spans(text):
        kept.append(text[at:start])
        at = end
    return re.sub(r"\s+", " ", "".join([*kept, text[at:]])).strip()


def only_quotes(text: str) -> str:
    """The quotations alone, without their marks, in order."""
    return " ".join(quotes(text))


def stands_in(quote: str, context: str) -> bool:
    """Whether a quotation stands in the context, forgetting case, spaces and a speaker's name."""
    if wanted := _plain(quote):
        return wanted in _plain(context)
    blank = quote.replace("\\n", "\n").replace("\\t", "\t")  # a quoted line break, or nothing
    return bool(blank) and blank in context


def quote_spans(text: str, *, next_too: bool = False) -> list[tuple[int, int, str]]:
    """(start, end, what is quoted) of each quotation, its marks inside of the range.

    Those in the field ``next`` are left out, unless ``next_too``.
    """
    low, high = (next_span(text) if not next_too else None) or (len(text), len(text))
    found = []
    for match in _QUOTE.finditer(text):
        body = (match[1] if match[1] is not None else match[2]).strip()
        if body and not low <= match.start() < high:
            found.append((match.start(), match.end(), body))
    return found


def next_span(text: str) -> tuple[int, int] | None:
    """Where the body of the field ``next`` stands: up to the next field, line or the end.

    The full stop that closes the field is left out, one that is itself named as next is not. A
    ``next:`` inside a quotation is somebody else's text, not a field.
    """
    quoted = [(m.start(), m.end()) for m in _QUOTE.finditer(text)]
    for match in _NEXT.finditer(text):
        if any(start < match.start() < end for start, end in quoted):
            continue
        after = _FIELD_AFTER.search(text, match.end())
        end = after.start() if after else len(text)
        if after is None or ":" not in after[0]:  # a field that follows has taken the full stop
            body = text[match.end() : end].rstrip()
            if len(body) > 1 and body.endswith(".") and not re.search(r"/\s+\.$", body):
                end = match.end() + len(body) - 1
        return match.end(), end
    return None


def _plain(text: str) -> str:
    text = re.sub(r"^\[(user|assistant|system)\]", "", text.replace("\\n", " ").replace('"', "'"))
    text = re.sub(r"\s+", " ", text.replace("\\t", " ").replace("\ufffd", "")).strip().casefold()
    return re.sub(r"^(?:…|\.\.\.)\s*|\s*(?:…|\.\.\.)$", "", text)
