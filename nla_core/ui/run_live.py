"""One run: how far it is, its readings as they arrive, and what can be done with it.

Knows how a snapshot and events are drawn. Does not know how they come about. The decision a reader
would question: the page asks once a second and is told everything each time, so that a closed lid,
a lost connection or a restarted server cost a reader nothing but the wait.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from nla_core.errors import NLAError
from nla_core.jobs.store import OPEN_STATES, Failure, LivePrompt, RunState, Snapshot, folded
from nla_core.links import RunView, ViewState
from nla_core.ui import controls, measures, notices, panels, shell, token_panel, transcripts
from nla_core.ui.explanation import note_first
from nla_core.ui.html import draw, fill, hint, join
from nla_core.ui.run_settings import duration, in_words
from nla_core.ui.token_strip import Drawing, Late, token_strip
from nla_core.ui.transcript_view import TranscriptView

if TYPE_CHECKING:
    from nla_core.jobs.request import RunRequest
    from nla_core.jobs.runner import JobRunner
    from nla_core.readings import Said


STATES: Final[dict[RunState, str]] = {
    RunState.QUEUED: "waits for its turn",
    RunState.RUNNING: "at work",
    RunState.PUBLISHING: "all is read; being published",
    RunState.DONE: "finished",
    RunState.CANCELLED: "cancelled; what was finished is kept",
    RunState.FAILED: "failed",
}
SHOWN_FAILURES: Final = 20
WAYS: Final[tuple[shell.PageName, ...]] = ("explore", "search", "compare")
UNREAD: Final = "No reading yet."
NOT_REACHED: Final = "The run ended before it came to this prompt."
NEVER: Final = "This token was not read."
MOST_PROMPTS: Final = 500


def moving(snapshot: Snapshot) -> bool:
    """Whether it is being worked on."""
    return snapshot.state in OPEN_STATES or snapshot.state is RunState.PUBLISHING


def awaited(snapshot: Snapshot) -> bool:
    """Whether there is anything to wait for: what a run that was cut short had read is published,
    too."""
    return moving(snapshot) or (snapshot.done > 0 and snapshot.version is None)


def heading(request: RunRequest, run_id: str) -> None:
    """What it is called, what it is made with, and its note."""
    many = "" if len(request.prompts) == 1 else "s"
    draw(
        '<div class="nla-head"><h1>{name}</h1><div class="facts">{facts}</div></div>',
        name=request.name or run_id,
        facts=f"{request.pair} · {len(request.prompts)} prompt{many} · {in_words(request)}",
    )
    if request.note:
        draw('<div class="nla-note"><p>{note}</p></div>', note=request.note)


def progress(runner: JobRunner, snapshot: Snapshot, mine: str | None) -> None:
    """Where the run stands. ``mine`` is the visitor that may cancel it, None for nobody."""
    read = snapshot.done + snapshot.failed
    total = max(1, snapshot.total)
    parts = [STATES[snapshot.state]]
    if snapshot.state is RunState.QUEUED and snapshot.place:
        ahead = "one run" if snapshot.place == 1 else f"{snapshot.place} runs"
        parts.append(f"behind {ahead}")
    about = "" if snapshot.total_is_known else "at most "
    parts.append(f"{snapshot.done} of {about}{snapshot.total} readings")
    if snapshot.n_prompts > 1:
        parts.append(f"{snapshot.n_transcribed} of {snapshot.n_prompts} prompts answered")
    if snapshot.failed:
        parts.append(f"{snapshot.failed} failed")
    if snapshot.rate:
        parts.append(f"{snapshot.rate:.1f} a second")
    if snapshot.seconds_left is not None and snapshot.state in OPEN_STATES:
        parts.append(f"{duration(snapshot.seconds_left)} left")
    if snapshot.state in OPEN_STATES and not snapshot.model.startswith("ready"):
        state, _, note = snapshot.model.partition(": ")
        parts.append(note[:1].lower() + note[1:] if note else f"models {state}")
    with st.container(
        horizontal=True, vertical_alignment="center", gap="small", key="run_progress"
    ):
        if moving(snapshot):
            told = " · ".join(parts)
            st.progress(min(1.0, read / total), text=shell.as_label(told[:1].upper() + told[1:]))
        else:
            draw('<p class="nla-label">{told}</p>', told=" · ".join(parts).capitalize())
        if snapshot.state in OPEN_STATES and mine is not None:
            st.button(
                "Cancel",
                key="cancel_run",
                icon=":material/stop_circle:",
                on_click=lambda: runner.cancel(snapshot.run_id, mine),
                help="What is finished is kept and published.",
            )
    if snapshot.error:
        draw(
            '<div class="nla-notice" role="status"><p>{error}</p></div>',
            error=snapshot.error,
        )


def readings(runner: JobRunner, snapshot: Snapshot, request: RunRequest, view: RunView) -> None:
    """The prompt of the view, token by token, with what is there of it."""
    index = min(view.prompt, len(request.prompts) - 1)
    live = folded(runner.events(snapshot.run_id).events, index)
    said = runner.said(snapshot.run_id, index)
    if said is None:
        _unread(snapshot, live, request, index)
        return
    title = request.prompts[index].label
    transcript = transcripts.live_view(said, title, live.readings.values())
    position = None if view.position is None else transcript.nearest(view.position)
    wide, narrow = st.columns([1.5, 1], gap="medium")
    with wide:
        _strip(snapshot, said, transcript, live, index, position)
    with narrow, st.container(key="panel"):
        if position is None:
            token_panel.invitation()
            return
        if transcript.reading(position, view.sample) is None:
            _on_its_way(snapshot, transcript, live, position)
            return
        token_panel.token_panel(
            transcript,
            position,
            view.sample,
            pair=_pair(runner, request),
            markup=False,
            paragraph=None,
            on_step=_lock,
        )


def _unread(snapshot: Snapshot, live: LivePrompt, request: RunRequest, index: int) -> None:
    if live.failed:
        draw(
            '<div class="nla-notice" role="status"><p><b>This prompt could not be read.</b></p>'
            "<p>{why}</p></div>",
            why=live.failed,
        )
    else:
        yet = "The model has not come to this prompt yet."
        draw('<p class="nla-empty">{why}</p>', why=yet if moving(snapshot) else NOT_REACHED)
    prompt = request.prompts[index]
    plain = ({"role": "user", "content": prompt.text or ""},)
    panels.messages((m["role"], m["content"]) for m in prompt.messages or plain)


def _strip(
    snapshot: Snapshot,
    said: Said,
    transcript: TranscriptView,
    live: LivePrompt,
    index: int,
    position: int | None,
) -> None:
    late: list[Late] = []
    for chip in transcript.chips:
        at = (chip.position, 0)
        reading = transcript.reading(chip.position)  # of the first sample that has one
        if reading is not None:
            late.append((chip.position, reading.fve, reading.explanation, reading.flags, ""))
        elif at in live.texts or at in live.failures:
            words = live.texts.get(at, "")
            late.append((chip.position, None, words, (), live.failures.get(at, "")))
    colour = measures.colouring(transcript, "fve", measures.along(transcript, "fve", {}))
    token_strip(
        _tokens_only(
            f"{snapshot.run_id}/{index}/{said.transcript_id}",
            UNREAD if moving(snapshot) else NEVER,
            said,
        ),
        colour=colour | {"id": f"live/{len(live.readings)}"},
        locked=position,
        span=None,
        markup=False,
        reveal=position is not None,
        on_lock=_lock,
        on_span=lambda span: None,
        late=late,
        key="live_strip",
    )


@st.cache_resource(show_spinner=False, max_entries=64)
def _tokens_only(strip_id: str, unread: str, _said: Said) -> Drawing:
    """The same bytes at every look while it is read, so that they are sent once."""
    return Drawing.of(transcripts.live_view(_said, "", ()), strip_id=strip_id, unread=unread)


def _on_its_way(
    snapshot: Snapshot, transcript: TranscriptView, live: LivePrompt, position: int
) -> None:
    token_panel.token_line(
        transcript,
        transcript.tokens[position],
        markup=False,
        on_step=_lock,
    )
    at = (position, 0)
    if at in live.texts:
        draw('<div class="nla-said"><p>{text}</p></div>', text=note_first(live.texts[at]))
        hint("Its score follows as soon as the reconstructor has read it.")
    elif at in live.failures:
        draw('<p class="nla-empty">No reading: {why}</p>', why=live.failures[at])
    else:
        draw('<p class="nla-empty">{why}</p>', why=UNREAD if moving(snapshot) else NEVER)


def _pair(runner: JobRunner, request: RunRequest) -> dict[str, Any]:
    try:
        return runner.pairs.get(request.pair).describe()
    except NLAError:  # it was taken away since
        return {}


def _lock(position: int | None, sample: int = 0) -> None:
    controls.go(RunView, lambda view: view.at(position, sample))


def prompts(snapshot: Snapshot, request: RunRequest, view: RunView) -> None:
    """Which prompt is looked at, where there are several."""
    if len(request.prompts) < 2:
        return
    labels = [
        f"{i + 1} · {prompt.label}" for i, prompt in enumerate(request.prompts[:MOST_PROMPTS])
    ]
    st.selectbox(
        "Prompt",
        range(len(labels)),
        format_func=lambda i: labels[i],
        **controls.bound(
            "run_prompt",
            min(view.prompt, len(labels) - 1),
            lambda i: controls.change(RunView, prompt=i, position=None, sample=0),
        ),
    )


def failures(runner: JobRunner, snapshot: Snapshot, visitor: str | None) -> None:
    """What could not be read and why, and a button to try again."""
    failed: list[Failure] = runner.failures(snapshot.run_id)
    cut = snapshot.state in (RunState.CANCELLED, RunState.FAILED)
    if not failed and not cut:
        return
    with st.expander(
        f"{len(failed)} could not be read" if failed else "Not everything was read",
        expanded=True,
        key="failures",
    ):
        if failed:
            rows = [
                fill(
                    "<li>prompt {prompt}{place}: {why}</li>",
                    prompt=f.prompt + 1,
                    place="" if f.position is None else f", token {f.position}",
                    why=f.reason,
                )
                for f in failed[:SHOWN_FAILURES]
            ]
            draw('<ul class="nla-failures">{rows}</ul>', rows=join(rows))
            if len(failed) > SHOWN_FAILURES:
                hint(f"and {len(failed) - SHOWN_FAILURES} more.")
        if visitor is not None and not moving(snapshot):
            st.button(
                "Go on with what is missing" if cut else "Try these again",
                key="retry_run",
                icon=":material/refresh:",
                on_click=_guarded(lambda: runner.retry(snapshot.run_id, visitor)),
            )


def ways_on(runner: JobRunner, snapshot: Snapshot, visitor: str | None) -> None:
    """What a finished run can be: opened, named, taken away, deleted."""
    run_id = snapshot.run_id
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="ways_on"):
        if snapshot.version is not None:
            query = ViewState(dataset=run_id).params()
            for name in WAYS:
                st.page_link(
                    shell.page(name),
                    label=f"Open in {name.capitalize()}",
                    query_params=query,
                    icon=":material/arrow_forward:",
                )
            st.download_button(
                "Export",
                data=lambda: _zip(runner, run_id),
                file_name=f"{run_id}.zip",
                mime="application/zip",
                icon=":material/download:",
                type="tertiary",
                key="export_run",
                on_click="ignore",
                help="The dataset with its manifest, as Parquet files in a zip.",
            )
        if visitor is None:
            return
        with (
            st.popover("Name and note", icon=":material/edit:", key="rename"),
            st.form("rename_form", border=False),
        ):
            st.text_input("Name", value=snapshot.name, max_chars=120, key="run_new_name")
            st.text_area("Note", value=snapshot.note, max_chars=4_000, key="run_new_note")
            st.form_submit_button("Save", on_click=_guarded(lambda: _rename(runner, run_id)))
        if not moving(snapshot):
            with st.popover("Delete", icon=":material/delete:", key="delete"):
                hint("Its readings and all links to them will be gone for good.")
                st.button(
                    "Delete this run", key="delete_run", on_click=lambda: _delete(runner, run_id)
                )


def _rename(runner: JobRunner, run_id: str) -> None:
    name, note = st.session_state["run_new_name"], st.session_state["run_new_note"]
    runner.rename(run_id, name=name.strip(), note=note.strip())


def _delete(runner: JobRunner, run_id: str) -> None:
    _guarded(lambda: runner.delete(run_id))()
    st.query_params.clear()


def _guarded(do: Callable[[], object]) -> Callable[[], None]:
    """For callbacks: a refusal is kept and told by the run that follows."""

    def run() -> None:
        try:
            do()
        except NLAError as error:
            st.session_state["_nla_run_problem"] = error

    return run


def kept_problem() -> None:
    error = st.session_state.pop("_nla_run_problem", None)
    if isinstance(error, NLAError):
        notices.problem(error)


def _zip(runner: JobRunner, run_id: str) -> bytes:
    buffer = io.BytesIO()
    runner.export(run_id, buffer)
    return buffer.getvalue()
