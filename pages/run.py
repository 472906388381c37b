"""Run: one's own prompts, read by a pair on this server.

Knows how the URL becomes a run or the editor. Does not know how anything is run. The decision a
reader would question: a run has its address from the moment it is asked for, and the address shows
the queue, the readings as they come and what is kept of them; the editor is the same page without
one.
"""

from __future__ import annotations

import streamlit as st

from nla_core.data.dataset import Dataset
from nla_core.errors import NLAError
from nla_core.jobs.request import RunPrompt, RunRequest
from nla_core.jobs.runner import JobRunner
from nla_core.links import RunView
from nla_core.opened import runner
from nla_core.ui import composer, controls, gate, notices, run_list, run_live, run_settings, shell
from nla_core.ui.html import draw, hint

shell.ensure()

POLL_SECONDS = 1.0
ENDED_POLL_SECONDS = 5.0
INTRO = (
    "The model answers your prompt. Then the verbalizer puts what the model holds at each token "
    "into words, and the reconstructor measures how much of it the words give back."
)
_PRESSED = "_nla_start_run"


def watch(jobs: JobRunner, run_id: str, may_run: bool) -> None:
    """One run: looked at once a second until there is nothing to wait for."""
    visitor = gate.visitor() if may_run else None
    waits = run_live.awaited(jobs.snapshot(run_id))
    request = jobs.request(run_id)
    back_to_editor(request, may_run)

    @st.fragment(run_every=POLL_SECONDS if waits else None)
    @shell.guarded
    def look() -> None:
        snapshot = jobs.snapshot(run_id)
        if waits != run_live.awaited(snapshot):
            st.rerun()  # from now on it is looked at, or need not be
        view = controls.read(RunView).view
        run_live.heading(jobs.request(run_id), run_id)
        run_live.kept_problem()
        run_live.progress(jobs, snapshot, visitor)
        run_live.ways_on(jobs, snapshot, visitor)
        run_live.failures(jobs, snapshot, visitor)
        run_live.prompts(snapshot, request, view)
        run_live.readings(jobs, snapshot, request, view)

    look()
    if not waits:
        notice_changes(jobs, run_id)


def notice_changes(jobs: JobRunner, run_id: str) -> None:
    """A run that has ended may be taken up again, renamed or deleted in another tab."""
    shown = jobs.revision(run_id)

    @st.fragment(run_every=ENDED_POLL_SECONDS)
    @shell.guarded
    def look() -> None:
        if jobs.revision(run_id) != shown:
            st.rerun()

    look()


def back_to_editor(request: RunRequest, may_run: bool) -> None:
    def take(prompt: RunPrompt) -> None:
        if prompt.text is not None:
            st.session_state["run_mode"] = "text"
            st.session_state["plain_text"] = st.session_state["_nla_plain_text"] = prompt.text
        elif not composer.holds_run(controls.read(RunView).view.run):
            origin = f"the run “{request.name}”"
            composer.begin_with(composer.Draft.of(prompt.messages, origin))
        run_settings.begin_with(request)
        st.query_params.clear()

    with st.container(horizontal=True, gap="small", key="run_top"):
        st.button(
            "All runs",
            key="all_runs",
            icon=":material/arrow_back:",
            type="tertiary",
            on_click=st.query_params.clear,
        )
        if may_run and len(request.prompts) == 1:
            st.button(
                "Change the prompt",
                key="change_prompt",
                icon=":material/edit:",
                type="tertiary",
                on_click=take,
                args=(request.prompts[0],),
                help="Puts it into the editor; what you change becomes a run of its own.",
            )


def editor(jobs: JobRunner, view: RunView, may_run: bool) -> None:
    dataset = shell.dataset()
    if view.transcript is not None and may_run:
        composer.begin_with(composer.from_transcript(dataset, view.transcript, answered=True))
        st.query_params.clear()
    wide, narrow = st.columns([1.5, 1], gap="large")
    with wide:
        run_live.kept_problem()
        if may_run:
            draw('<h1 class="nla-h1">Read your own prompts</h1>')
            draw('<p class="nla-intro">{text}</p>', text=INTRO)
            ask(jobs, dataset)
    with narrow:
        draw('<p class="nla-label">Runs on this server</p>')
        chosen = run_list.runs(jobs)
        if may_run:
            gate.account()
        controls.leave(RunView, chosen, "run")


def ask(jobs: JobRunner, dataset: Dataset) -> None:
    request: RunRequest | None = None
    refused = False
    try:
        prompts = composer.compose(dataset, jobs.limits)
        request = run_settings.settings(jobs, prompts)
        if request is not None:
            hint(run_settings.told(jobs.estimate(request)))
    except NLAError as error:
        notices.problem(error)
        request, refused = None, True

    # A press takes the field that was typed in last with it. So it is only noted by the callback,
    # which is of the page as it was before, and the button is never disabled.
    st.button(
        "Read",
        key="start_run",
        type="primary",
        icon=":material/play_arrow:",
        on_click=lambda: st.session_state.update({_PRESSED: True}),
    )
    if not st.session_state.pop(_PRESSED, False):
        return
    if request is not None:
        start(jobs, request)
    elif not refused:
        hint("There is nothing to read yet.")


def start(jobs: JobRunner, asked: RunRequest) -> None:
    """Queue it and go to its address."""
    try:
        made = jobs.submit(asked, gate.visitor())
    except NLAError as error:
        notices.problem(error)
        return
    if len(asked.prompts) == 1 and asked.prompts[0].text is None:
        composer.keep(composer.draft().was_run(made.run_id))
    controls.show(RunView(run=made.run_id))
    st.rerun()


def page() -> None:
    link = controls.read(RunView)
    notices.link_problems(link.problems)
    may_run = gate.allowed()
    jobs = runner()
    if link.view.run is not None:
        watch(jobs, link.view.run, may_run)
    else:
        editor(jobs, link.view, may_run)


page()
