"""Conversations from elsewhere: chat files in the forms that they are kept in, and Inspect logs.

Knows those forms and how their turns become a system turn, then user and assistant. Knows no corpus
and no model. The decision a reader would question: turns of tools and developers, which small chat
templates do not have, are told inside user and system turns instead of being refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nla_core.errors import NLAError
from nla_core.prompts import Message, json_of
from nla_core.schema import Role

SPOKEN_AS: Final = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "human": Role.USER,
    "tool": Role.USER,
    "function": Role.USER,
    "assistant": Role.ASSISTANT,
    "ai": Role.ASSISTANT,
    "model": Role.ASSISTANT,
}
MESSAGE_FIELDS: Final = ("messages", "conversation", "conversations", "turns")


Conversation = tuple[str, str, str, Sequence[Any]]
"""Where it stands, its category, its title, its messages as they are."""


def conversations(path: Path) -> Iterator[Conversation]:
    """What a file holds. Raises NLAError for a file that cannot be read at all."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NLAError(
            f"{path} cannot be read", why=str(error), fix="Name files of chats or Inspect logs"
        ) from error
    if path.suffix == ".eval" or _is_inspect_json(data):
        yield from _inspect(path)
        return
    try:
        whole = json.loads(data)
    except ValueError:
        for number, line in enumerate(data.split(b"\n"), start=1):
            if line.strip():
                yield from _chats(path, f"{path} line {number}", _json(path, number, line))
    except RecursionError:
        raise NLAError(
            f"{path} is no conversation", why="brackets are nested too deeply", fix="Leave it out"
        ) from None
    else:
        entries = whole if isinstance(whole, list) and not _is_message(whole) else [whole]
        for number, entry in enumerate(entries, start=1):
            yield from _chats(path, f"{path} entry {number}", entry)


def _json(path: Path, number: int, line: bytes) -> Any:
    try:
        return json_of(line)
    except ValueError as error:
        raise NLAError(
            f"{path} is neither JSON nor JSON lines",
            why=f"line {number}: {error}",
            fix="Give one JSON object with messages a line, a JSON list of them, or an Inspect log",
        ) from error


def _is_message(value: Any) -> bool:
    return bool(value) and all(isinstance(m, Mapping) and "role" in m for m in value)


def _chats(path: Path, where: str, entry: Any) -> Iterator[Conversation]:
    if isinstance(entry, list):
        yield where, path.stem, "", entry
        return
    found = entry if isinstance(entry, Mapping) else {}
    name = next((field for field in MESSAGE_FIELDS if isinstance(found.get(field), list)), None)
    if name is None:
        raise NLAError(
            f"{where} holds no conversation",
            why=f"it has no list called {', '.join(MESSAGE_FIELDS)}",
            fix="Give the messages as [{role, content}, ...] under one of these names",
        )
    title = str(found.get("title") or found.get("id") or "")
    yield where, str(found.get("category") or path.stem), title, found[name]


def _is_inspect_json(data: bytes) -> bool:
    head = data[:4096]
    return head.lstrip().startswith(b"{") and b'"eval"' in head and b'"task"' in head


def _inspect(path: Path) -> Iterator[Conversation]:
    """Every sample of a log, through Inspect's own reader."""
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise NLAError(
            f"{path} is an Inspect log, and Inspect is not installed",
            why=str(error),
            fix="Install it: .venv/bin/pip install inspect-ai",
        ) from error
    try:
        log = read_eval_log(str(path))
    except Exception as error:  # its reader raises whatever its parsers do
        raise NLAError(
            f"The Inspect log {path} cannot be read",
            why=f"{type(error).__name__}: {str(error)[:200]}",
            fix="Check that it is whole, or write it again with `inspect log convert`",
        ) from error
    for sample in log.samples or []:
        messages = [{"role": m.role, "content": m.text} for m in sample.messages]
        name = f"{log.eval.task} {sample.id} {sample.epoch}"
        yield f"{path} sample {sample.id}", str(log.eval.task), name, messages


def normalised(raw: Sequence[Any]) -> list[Message]:
    """Turns as a corpus has them: one system turn first, then user and assistant in turn.

    Neighbours of one speaker become one turn, empty ones are left out, a conversation that the
    assistant opens gets the user turn it lacks. Raises ValueError that begins with the field.
    """
    turns: list[Message] = []
    for i, message in enumerate(raw):
        if not isinstance(message, Mapping):
            raise ValueError(f"field 'messages[{i}]': expected {{role, content}}")
        said_by = str(message.get("role") or message.get("from") or "").lower()
        if said_by not in SPOKEN_AS:
            known = ", ".join(SPOKEN_AS)
            raise ValueError(f"field 'messages[{i}].role': expected {known}, found {said_by!r}")
        role = SPOKEN_AS[said_by]
        text = _text(message.get("content", message.get("value")), i)
        if not text.strip():
            continue
        if said_by in ("tool", "function"):
            text = f"[{said_by} result]\n{text}"
        late = len(turns) > 1 or (bool(turns) and turns[0]["role"] != Role.SYSTEM)
        if role is Role.SYSTEM and late:  # templates know a system turn at the beginning only
            role, text = Role.USER, f"[{said_by}]\n{text}"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n\n" + text
        else:
            turns.append({"role": str(role), "content": text})
    begins = 1 if turns and turns[0]["role"] == Role.SYSTEM else 0
    if len(turns) > begins and turns[begins]["role"] == Role.ASSISTANT:
        turns.insert(begins, {"role": str(Role.USER), "content": "(The assistant begins.)"})
    return turns


def _text(content: Any, i: int) -> str:
    """A string, or the text parts of a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return re.sub(r"\r\n?", "\n", content)
    if isinstance(content, list):
        parts = [
            part if isinstance(part, str) else str(part.get("text", ""))
            for part in content
            if isinstance(part, str | Mapping)
        ]
        return "\n".join(part for part in parts if part)
    raise ValueError(f"field 'messages[{i}].content': expected a text or a list of parts")
