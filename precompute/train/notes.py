"""An annotated corpus: texts with notes, one line each on what a reader would hold in mind.

A note stands at a mark, ``end`` characters into message ``turn``, and holds for what stands before
it. The form is that of ``docs/train-your-own.md``; anybody can bring such a file.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nla_core.errors import NLAError
from nla_core.models.chat import Piece, Prompt, prompt_ids, raw_pieces
from nla_core.prompts import json_of, messages_of, text_of
from nla_core.schema import Section
from precompute.train.corpus import Window

LONGEST_NOTE = 400
"""Characters. Longer ones are texts of their own and no label."""
REACH = 4
"""A note is the label of its mark's token and of up to this many tokens less one after it."""
OPENING = 2
GENERAL = "Opening words of a"
SPLITS = {"notes": 0.92, "val": 0.08}
"""Both halves learn from the same texts: they are few, and labels are what is scarce."""
MISTAKES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Note:
    turn: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class AnnotatedDocument:
    """``prompt`` is a conversation or a plain text; ``notes`` are in the order of their marks."""

    doc_id: str
    source: str
    prompt: Prompt
    notes: tuple[Note, ...]


def is_annotated(path: Path) -> bool:
    """Whether the first line of a JSON-lines file holds notes."""
    return "notes" in first_line(path)


def first_line(path: Path) -> Mapping[str, Any]:
    """The object in the first line of a JSON-lines file; empty where there is none."""
    if not path.name.endswith((".jsonl", ".jsonl.xz")):
        return {}
    try:
        with _opened(path) as lines:
            first = json_of(next(iter(lines), b"null").removeprefix(codecs.BOM_UTF8))
    except (OSError, EOFError, ValueError, lzma.LZMAError):
        return {}
    return first if isinstance(first, dict) else {}


def read_annotated(path: Path, *, with_notes: bool = True) -> list[AnnotatedDocument]:
    """All documents of an annotated file; ``with_notes=False`` reads the same form without notes.

    Raises NLAError that names the lines with mistakes; nothing is taken then.
    """
    documents: list[AnnotatedDocument] = []
    mistakes: list[str] = []
    ids: dict[str, int] = {}
    try:
        with _opened(path) as lines:
            for number, line in enumerate(lines, 1):
                line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if not line.strip():
                    continue
                try:
                    document = document_of(json_of(line), with_notes=with_notes)
                    if document.doc_id in ids:
                        raise ValueError(
                            f"field 'doc_id': {document.doc_id!r} stands in line "
                            f"{ids[document.doc_id]} too"
                        )
                except ValueError as error:
                    mistakes.append(f"line {number}: {error}")
                else:
                    ids[document.doc_id] = number
                    documents.append(document)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise NLAError(
            f"{path} cannot be read as an annotated corpus",
            why=str(error),
            fix="Give UTF-8 JSON lines, plain or packed with xz",
        ) from None
    if not documents and not mistakes:
        raise NLAError(f"{path} is empty", why="It holds no text", fix="Give JSON lines")
    refuse(path, mistakes, "not annotated texts" if with_notes else "not texts")
    return documents


def refuse(path: Path, mistakes: Sequence[str], what: str) -> None:
    """Raise NLAError that lists the first mistakes; return where there is none."""
    if not mistakes:
        return
    more = len(mistakes) - MISTAKES_SHOWN
    raise NLAError(
        f"{path} has {len(mistakes):,} lines that are {what}",
        why="; ".join(mistakes[:MISTAKES_SHOWN]) + (f"; and {more:,} more" if more > 0 else ""),
        fix="Correct or remove these lines; nothing was taken",
    )


def document_of(value: Any, *, with_notes: bool = True) -> AnnotatedDocument:
    """One line of an annotated file. Raises ValueError that begins with the field."""
    if not isinstance(value, dict):
        raise ValueError("expected an object")
    doc_id = text_of(value.get("doc_id"), "doc_id", 200)
    if ("text" in value) == ("messages" in value):
        raise ValueError("expected either 'text' or 'messages'")
    prompt: Prompt
    if "text" in value:
        prompt = text_of(value["text"], "text")
        turns = [prompt]
    else:
        prompt = messages_of(value["messages"], may_answer=True)
        turns = [message["content"] for message in prompt]
    given = value.get("notes") if with_notes else []
    if not isinstance(given, list) or (with_notes and not given):
        raise ValueError("field 'notes': expected a list of at least one note")
    notes = tuple(_note(note, i, turns) for i, note in enumerate(given))
    for i, (before, after) in enumerate(zip(notes, notes[1:], strict=False), 1):
        if (after.turn, after.end) <= (before.turn, before.end):
            raise ValueError(f"field 'notes[{i}]': its mark does not come after the one before")
    return AnnotatedDocument(doc_id, str(value.get("source") or "annotated"), prompt, notes)


