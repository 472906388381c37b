"""What ``POST /runs`` takes: JSON with defaults, made into a request for a run.

Knows the fields, their short forms and how a mistake in one is told. Does not know limits, queue or
models. The decision a reader would question: a string is a question of a user and becomes a chat
of one message; whoever wants a text read as it stands says so with {"text": ...}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from nla_core.api.guard import bad_body
from nla_core.api.wire import Refusal
from nla_core.errors import NLAError
from nla_core.prompts import messages_of, shown, text_of
from nla_core.runs.request import Positions, RunPrompt, RunRequest, Sampling, Which

DEFAULTS: Final = {field.name: field.default for field in fields(RunRequest)}
PROMPT_FIELDS: Final = ("messages", "text", "title", "where")
NAMES: Final = (
    "pair",
    "prompt",
    "prompts",
    "positions",
    "samples",
    "target",
    "verbalizer",
    "name",
    "note",
)


def request_of(body: Mapping[str, Any], pairs: Sequence[str]) -> RunRequest:
    """The request that ``body`` stands for; without a pair, the first of ``pairs``.

    Raises Refusal naming the field, NLAError for values that do not go together.
    """
    _known(body, NAMES, "the body")
    if ("prompt" in body) == ("prompts" in body):
        raise bad_body("it needs either prompt or prompts")
    prompts = [body["prompt"]] if "prompt" in body else body["prompts"]
    if not isinstance(prompts, list):
        raise bad_body(f"prompts: expected a list, found {shown(prompts)}")
    if "pair" not in body and not pairs:
        raise Refusal(
            422,
            NLAError(
                "There is no pair here that could run anything",
                why="neither data/nla nor NLA_PAIRS holds one",
                fix="Put one there, and start the server again",
            ),
        )
    return RunRequest(
        pair=_text(body, "pair", pairs[0] if pairs else ""),
        prompts=tuple(_prompt(value, number) for number, value in enumerate(prompts, start=1)),
        positions=_positions(body.get("positions", "all")),
        samples=_integer(body, "samples", DEFAULTS["samples"], "samples"),
        target=_sampling(body, "target"),
        verbalizer=_sampling(body, "verbalizer"),
        name=_text(body, "name", ""),
        note=_text(body, "note", ""),
    )


def changes_of(body: Mapping[str, Any]) -> dict[str, str]:
    """A new name, a new note, or both. Raises Refusal."""
    _known(body, ("name", "note"), "the body")
    if not body:
        raise bad_body("it needs a name or a note")
    return {field: _text(body, field, "") for field in body}


def _prompt(value: Any, number: int) -> RunPrompt:
    where = f"prompts[{number - 1}]"
    try:
        if isinstance(value, str):
            value = {"messages": [{"role": "user", "content": text_of(value, where)}]}
        if isinstance(value, list):
            value = {"messages": value}
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a text, messages or an object, found {shown(value)}")
        _known(value, PROMPT_FIELDS, where)
        plain, messages = value.get("text"), value.get("messages")
        if plain is None:
            content: dict[str, Any] = {"messages": messages_of(messages, may_answer=True)}
        elif messages:
            raise ValueError("it has both a text and messages")
        else:
            content = {"text": text_of(plain, "text", max(1, len(str(plain))))}
        title, source = _text(value, "title", ""), _text(value, "where", "")[:200]
        return RunPrompt(title=title, where=source, **content)
    except ValueError as error:
        raise bad_body(f"{where}: {error}") from None


def _positions(value: Any) -> Positions:
    if isinstance(value, str):
        value = {"which": value}
    if not isinstance(value, Mapping):
        raise bad_body(f"positions: expected a word or an object, found {shown(value)}")
    _known(value, ("which", "n", "at"), "positions")
    which = value.get("which", "list" if value.get("at") else "all")
    if which not in set(Which):
        raise bad_body(f"positions.which: expected {', '.join(Which)}, found {shown(which)}")
    at = value.get("at", [])
    if not isinstance(at, list) or not all(type(position) is int for position in at):
        raise bad_body(f"positions.at: expected a list of whole numbers, found {shown(at)}")
    return Positions(Which(which), _integer(value, "n", 0, "positions.n"), tuple(at))


def _sampling(body: Mapping[str, Any], who: str) -> Sampling:
    value, default = body.get(who, {}), DEFAULTS[who]
    if not isinstance(value, Mapping) or not isinstance(default, Sampling):
        raise bad_body(f"{who}: expected an object, found {shown(value)}")
    _known(value, ("max_tokens", "temperature", "seed"), who)
    heat = value.get("temperature", default.temperature)
    if not isinstance(heat, int | float) or isinstance(heat, bool):
        raise bad_body(f"{who}.temperature: expected a number, found {shown(heat)}")
    return Sampling(
        max_tokens=_integer(value, "max_tokens", default.max_tokens, f"{who}.max_tokens"),
        temperature=float(heat),
        seed=_integer(value, "seed", default.seed, f"{who}.seed"),
    )


def _integer(value: Mapping[str, Any], name: str, default: Any, field: str) -> int:
    return int(_typed(value.get(name, default), lambda v: type(v) is int, field, "a whole number"))


def _text(value: Mapping[str, Any], name: str, default: str) -> str:
    found = _typed(value.get(name, default), lambda v: isinstance(v, str), name, "a text")
    try:
        return text_of(found, name, max(1, len(found))) if found.strip() else ""
    except ValueError as error:  # half of a surrogate pair
        raise bad_body(str(error)) from None


def _typed(value: Any, fits: Callable[[Any], bool], field: str, expected: str) -> Any:
    if not fits(value):
        raise bad_body(f"{field}: expected {expected}, found {shown(value)}")
    return value


def _known(value: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    wrong = next((name for name in value if name not in names), None)
    if wrong is not None:
        raise bad_body(f"{where} has no field {shown(wrong)}; there are {', '.join(names)}")
