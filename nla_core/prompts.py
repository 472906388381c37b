"""What a prompt may be: a conversation or a plain text, checked wherever it comes from.

Knows roles and their order, UTF-8, lines of JSON, and how a mistake is told: the field, what was
expected, what was found. Knows no file and no model. The decision a reader would question: mistakes
are ValueErrors that begin with the field, since only the caller knows which file and line it was.
"""

from __future__ import annotations

import json
from typing import Any

from nla_core.schema import Role

Message = dict[str, str]

MAX_LINE_BYTES = 1024 * 1024

_ROLES = tuple(Role)


def json_of(line: bytes) -> Any:
    """The JSON value of one line. Raises ValueError for other bytes, or too many of them."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"the line has {len(line):,} bytes and the limit is {MAX_LINE_BYTES:,}")
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"is not UTF-8: found the byte 0x{line[error.start]:02x} at column {error.start + 1}"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("is not a prompt: brackets are nested too deeply") from None


def messages_of(value: Any, *, may_answer: bool = False) -> tuple[Message, ...]:
    """An optional system message, then user and assistant in turn, ending with the user.

    With ``may_answer`` the assistant may have the last word: the beginning of its answer.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"field 'messages': expected a list of messages, found {shown(value)}")
    messages = []
    for i, message in enumerate(value):
        field = f"messages[{i}]"
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            raise ValueError(f"field '{field}': expected {{role, content}}, found {shown(message)}")
        role = message["role"]
        if role not in _ROLES:
            raise ValueError(
                f"field '{field}.role': expected {', '.join(_ROLES)}, found {shown(role)}"
            )
        messages.append({"role": role, "content": text_of(message["content"], f"{field}.content")})
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == Role.SYSTEM else roles
    expected = [(Role.USER, Role.ASSISTANT)[i % 2] for i in range(len(turns))]
    if turns != expected or not turns or (turns[-1] != Role.USER and not may_answer):
        end = "" if may_answer else ", ending with user"
        raise ValueError(
            "field 'messages': expected an optional system message, then user and assistant in "
            f"turn{end}, found {', '.join(roles[:12])}"
        )
    return tuple(messages)


def text_of(value: Any, field: str, longest: int = MAX_LINE_BYTES) -> str:
    """A string that is not blank. Raises ValueError."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"field '{field}': expected a text, found {shown(value)}")
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


def shown(value: Any) -> str:
    """What was found, short enough for a sentence."""
    text = json.dumps(value, ensure_ascii=True, default=repr)  # a table holds more than JSON does
    return text if len(text) <= 60 else text[:57] + "..."
