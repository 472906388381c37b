"""Prompt files: read, checked line by line, and put in one order.

Knows the JSON Lines form of ``data/prompts/README.md`` and says for every mistake which file, line
and field it is in and what was found there. Does not know any model: a prompt that is too long for
one is the run's business. The decision a reader would question: a corpus with one wrong line is
refused as a whole, because a run takes hours and half a corpus is not what was asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nla_core.errors import NLAError
from nla_core.nla.layout import Message
from nla_core.schema import Role

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024
MAX_LABEL = 200
SHOWN_PROBLEMS = 5

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REQUIRED = ("id", "category", "title", "messages")
_FIELDS = (*_REQUIRED, "tags")
_ROLES = tuple(Role)


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


def read_corpus(paths: Sequence[Path]) -> Corpus:
    """Read prompt files; the order in which they are named makes no difference.

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
                prompt = _parse(line)
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


def _parse(line: bytes) -> Prompt:
    """One prompt. Raises ValueError that begins with the field."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"the line has {len(line):,} bytes and the limit is {MAX_LINE_BYTES:,}")
    try:
        data = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"is not UTF-8: found the byte 0x{line[error.start]:02x} at column {error.start + 1}"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("is not a prompt: brackets are nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, found {_shown(data)}")
    for name in data.keys() - set(_FIELDS):
        raise ValueError(f"field {name[:40]!r} is unknown: expected {', '.join(_FIELDS)}")
    for name in _REQUIRED:
        if name not in data:
            raise ValueError(f"field '{name}' is missing")
    if not (isinstance(data["id"], str) and _ID.fullmatch(data["id"])):
        raise ValueError(
            "field 'id': expected up to 100 letters, digits, dots, dashes and underscores, "
            f"found {_shown(data['id'])}"
        )
    tags = data.get("tags", [])
    if not isinstance(tags, list):
        raise ValueError(f"field 'tags': expected a list of strings, found {_shown(tags)}")
    return Prompt(
        id=data["id"],
        category=_text(data["category"], "category", MAX_LABEL),
        title=_text(data["title"], "title", MAX_LABEL),
        tags=tuple(_text(tag, f"tags[{i}]", MAX_LABEL) for i, tag in enumerate(tags)),
        messages=_messages(data["messages"]),
    )


def _messages(value: Any) -> tuple[Message, ...]:
    """An optional system message, then user and assistant in turn, ending with the user."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"field 'messages': expected a list of messages, found {_shown(value)}")
    messages = []
    for i, message in enumerate(value):
        field = f"messages[{i}]"
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            raise ValueError(
                f"field '{field}': expected {{role, content}}, found {_shown(message)}"
            )
        role = message["role"]
        if role not in _ROLES:
            raise ValueError(
                f"field '{field}.role': expected {', '.join(_ROLES)}, found {_shown(role)}"
            )
        messages.append({"role": role, "content": _text(message["content"], f"{field}.content")})
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == Role.SYSTEM else roles
    expected = [(Role.USER, Role.ASSISTANT)[i % 2] for i in range(len(turns))]
    if turns != expected or not turns or turns[-1] != Role.USER:
        raise ValueError(
            "field 'messages': expected an optional system message, then user and assistant in "
            f"turn, ending with user, found {', '.join(roles)}"
        )
    return tuple(messages)


def _text(value: Any, field: str, longest: int = MAX_LINE_BYTES) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"field '{field}': expected a text, found {_shown(value)}")
    if len(value) > longest:
        raise ValueError(
            f"field '{field}': expected up to {longest} characters, found {len(value)}"
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"field '{field}': found half of a surrogate pair at character {error.start}"
        ) from None
    return value


def _shown(value: Any) -> str:
    """What was found, short enough for a sentence."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "..."
