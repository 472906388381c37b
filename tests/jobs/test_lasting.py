"""Many visitors, full disks, restarts and kills: every run finishes and nothing is lost.

What is asserted is what a page or a shell sees: states, counts, datasets, threads.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nla_core.data import files
from nla_core.jobs import publish
from nla_core.jobs.request import Positions, Sampling, Which
from nla_core.jobs.settings import Limits
from nla_core.jobs.store import RunState
from tests.jobs.conftest import SOON, Bench, ask, no_place_is_taken, sentence, whole

DIES = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
BAD = "poison"


def test_a_full_disk_while_publishing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "FIRST_RETRY_S", 0.4)
    full = threading.Event()
    full.set()
    honest = files.fsync_tree

    def refuse(root: Path) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        honest(root)

    monkeypatch.setattr(files, "fsync_tree", refuse)
    runner = bench.runner()
    made = [runner.submit(ask(sentence(n)), "ann").run_id for n in range(2)]
    end = time.monotonic() + SOON
    while time.monotonic() < end and not all(runner.snapshot(r).error for r in made):
        time.sleep(0.05)
    for run_id in made:
        found = runner.snapshot(run_id)
        assert found.state is RunState.PUBLISHING
        assert "is full" in str(found.error)
        assert found.done == found.total
    assert not runner.queue(), "it holds no place"
    n_batches = len(bench.faults.batches)
    runner.stop()
    later = bench.runner()
    assert later.snapshot(made[0]).state is RunState.PUBLISHING
    full.clear()
    for run_id in made:
        whole(bench, later, run_id)
    assert len(bench.faults.batches) == n_batches, "nothing was computed twice"
    assert not list(bench.home.glob("run-*/.tmp-*"))
    no_place_is_taken(later)


def test_a_journal_that_cannot_be_written_ends_that_run_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nla_core.jobs.store import RunFolder

    runner = bench.runner()
    bad = runner.pairs.get("tiny")
    bad_id = ask(f"{BAD} text").run_id(bad.describe())
    honest = RunFolder._append

    def append(self: RunFolder, lines: object) -> None:
        if self.path.name == bad_id and not mended.is_set():
            with files.explained(self.path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        honest(self, lines)  # type: ignore[arg-type]

    mended = threading.Event()
    monkeypatch.setattr(RunFolder, "_append", append)
    assert runner.submit(ask(f"{BAD} text"), "ann").run_id == bad_id
    good = runner.submit(ask(sentence(1)), "bob").run_id
    whole(bench, runner, good)
    end = runner.wait(bad_id, SOON)
    assert end.state is RunState.FAILED
    assert "is full" in str(end.error)
    mended.set()
    assert runner.retry(bad_id, "ann") > 0
    whole(bench, runner, bad_id)


@pytest.mark.slow
def test_thirty_runs_of_ten_visitors(bench: Bench) -> None:
    """All finish, in rounds: nobody's first run waits for somebody's third."""
    runner = bench.stopped()
    made: dict[str, list[str]] = {}
    for n in range(30):
        visitor = f"v{n // 3}"  # one visitor after the other, three runs each
        made.setdefault(visitor, []).append(runner.submit(ask(sentence(n, 6)), visitor).run_id)
    order: list[str] = []
    runner.start()
    pending = {run_id for runs in made.values() for run_id in runs}
    end = time.monotonic() + 4 * SOON
    while pending and time.monotonic() < end:
        over = [r for r in pending if runner.snapshot(r).finished]
        order += sorted(over, key=lambda r: runner.snapshot(r).finished or 0.0)
        pending -= set(over)
        time.sleep(0.02)
    assert not pending
    for runs in made.values():
        for run_id in runs:
            whole(bench, runner, run_id)
    rank = {run_id: place for place, run_id in enumerate(order)}
    firsts = [rank[runs[0]] for runs in made.values()]
    thirds = [rank[runs[2]] for runs in made.values()]
    assert sum(firsts) / 10 < 10 < 20 <= sum(thirds) / 10 + 3
    assert max(firsts) < 20
    shared = [set(batch) for batch in bench.faults.batches]
    assert max(len(batch) for batch in shared) >= 4, "runs of several visitors share batches"
    no_place_is_taken(runner)


def test_a_visitor_that_leaves_at_once_fifty_times(bench: Bench) -> None:
    runner = bench.runner(Limits(queue_per_visitor=3, queue_total=8))
    steady = runner.submit(ask(sentence(77, 10)), "steady").run_id
    for n in range(50):
        left = runner.submit(ask(sentence(100 + n)), "flighty").run_id
        runner.cancel(left, "flighty")
    whole(bench, runner, steady)
    for stored in runner.stored():
        end = runner.wait(stored.run_id, SOON)
        assert end.state in (RunState.DONE, RunState.CANCELLED)
    assert len([t for t in threading.enumerate() if t.name.startswith("runs-")]) == 3
    no_place_is_taken(runner, "flighty")


def test_a_visitor_that_closes_the_browser_changes_nothing(bench: Bench) -> None:
    runner = bench.runner()
    run_id = runner.submit(ask(sentence(8)), "gone").run_id
    end = time.monotonic() + SOON
    while time.monotonic() < end and not (bench.home / run_id / "CURRENT").exists():
        time.sleep(0.05)  # nobody asks the runner for anything
    assert (bench.home / run_id / "CURRENT").exists()


def test_a_restart_in_the_middle_goes_on_where_it_was(bench: Bench) -> None:
    first = bench.runner(batch_size=2)
    waiting, go_on = threading.Event(), threading.Event()

    def hold(texts: list[str]) -> None:
        if len(bench.faults.batches) == 4:
            waiting.set()
            go_on.wait(SOON)

    bench.faults.on_explain = hold
    requests = [ask(sentence(n, 8), sentence(n + 40, 8)) for n in range(3)]
    made = [first.submit(request, f"v{n}").run_id for n, request in enumerate(requests)]
    assert waiting.wait(SOON)
    before = {run_id: first.snapshot(run_id).done for run_id in made}
    assert sum(before.values()) >= 4
    threading.Timer(0.2, go_on.set).start()
    first.stop()
    bench.faults.on_explain = lambda texts: None
    later = bench.stopped(batch_size=2)
    n_batches = len(bench.faults.batches)
    later.start()
    for run_id in made:
        assert later.snapshot(run_id).done >= before[run_id]
        whole(bench, later, run_id)
    done_later = sum(len(batch) for batch in bench.faults.batches[n_batches:])
    total = sum(later.snapshot(run_id).total for run_id in made)
    assert done_later <= total - sum(before.values())
    no_place_is_taken(later)


def test_a_torn_journal_and_torn_files_cost_only_what_they_held(bench: Bench) -> None:
    runner = bench.runner()
    go_on = threading.Event()
    held = threading.Event()

    def hold(texts: list[str]) -> None:
        if len(bench.faults.batches) == 3:
            held.set()
            go_on.wait(SOON)

    bench.faults.on_explain = hold
    run_id = runner.submit(ask(sentence(1, 10), sentence(2, 10)), "ann").run_id
    assert held.wait(SOON)
    threading.Timer(0.2, go_on.set).start()
    runner.stop()
    work = bench.home / run_id / ".work"
    journal = work / "journal.jsonl"
    kept = journal.read_bytes()
    journal.write_bytes(kept[:-7])
    (work / "prompt-00001.npy").unlink(missing_ok=True)
    (work / "prompt-00001.json").write_text("{")
    later = bench.runner()
    whole(bench, later, run_id)
    assert (bench.home / "run-0123456789ab").mkdir() is None  # a folder that is no run
    assert [s.run_id for s in later.stored()] == [run_id]


KILLED = """
import sys, time
from pathlib import Path
from nla_core.jobs.models import Pairs
from nla_core.jobs.runner import JobRunner
from tests.precompute.fake import HashEmbedder
from tests.jobs.conftest import SETTINGS, ask, sentence