def split_of(doc_id: str) -> str:
    """The split of an annotated document: a hash of its id, so that it never changes."""
    digest = hashlib.sha256(f"nla-notes:{doc_id}".encode()).digest()
    return "notes" if int.from_bytes(digest[:8], "big") / 2**64 < SPLITS["notes"] else "val"


def digest_of(documents: Sequence[AnnotatedDocument]) -> str:
    """Hex SHA-256 over everything the documents hold, in order."""
    digest = hashlib.sha256()
    for one in documents:
        notes = [[n.turn, n.end, n.text] for n in one.notes]
        prompt = one.prompt if isinstance(one.prompt, str) else [dict(m) for m in one.prompt]
        digest.update(json.dumps([one.doc_id, one.source, prompt, notes]).encode())
    return digest.hexdigest()


def window_of(document: AnnotatedDocument, tokenizer: Any, max_tokens: int) -> Window:
    """A whole document as the target reads it, cut at ``max_tokens``, with its notes by token."""
    if isinstance(document.prompt, str):
        ids = list(tokenizer(document.prompt)["input_ids"])
        pieces = raw_pieces(tokenizer, ids)
    else:
        ids, pieces = prompt_ids(tokenizer, document.prompt)
    ids, pieces = ids[:max_tokens], pieces[:max_tokens]
    marks = notes_by_position(pieces, document)
    is_chat = not isinstance(document.prompt, str)
    return Window(document.doc_id, document.source, tuple(ids), tuple(pieces), is_chat, notes=marks)


def notes_by_position(pieces: Sequence[Piece], document: AnnotatedDocument) -> Mapping[int, str]:
    """The note that labels a token: the nearest one at or before it, at most REACH tokens back.

    The first OPENING content tokens, where they have no note, get one that is true of any text.
    """
    spans = list(_content_spans(pieces, document.prompt))
    notes: dict[int, str] = {}
    first = None
    for note in document.notes:
        text = _turns(document.prompt)[note.turn]
        end = min(note.end, len(text.rstrip()))  # a template strips what stands after it
        after = [p for p, turn, until in spans if turn == note.turn and until >= end]
        if not after:
            continue  # beyond the cut
        first = after[0] if first is None else first
        notes.update(dict.fromkeys(after[:REACH], note.text))  # a nearer note comes later
    for position, _, _ in spans[:OPENING]:
        if first is not None and position < first:
            notes[position] = beginning(pieces[position], document)
    return notes


def beginning(piece: Piece, document: AnnotatedDocument) -> str:
    """What can honestly be said of a token with hardly anything before it."""
    if isinstance(document.prompt, str):
        return f"{GENERAL} text; kind and topic still open."
    speaker = {"user": "user's message", "assistant": "reply", "system": "system prompt"}
    return f"{GENERAL} {speaker[piece.role]}; topic and aim still open."


def is_general(note: str) -> bool:
    """Whether a note is one that `beginning` gives, true of any text."""
    return note.startswith(GENERAL)


def _content_spans(pieces: Sequence[Piece], prompt: Prompt) -> Iterator[tuple[int, int, int]]:
    """Position, turn, and characters of the message up to and with this token."""
    given = _turns(prompt)
    said: dict[int, str] = {}
    for position, piece in enumerate(pieces):
        if piece.section is not Section.CONTENT or not piece.text:
            continue
        said[piece.turn] = said.get(piece.turn, "") + piece.text
        stripped = len(given[piece.turn]) - len(given[piece.turn].lstrip())
        missing = 0 if given[piece.turn].startswith(said[piece.turn]) else stripped
        yield position, piece.turn, len(said[piece.turn]) + missing


def _turns(prompt: Prompt) -> list[str]:
    return [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]


def _note(value: Any, index: int, turns: Sequence[str]) -> Note:
    field = f"notes[{index}]"
    if not isinstance(value, dict):
        raise ValueError(f"field '{field}': expected an object with turn, end and note")
    turn, end = value.get("turn"), value.get("end")
    if type(turn) is not int or not 0 <= turn < len(turns):
        raise ValueError(f"field '{field}.turn': expected 0 to {len(turns) - 1}, found {turn!r}")
    if type(end) is not int or not 1 <= end <= len(turns[turn]):
        raise ValueError(f"field '{field}.end': expected 1 to {len(turns[turn])}, found {end!r}")
    text = text_of(value.get("note"), f"{field}.note", LONGEST_NOTE)
    if len(text.splitlines()) > 1:
        raise ValueError(f"field '{field}.note': expected one line")
    return Note(turn, end, text.strip())


def _opened(path: Path) -> IO[bytes]:
    return lzma.open(path) if path.suffix == ".xz" else path.open("rb")
