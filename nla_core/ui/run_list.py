"""The runs of this server: those at work with their place, those that are finished.

Knows how a run reads in one line. Does not know what is in it. The decision a reader would
question: everybody sees all runs; they are addresses like those of the corpus, and a queue that
hides who waits explains nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nla_core.jobs.store import OPEN_STATES, RunState, Snapshot
from nla_core.links import RunView
from nla_core.ui.cards import Card, Chosen, Group, cards
from nla_core.ui.html import draw
from nla_core.ui.run_live import STATES

if TYPE_CHECKING:
    from nla_core.jobs.runner import JobRunner
    from nla_core.jobs.store import StoredRun

SHOWN = 30


def runs(runner: JobRunner) -> Chosen:
    """Draw the lists; what was chosen in them."""
    waiting = runner.queue()
    finished = [run for run in runner.stored() if run.state not in OPEN_STATES]
    if not waiting and not finished:
        draw(
            '<p class="nla-empty"><b>No runs yet.</b><br>What you run is kept here, with an '
            "address of its own, until it is deleted.</p>"
        )
        return Chosen()
    groups = []
    if waiting:
        groups.append(Group([_waiting(run) for run in waiting], title="In the queue"))
    if finished:
        more = f"{len(finished)}" if len(finished) <= SHOWN else f"the last {SHOWN}"
        groups.append(
            Group([_stored(run) for run in finished[:SHOWN]], title="Finished", facts=more)
        )
    return cards(groups, label="Runs", key="runs", base="run")


def _waiting(run: Snapshot) -> Card:
    facts = f"{run.done} of {run.total} readings · {STATES[run.state]}"
    if run.place:
        facts += f" · behind {run.place}"
    return Card(run.run_id, RunView(run=run.run_id).query, title=_title(run.name, run.run_id),
                facts=facts)  # fmt: skip


def _stored(run: StoredRun) -> Card:
    when = datetime.fromtimestamp(run.created, UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = [
        f"{run.done} reading{'' if run.done == 1 else 's'}",
        f"{run.n_prompts} prompts" if run.n_prompts > 1 else "",
    ]
    # Under the heading “Finished”, only another end is worth a word.
    end = "" if run.state is RunState.DONE else STATES[run.state]
    facts += [f"{run.failed} failed" if run.failed else "", end, when]
    return Card(
        run.run_id,
        RunView(run=run.run_id).query,
        title=_title(run.name, run.run_id),
        text=run.note[:200],
        facts=" · ".join(filter(None, facts)),
        failed=run.version is None,
    )


def _title(name: str, run_id: str) -> str:
    return name or run_id
