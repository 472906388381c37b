"""``train annotate``: questions about marks in texts, and answers to an annotated corpus.

One question a mark, which shows the text up to the mark and nothing after it, so that no note can
know what comes. Anybody can answer them: people, a service's batch interface, or ``--answer`` with
a teacher. Each line names its export by a hash, so that answers to other questions are refused.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nla_core.data.files import explained, sha256_json, write_atomic
from nla_core.errors import NLAError
from nla_core.prompts import MAX_LINE_BYTES, json_of, text_of
from precompute.output import say
from precompute.train.notes import (
    LONGEST_NOTE,
    AnnotatedDocument,
    first_line,
    read_annotated,
    refuse,
)
from precompute.train.questions import note_of, note_question
from precompute.train.sources import Reading, load_documents
from precompute.train.teachers import TRIES, Writer

EVERY = (25, 40)
"""Tokens from one mark to the next, about: no tokenizer is asked, so that no target is needed."""
FIRST = (8, 40)
SHORTEST = 8
"""Tokens that the end of a turn must have after the last mark to be marked, too."""
WORDS = (3, 40)
BATCH = 64

_TOKEN = re.compile(r"\w{1,6}|[^\w\s]")
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)\]]*(?=\s|$)|(?<=\w)(?=\n)")


@dataclass(frozen=True, slots=True)
class Question:
    """``line`` is where it stands in its file; the first of a text carries the text."""

    line: int
    id: str
    doc_id: str
    turn: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Export:
    """A file of questions, checked against its own hash."""

    sha256: str
    documents: Mapping[str, Mapping[str, Any]]
    questions: Sequence[Question]


# ---- questions -----------------------------------------------------------------------------------


def load_texts(corpus: str, reading: Reading) -> list[AnnotatedDocument]:
    """Conversations (JSON lines with ``messages``) or whatever else ``train data`` reads."""
    if "messages" in first_line(Path(corpus)):
        return read_annotated(Path(corpus), with_notes=False)[: reading.max_documents]
    found = load_documents(corpus, reading)
    return [AnnotatedDocument(d.doc_id, d.source, d.text, ()) for d in found]


def marks_of(document: AnnotatedDocument, *, seed: int, max_tokens: int) -> list[tuple[int, int]]:
    """Turn and end of each mark, in order; every second one is moved to a sentence's end.

    Marks lie 25 to 40 tokens apart and at the ends of turns, within the first ``max_tokens``.
    """
    rng = random.Random(f"{seed}/{document.doc_id}")
    prompt = document.prompt
    turns = [prompt] if isinstance(prompt, str) else [m["content"] for m in prompt]
    marks: list[tuple[int, int]] = []
    left, reach = max_tokens, FIRST
    for turn, text in enumerate(turns):
        whole = [match.end() for match in _TOKEN.finditer(text)]
        ends = whole[:left]
        left -= len(ends)
        sentences = {match.end() for match in _SENTENCE_END.finditer(text)}
        done = 0
        while done + reach[0] <= len(ends):
            near = range(done + reach[0] - 1, min(done + reach[1], len(ends)))
            chosen = rng.choice(near)
            stops = [i for i in near if ends[i] in sentences]
            if stops and rng.random() < 0.5:
                chosen = rng.choice(stops)
            marks.append((turn, ends[chosen]))
            done, reach = chosen + 1, EVERY
        if len(ends) == len(whole) and len(ends) - done >= SHORTEST:
            marks.append((turn, ends[-1]))
            reach = EVERY
    return marks


def export(
    documents: Sequence[AnnotatedDocument], out: Path, *, seed: int, max_tokens: int
) -> dict[str, int]:
    """Write the questions of all documents to ``out``; returns counts. Raises NLAError."""
    lines: list[dict[str, Any]] = []
    for document in documents:
        carried: dict[str, Any] = {"document": _given(document)}
        for turn, end in marks_of(document, seed=seed, max_tokens=max_tokens):
            line = {
                "id": sha256_json([sha256_json(_given(document)), turn, end])[:16],
                "doc_id": document.doc_id,
                "turn": turn,
                "end": end,
                "question": note_question(document.prompt, turn, end),
                **carried,
            }
            if len(json.dumps(line)) > MAX_LINE_BYTES // 2:
                raise NLAError(
                    f"The text {document.doc_id} is too long to be annotated",
                    why=f"A question with it would have {len(json.dumps(line)):,} bytes",
                    fix="Cut it into several texts",
                )
            lines.append(line)
            carried = {}
    if not lines:
        raise NLAError(
            "There is nothing to ask",
            why=f"No text has {SHORTEST} words",
            fix="Give longer texts",
        )
    sha256 = sha256_json(lines)
    write_atomic(out, "".join(json.dumps({"export": sha256} | line) + "\n" for line in lines))
    return {"texts": len({line["doc_id"] for line in lines}), "questions": len(lines)}


def _given(document: AnnotatedDocument) -> dict[str, Any]:
    """A document as a line of an annotated file, but for its notes."""
    prompt = document.prompt
    said = {"text": prompt} if isinstance(prompt, str) else {"messages": [dict(m) for m in prompt]}
    return {"doc_id": document.doc_id, "source": document.source, **said}


def read_questions(path: Path) -> Export:
    """A file that ``export`` wrote. Raises NLAError where it is not whole or was changed."""
    lines: list[dict[str, Any]] = []
    questions: list[Question] = []
    mistakes: list[str] = []
    exports: set[str] = set()
    for number, line in _lines(path):
        try:
            value = json_of(line)
            exports.add(value.pop("export"))
            questions.append(
                Question(
                    number,
                    value["id"],
                    value["doc_id"],
                    value["turn"],
                    value["end"],
                    value["question"],
                )
            )
            lines.append(value)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            mistakes.append(f"line {number}: {error!r}")
    refuse(path, mistakes, "not questions")
    if not lines or exports != {sha256_json(lines)}:
        raise NLAError(
            f"{path} is not what was exported",
            why="Its lines do not have the hash that they name",
            fix="Use the file as `train annotate --export` wrote it, or export again",
        )
    documents = {line["doc_id"]: line["document"] for line in lines if "document" in line}
    return Export(exports.pop(), documents, questions)


# ---- answers -------------------------------------------------------------------------------------


def checked_note(value: Any) -> str:
    """A note of the right form. Raises ValueError."""
    text = text_of(value, "note", LONGEST_NOTE).strip()
    if len(text.splitlines()) > 1:
        raise ValueError("field 'note': expected one line")
    if not WORDS[0] <= len(text.split()) <= WORDS[1]:
        raise ValueError(
            f"field 'note': expected {WORDS[0]} to {WORDS[1]} words, found {len(text.split())}"
        )
    return text


def read_answers(path: Path, asked: Export) -> dict[str, str]:
    """Notes by question. Raises NLAError that names the lines with mistakes."""
    known = {question.id for question in asked.questions}
    notes: dict[str, str] = {}
    lines: dict[str, int] = {}
    mistakes: list[str] = []
    for number, line in _lines(path):
        try:
            value = json_of(line)
            if not isinstance(value, dict):
                raise ValueError("expected an object with export, id and note")
            if value.get("export") != asked.sha256:
                raise ValueError("field 'export': it answers another export")
            found = value.get("id")
            if not isinstance(found, str) or found not in known:
                raise ValueError("field 'id': no question of this export")
            if found in lines:
                raise ValueError(f"field 'id': line {lines[found]} answers it, too")
            lines[found] = number
            notes[found] = checked_note(value.get("note"))
        except ValueError as error:
            mistakes.append(f"line {number}: {error}")
    refuse(path, mistakes, "not answers")
    return notes


def import_answers(
    answers: Path, questions: Path, out: Path, *, partial: bool = False
) -> dict[str, int]:
    """Write the annotated corpus ``out``; ``partial`` leaves out what has no answer.

    Raises NLAError where anything is wrong or missing, and leaves ``out`` as it was.
    """
    asked = read_questions(questions)
    notes = read_answers(answers, asked)
    missing = [question for question in asked.questions if question.id not in notes]
    if not notes or (missing and not partial):
        raise NLAError(
            f"{answers} leaves {len(missing):,} of {len(asked.questions):,} questions open",
            why=f"The first is {missing[0].id}, line {missing[0].line} of {questions}",
            fix="Answer them, or take what is there with --partial" if notes else "Answer them",
        )
    of_document: dict[str, list[dict[str, Any]]] = {}
    for one in asked.questions:
        if one.id in notes:
            note = {"turn": one.turn, "end": one.end, "note": notes[one.id]}
            of_document.setdefault(one.doc_id, []).append(note)
    lines = [{**asked.documents[doc_id], "notes": listed} for doc_id, listed in of_document.items()]
    write_atomic(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return {"texts": len(lines), "notes": len(notes), "left_out": len(missing)}


def open_questions(asked: Export, out: Path) -> list[Question]:
    """The questions that ``out`` does not answer yet. Raises NLAError if it holds other answers."""
    notes: dict[str, str] = {}
    if out.is_file():
        _mend_end(out)
        notes = read_answers(out, asked) if out.stat().st_size else {}
    return [question for question in asked.questions if question.id not in notes]


def answer(asked: Export, todo: Sequence[Question], out: Path, writer: Writer) -> dict[str, int]:
    """Append the writer's notes to ``out``, each batch on disk before the next begins.

    A note of the wrong form is asked for once more and then left out.
    """
    left_out = 0
    for start in range(0, len(todo), BATCH):
        batch = todo[start : start + BATCH]
        found = _written(batch, writer)
        left_out += len(batch) - len(found)
        with explained(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("a", encoding="utf-8") as stream:
                for question_id, note in found.items():
                    line = {"export": asked.sha256, "id": question_id, "note": note}
                    stream.write(json.dumps(line) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        say(f"{start + len(batch)} of {len(todo)} questions")
    return {"answered": len(asked.questions) - left_out, "left_out": left_out}


def _written(batch: Sequence[Question], writer: Writer) -> dict[str, str]:
    """Usable notes by question."""
    found: dict[str, str] = {}
    for attempt in range(TRIES):
        left = [question for question in batch if question.id not in found]
        answers = writer.answers(
            [question.text for question in left],
            [int(question.id[:8], 16) for question in left],
            attempt,
        )
        for question, answer in zip(left, answers, strict=True):
            try:
                found[question.id] = checked_note(note_of(answer))
            except ValueError:
                continue
    return found


def _mend_end(path: Path) -> None:
    """Drop a last line that a killed process left half-written, or end a whole one."""
    data = path.read_bytes()
    whole, _, last = data.rpartition(b"\n")
    if not last:
        return
    try:
        json_of(last)
    except ValueError:
        os.truncate(path, len(data) - len(last))
    else:
        with path.open("ab") as stream:
            stream.write(b"\n")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank. Raises NLAError where there is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NLAError(
            f"{path} cannot be read", why=str(error.strerror), fix="Check the path"
        ) from None
    lines = [(n, line) for n, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    if not lines:
        raise NLAError(f"{path} is empty", why="It holds no line", fix="Give JSON lines")
    yield from lines