home, pair = map(Path, sys.argv[1:])
runner = JobRunner(home, pairs=Pairs(lambda: {"tiny": pair}), embedder=HashEmbedder(),
                   settings=SETTINGS)
runner.start()
made = [runner.submit(ask(sentence(n, 30)), f"v{n}").run_id for n in range(3)]
while sum(runner.snapshot(run_id).done for run_id in made) < 5:
    time.sleep(0.005)
print(*made, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_loses_nothing_that_was_finished(bench: Bench) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(bench.home), str(bench.pair)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        made = process.stdout.readline().split()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(made) == 3
    runner = bench.runner()
    done = sum(runner.snapshot(run_id).done for run_id in made)
    assert done >= 5
    for run_id in made:
        whole(bench, runner, run_id)
    no_place_is_taken(runner)


def test_long_texts_of_one_visitor_leave_the_others_their_share(bench: Bench) -> None:
    runner = bench.stopped()
    greedy = runner.submit(
        ask(sentence(1, 30), sentence(2, 30), verbalizer=Sampling(5)), "greedy"
    ).run_id
    small = runner.submit(ask(sentence(3), positions=Positions(Which.LAST, 4)), "small").run_id
    runner.start()
    whole(bench, runner, small)
    whole(bench, runner, greedy)
    at = [i for i, batch in enumerate(bench.faults.batches) if sentence(3) in batch]
    assert at[-1] <= 3, "the small run was through while the large one had just begun"
    assert len(bench.faults.batches) >= 8
