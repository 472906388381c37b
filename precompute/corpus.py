"""Prompt files: read, checked line by line, and put in one order.

Knows the JSON Lines form of ``data/prompts/README.md`` and says for every mistake which file, line
and field it is in and what was found there. Does not know any model: a prompt that is too long for
one is the run's business. The decision a reader would question: a corpus with one wrong line is
refused as a whole, because a run takes hours and half a corpus is not what was asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nla_core.errors import NLAError
from nla_core.prompts import Message, json_of, messages_of, shown, text_of

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_LABEL = 200
SHOWN_PROBLEMS = 5

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REQUIRED = ("id", "category", "title", "messages")
_FIELDS = (*_REQUIRED, "tags")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation up to the user turn that the target will answer."""

    id: str
    category: str
    title: str
    tags: tuple[str, ...]
    messages: tuple[Message, ...]

    @property
    def n_characters(self) -> int:
        return sum(len(message["content"]) for message in self.messages)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Prompts sorted by id, and the sha256 of each file they came from, by file name."""

    prompts: tuple[Prompt, ...]
    files: tuple[tuple[str, str], ...]

    def first(self, limit: int | None) -> Corpus:
        return self if limit is None else Corpus(self.prompts[:limit], self.files)


def read_corpus(paths: Sequence[Path], *, answered: bool = False) -> Corpus:
    """Read prompt files; the order in which they are named makes no difference.

    ``answered``: the assistant may have had the last word, as where nothing is to be answered.

    Raises NLAError naming the first mistakes, each with file, line, field and what was found.
    """
    problems: list[str] = []
    seen: dict[str, str] = {}
    prompts: list[Prompt] = []
    files = []
    for path in paths:
        digest, lines = _read_lines(path)
        files.append((path.name, digest))
        found_any = False
        for where, line in lines:
            found_any = True
            try:
                prompt = _parse(line, answered=answered)
                if (first := seen.setdefault(prompt.id, where)) != where:
                    raise ValueError(f"repeats id {prompt.id!r} of {first}")
            except ValueError as error:
                problems.append(f"{where}, {error}")
            else:
                prompts.append(prompt)
        if not found_any:
            problems.append(f"{path} is empty: expected one JSON object a line, found no line")
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        listed = "; ".join(problems[:SHOWN_PROBLEMS])
        raise NLAError(
            "The corpus has mistakes and nothing was run",
            why=listed + (f"; and {more} more" if more > 0 else ""),
            fix="Correct these lines; data/prompts/README.md describes the format",
        )
    return Corpus(tuple(sorted(prompts, key=lambda prompt: prompt.id)), tuple(sorted(files)))


def _read_lines(path: Path) -> tuple[str, Iterator[tuple[str, bytes]]]:
    """The sha256 of a file, and its lines that are not blank, each with where it stands."""
    fix = "Name prompt files, for example data/prompts/*.jsonl"
    try:
        if path.is_dir():
            raise NLAError(f"{path} is a folder", why="a corpus is made of .jsonl files", fix=fix)
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise NLAError(
                f"The corpus file {path} is too large",
                why=f"it has {size:,} bytes and the limit is {MAX_FILE_BYTES:,}",
                fix="Split it; --corpus takes any number of files",
            )
        data = path.read_bytes()
    except OSError as error:
        raise NLAError(
            f"The corpus file {path} cannot be read", why=str(error.strerror), fix=fix
        ) from error
    numbered = enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
    lines = ((f"{path} line {number}", line) for number, line in numbered if line.strip())
    return hashlib.sha256(data).hexdigest(), lines


def _parse(line: bytes, *, answered: bool) -> Prompt:
    """One prompt. Raises ValueError that begins with the field."""
    data = json_of(line)
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, found {shown(data)}")
    for name in data.keys() - set(_FIELDS):
        raise ValueError(f"field {name[:40]!r} is unknown: expected {', '.join(_FIELDS)}")
    for name in _REQUIRED:
        if name not in data:
            raise ValueError(f"field '{name}' is missing")
    if not (isinstance(data["id"], str) and _ID.fullmatch(data["id"])):
        raise ValueError(
            "field 'id': expected up to 100 letters, digits, dots, dashes and underscores, "
            f"found {shown(data['id'])}"
        )
    tags = data.get("tags", [])
    if not isinstance(tags, list):
        raise ValueError(f"field 'tags': expected a list of strings, found {shown(tags)}")
    return Prompt(
        id=data["id"],
        category=text_of(data["category"], "category", MAX_LABEL),
        title=text_of(data["title"], "title", MAX_LABEL),
        tags=tuple(text_of(tag, f"tags[{i}]", MAX_LABEL) for i, tag in enumerate(tags)),
        messages=messages_of(data["messages"], may_answer=answered),
    )
