"""From messages to token ids, and for every token: its text, its speaker, and whether it is markup.

Knows chat templates and byte-level tokens. Knows nothing of models. The decision a reader would
question: speakers are found by locating each message's own text in the rendered template, not by
knowing any template's markup, so that it holds for every family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nla_core.errors import NLAError
from nla_core.prompts import Message
from nla_core.schema import Role, Section

__all__ = [
    "Message",
    "Piece",
    "Prompt",
    "as_said",
    "begins_answer",
    "pieces",
    "prompt_ids",
    "raw_pieces",
    "with_answer",
]


@dataclass(frozen=True, slots=True)
class Piece:
    """One token's place in the conversation. ``chip`` groups the tokens of one character."""

    token_id: int
    chip: int
    text: str
    role: Role
    section: Section
    turn: int


Prompt = Sequence[Message] | str
"""A conversation, or a plain text that is given to the model as it stands."""


def prompt_ids(tokenizer: Any, messages: Prompt) -> tuple[list[int], list[Piece]]:
    """Render a conversation up to where the assistant answers; raises NLAError if it cannot be.

    Template tokens count to the message they lead into; the last ones to the coming answer. Where
    the assistant has the last word, its turn is left open, to be read or continued.
    """
    if isinstance(messages, str):
        ids = list(tokenizer(messages)["input_ids"])
        return ids, raw_pieces(tokenizer, ids)
    if not getattr(tokenizer, "chat_template", None):
        return _plain_ids(tokenizer, messages)
    try:
        begun = begins_answer(messages)
        text = tokenizer.apply_chat_template(
            list(messages),
            add_generation_prompt=not begun,
            continue_final_message=begun,
            tokenize=False,
        )
    except Exception as error:  # templates raise whatever their author wrote
        raise NLAError(
            "The target's chat template refuses this conversation",
            why=str(error),
            fix="Check the order of roles; some models allow no system message",
        ) from None
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = _content_spans(text, messages)
    roles = [Role(m["role"]) for m in messages] + [Role.ASSISTANT]
    owners: list[tuple[Role, Section, int]] = []
    for start, end in encoded["offset_mapping"]:
        turn = next((i for i, (_, stop) in enumerate(spans) if start < stop), len(spans))
        inside = turn < len(spans) and end > spans[turn][0]
        owners.append((roles[turn], Section.CONTENT if inside else Section.TEMPLATE, turn))
    return encoded["input_ids"], pieces(tokenizer, encoded["input_ids"], owners)


def begins_answer(messages: Prompt) -> bool:
    """Whether the assistant has begun to answer in what is given."""
    return not isinstance(messages, str) and messages[-1]["role"] == Role.ASSISTANT


def as_said(messages: Prompt, reply: str) -> list[Message]:
    """The conversation with the answer as its last message; a plain text counts as the user's."""
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}, {"role": "assistant", "content": reply}]
    said = [dict(message) for message in messages]
    if begins_answer(messages):
        said[-1]["content"] += reply
        return said
    return [*said, {"role": "assistant", "content": reply}]


def with_answer(
    tokenizer: Any,
    prompt: tuple[list[int], list[Piece]],
    answer_ids: Sequence[int],
    turn: int | None = None,
) -> tuple[list[int], list[Piece]]:
    """Append the assistant's tokens to a rendered prompt, as message ``turn`` (the last begun)."""
    ids, before = prompt
    if turn is None:
        turn = before[-1].turn if before else 0
    owner = (Role.ASSISTANT, Section.CONTENT, turn)
    offset = before[-1].chip + 1 if before else 0
    after = pieces(tokenizer, answer_ids, [owner] * len(answer_ids), first_chip=offset)
    return [*ids, *answer_ids], [*before, *after]


def raw_pieces(tokenizer: Any, ids: Sequence[int]) -> list[Piece]:
    """Plain text without any chat: everything is content of one user turn."""
    return pieces(tokenizer, ids, [(Role.USER, Section.CONTENT, 0)] * len(ids))


def pieces(
    tokenizer: Any,
    ids: Sequence[int],
    owners: Sequence[tuple[Role, Section, int]],
    *,
    first_chip: int = 0,
) -> list[Piece]:
    """Decode token by token; tokens that hold parts of one character form one chip."""
    result: list[Piece] = []
    pending: list[int] = []
    chip = first_chip
    for at, token in enumerate(ids):
        pending.append(token)
        text = tokenizer.decode(pending, clean_up_tokenization_spaces=False)
        whole = not text.endswith("�") or at == len(ids) - 1 or len(pending) >= 4
        if not whole:
            continue
        for part, part_id in enumerate(pending):
            role, section, turn = owners[at - len(pending) + 1 + part]
            result.append(Piece(part_id, chip, text if part == 0 else "", role, section, turn))
        chip, pending = chip + 1, []
    return result


def _content_spans(text: str, messages: Sequence[Message]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    cursor = 0
    for message in messages:
        # Some templates strip what they are given.
        for wanted in (message["content"], message["content"].strip()):
            start = text.find(wanted, cursor)
            if start >= 0:
                break
        else:
            raise NLAError(
                "A message does not appear in the rendered conversation",
                why="The target's chat template rewrites or drops it",
                fix="Use plain user and assistant turns with this model",
            )
        cursor = start + len(wanted)
        spans.append((start, cursor))
    return spans


def _plain_ids(tokenizer: Any, messages: Sequence[Message]) -> tuple[list[int], list[Piece]]:
    """A base model without a template: the texts, one after another."""
    ids: list[int] = []
    owners: list[tuple[Role, Section, int]] = []
    for turn, message in enumerate(messages):
        part = tokenizer(message["content"] + "\n\n", add_special_tokens=not ids)["input_ids"]
        ids += part
        owners += [(Role(message["role"]), Section.CONTENT, turn)] * len(part)
    return ids, pieces(tokenizer, ids, owners)
