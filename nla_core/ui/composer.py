"""The editor of the Run page: a conversation with its branches, a plain text, or a file.

Knows how a draft is drawn and changed. Knows no queue. The decision a reader would question: the
draft lives in the session and not in the address; a prompt can be long and private, and a link to
its run says the same once it was run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import streamlit as st

from nla_core.data.dataset import Dataset
from nla_core.errors import NLAError
from nla_core.jobs.drafts import Draft
from nla_core.jobs.request import RunPrompt
from nla_core.jobs.settings import Limits
from nla_core.schema import Role
from nla_core.ui import shell, uploading
from nla_core.ui.html import draw, hint

Mode = Literal["chat", "text", "file"]
MODES: Final[dict[Mode, str]] = {
    "chat": "Conversation",
    "text": "Plain text",
    "file": "Many, from a file",
}
MOST_OFFERED: Final = 200
_DRAFT, _TEXT = "_nla_draft", "_nla_plain_text"
_SPEAKER: Final = {Role.SYSTEM: "System", Role.USER: "User", Role.ASSISTANT: "Assistant"}


def draft() -> Draft:
    found = st.session_state.get(_DRAFT)
    return found if isinstance(found, Draft) else Draft()


def keep(changed: Draft) -> None:
    st.session_state[_DRAFT] = changed


def begin_with(changed: Draft) -> None:
    """Put a conversation from elsewhere into the editor. For callbacks."""
    keep(changed.instead_of(draft()))
    st.session_state["run_mode"] = "chat"


def holds_run(run_id: str | None) -> bool:
    """Whether the editor has the branch that this run was made of; it is looked at then."""
    now = draft()
    at = next((i for i, b in enumerate(now.branches) if run_id and b.run_id == run_id), None)
    if at is not None:
        keep(now.look_at(at))
        st.session_state["run_mode"] = "chat"
    return at is not None


def compose(dataset: Dataset, limits: Limits) -> tuple[RunPrompt, ...]:
    """Draw the editor; the prompts it holds, none while there is nothing to run.

    Raises NLAError for what cannot be asked as it stands.
    """
    st.session_state.setdefault("run_mode", "chat")
    mode = st.segmented_control(
        "What to read",
        list(MODES),
        key="run_mode",
        required=True,
        format_func=lambda mode: MODES[mode],
        label_visibility="collapsed",
    )
    if mode == "chat":
        return _chat(dataset, limits)
    if mode == "text":
        return _text(limits)
    return uploading.upload(limits)


def _chat(dataset: Dataset, limits: Limits) -> tuple[RunPrompt, ...]:
    now = draft()
    _branches(now)
    turns = now.branch.turns
    for index in range(len(turns)):
        _turn(now, index, last=index == len(turns) - 1, limits=limits)
    with st.container(horizontal=True, gap="small", key="turn_buttons"):
        if turns[0].role is not Role.SYSTEM:
            _button("System prompt", "add_system", lambda: keep(draft().added(Role.SYSTEM)))
        role = now.next_role
        words = "Answer to begin with" if role is Role.ASSISTANT else "User turn"
        _button(words, "add_turn", lambda: keep(draft().added(role)), icon="add")
        if now.before:
            _button("Undo", "undo", lambda: keep(draft().undone()), icon="undo")
        if now.replaced is not None:
            _button(
                "Earlier draft",
                "earlier_draft",
                lambda: keep(draft().brought_back()),
                icon="history",
                help="Brings back what stood here before, with its branches.",
            )
        _starting_points(dataset)
        if len(turns) > 1 or turns[0].content or len(now.branches) > 1:
            _button("Start afresh", "afresh", lambda: begin_with(Draft()), icon="delete_sweep")
    if not any(turn.content.strip() for turn in turns):
        return ()
    if now.branch.turns[-1].role is Role.ASSISTANT:
        hint("The model goes on where the last turn ends. With 0 new tokens it is read as it is.")
    return (now.branch.prompt(),)


def _branches(now: Draft) -> None:
    if len(now.branches) < 2 and not now.branch.origin:
        return
    names = {i: f"{i + 1} · {branch.name or 'new'}" for i, branch in enumerate(now.branches)}
    st.session_state["branch"] = now.at
    st.pills(
        "Branches",
        list(names),
        key="branch",
        required=True,
        format_func=lambda i: shell.as_label(names[i]),
        on_change=lambda: keep(draft().look_at(st.session_state["branch"])),
        help="An edit of a conversation that was run, or that came from a dataset, makes a branch "
        "of its own; the old one stays here, and so do its readings.",
    )
    branch = now.branch
    if branch.run_id is not None:
        st.page_link(
            shell.page("run"),
            label="Readings of this branch",
            icon=":material/arrow_forward:",
            query_params={"run": branch.run_id},
        )
    elif branch.origin:
        hint(f"From {branch.origin}. Edit any turn to see what changes.")


def _turn(now: Draft, index: int, *, last: bool, limits: Limits) -> None:
    turn = now.branch.turns[index]
    key = f"turn_{now.version}_{now.at}_{index}"
    with st.container(key=f"turn_row_{index}", gap=None):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            draw('<p class="nla-label">{who}</p>', who=_SPEAKER[turn.role])
            if len(now.branch.turns) > 1:
                words = "Remove" if last or turn.role is Role.SYSTEM else "Cut here"
                _button(
                    words, f"remove_{index}", lambda: keep(draft().removed(index)), icon="close"
                )
        st.text_area(
            f"{_SPEAKER[turn.role]}, turn {index + 1}",
            value=turn.content,
            key=key,
            label_visibility="collapsed",
            height="content",
            max_chars=limits.prompt_characters,
            placeholder="Ask something" if turn.role is Role.USER else "",
            on_change=lambda: keep(draft().typed(index, st.session_state[key])),
        )


def _starting_points(dataset: Dataset) -> None:
    with st.popover(
        "Begin with…", icon=":material/library_books:", type="tertiary", key="starting_points"
    ):
        hint(f"A prompt of the dataset “{dataset.root.name}”. What stands in the editor is kept.")
        rows = dataset.transcripts(sort="title", limit=MOST_OFFERED)
        titles = dict(zip(rows["transcript_id"], rows["title"], strict=True))
        chosen = st.selectbox(
            "Prompt",
            list(titles),
            index=None,
            key="starting_point",
            placeholder="Type to find one",
            format_func=lambda found: titles[found],
        )
        answered = st.toggle(
            "With the answer",
            key="starting_answer",
            help="Takes the answer that was given along, to be read or changed; else the model "
            "answers anew.",
        )
        st.button(
            "Put it into the editor",
            key="start_with",
            disabled=chosen is None,
            on_click=lambda: begin_with(from_transcript(dataset, chosen, answered=answered)),
        )


def from_transcript(dataset: Dataset, transcript_id: str | None, *, answered: bool) -> Draft:
    """Its conversation as a draft. Raises NLAError for an unknown transcript."""
    import json

    row = None if transcript_id is None else dataset.transcript(transcript_id)
    if row is None:
        raise NLAError(
            f"There is no transcript “{transcript_id}” in {dataset.root.name}",
            why="it belongs to another dataset or version",
            fix="Choose one from the list",
        )
    messages = json.loads(row["messages"])
    if not answered and messages[-1]["role"] == Role.ASSISTANT:
        messages = messages[:-1]
    return Draft.of(messages, f"“{row['title']}” of {dataset.root.name}")


def _text(limits: Limits) -> tuple[RunPrompt, ...]:
    hint(
        "The text as it stands, without a chat template: for base models, or to see what the "
        "template changes."
    )
    st.session_state.setdefault("plain_text", st.session_state.get(_TEXT, ""))
    text = st.text_area(
        "Text",
        key="plain_text",
        height="content",
        max_chars=limits.prompt_characters,
        label_visibility="collapsed",
        placeholder="Paste or type a text",
    )
    st.session_state[_TEXT] = text  # a widget that is not drawn forgets
    return (RunPrompt(text=text),) if text.strip() else ()


def _button(
    words: str, key: str, do: Callable[[], None], icon: str = "add", help: str | None = None
) -> None:
    st.button(words, key=key, icon=f":material/{icon}:", type="tertiary", on_click=do, help=help)
