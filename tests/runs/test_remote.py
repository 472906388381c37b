"""Workers on other machines, from the outside: real processes, real sockets, kills in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from starlette.applications import Starlette

from nla_core.api.worker import bound, identity_of
from nla_core.api.worker_app import application
from nla_core.errors import Cancelled, NLAError
from nla_core.explain import Explainer
from nla_core.runs import remote_wire as wire
from nla_core.runs.remote import RemoteExplainer
from nla_core.runs.remote_link import Address, WorkerLost
from nla_core.runs.remote_wire import TOKEN_VARIABLE, Identity
from nla_core.runs.request import Positions, Sampling, Which
from nla_core.runs.store import RunState
from tests.runs.conftest import SOON, Bench, ask, sentence, whole
from tests.runs.workers import TOKEN, Here, Process, until


@pytest.fixture(scope="module")
def start(pair: Path) -> Iterator[Callable[[], Process]]:
    made: list[Process] = []

    def starting() -> Process:
        made.append(Process(pair))
        return made[-1]

    yield starting
    for process in made:
        process.kill()


@pytest.fixture(scope="module")
def two(start: Callable[[], Process]) -> tuple[Process, Process]:
    return start(), start()


@pytest.fixture
def serve() -> Iterator[Callable[..., Here]]:
    made: list[Here] = []

    def serving(app: Starlette, port: int = 0) -> Here:
        made.append(Here(app, port))
        return made[-1]

    yield serving
    for server in made:
        server.stop()


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)


def addresses(*workers: Process) -> str:
    return "+".join(worker.url for worker in workers)


def explainer(worker: Process) -> RemoteExplainer:
    return RemoteExplainer(worker.address, Identity.from_json(worker.address.ask(wire.IDENTITY)))


def test_runs_through_two_workers_are_those_of_this_process(
    bench: Bench, two: tuple[Process, Process]
) -> None:
    asked = [ask(sentence(n, 6), sentence(n + 20, 6)) for n in range(3)]
    remote = bench.runner(devices=addresses(*two), batch_size=4)
    made = [remote.submit(one, f"v{i}").run_id for i, one in enumerate(asked)]
    for run_id in made:
        whole(bench, remote, run_id)
    versions = [bench.dataset(run_id).version for run_id in made]
    assert bench.faults.n_loaded == 0, "nothing was loaded here"
    assert {s.state for s in remote.models("tiny").values()} == {"ready"}
    assert len(remote.models("tiny")) == 2
    remote.stop()
    for run_id in made:
        remote.delete(run_id)
    local = bench.runner(batch_size=4)
    assert [local.submit(one, f"v{i}").run_id for i, one in enumerate(asked)] == made
    for run_id in made:
        whole(bench, local, run_id)
    assert [bench.dataset(run_id).version for run_id in made] == versions, "the same bytes"


def test_a_worker_that_is_killed_at_work_costs_no_reading(
    bench: Bench, start: Callable[[], Process], two: tuple[Process, Process]
) -> None:
    doomed = start()
    runner = bench.runner(devices=addresses(doomed, two[0]), batch_size=3)
    long = {"verbalizer": Sampling(30), "target": Sampling(3)}
    made = [runner.submit(ask(sentence(n, 7), **long), f"v{n}").run_id for n in range(4)]
    until(lambda: doomed.address.ask(wire.IDENTITY)["jobs"])
    doomed.kill()
    for run_id in made:
        whole(bench, runner, run_id)
    states = runner.models("tiny")
    assert states[two[0].url].state == "ready"
    assert states[doomed.url].state == "not loaded"
    assert doomed.url in states[doomed.url].note


def test_a_worker_that_is_away_is_asked_again_until_it_is_there(
    bench: Bench, serve: Callable[..., Here]
) -> None:
    with bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    runner = bench.runner(devices=url)
    run_id = runner.submit(ask(), "ann").run_id
    until(lambda: "cannot be reached" in runner.snapshot(run_id).model)
    assert runner.snapshot(run_id).state is RunState.QUEUED
    assert url in runner.snapshot(run_id).model
    serve(application(bench.real, identity_of(bench.real), TOKEN), port)
    whole(bench, runner, run_id)


def test_a_wrong_token_is_told_and_takes_no_work(
    bench: Bench, two: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "another-token-than-theirs")
    runner = bench.runner(devices=two[0].url)
    run_id = runner.submit(ask(), "ann").run_id
    until(lambda: "token is missing or wrong" in runner.snapshot(run_id).model)
    assert runner.snapshot(run_id).state is RunState.QUEUED
    for token in (None, "x", TOKEN + "x", TOKEN[:-1]):
        with pytest.raises(WorkerLost, match="token is missing or wrong"):
            Address(two[0].url, token).ask(wire.IDENTITY)


def test_a_worker_with_another_pair_ends_the_run_with_a_reason(
    bench: Bench, serve: Callable[..., Here]
) -> None:
    other = replace(identity_of(bench.real), revision="0" * 12)
    runner = bench.runner(devices=serve(application(bench.real, other, TOKEN)).url)
    run_id = runner.submit(ask(), "ann").run_id
    end = runner.wait(run_id, SOON)
    assert end.state is RunState.FAILED
    assert end.error is not None
    assert "No worker has the pair" in end.error
    assert bench.real.pair.revision in end.error
    assert runner.models("tiny")[runner.settings.devices].state == "failed"


def test_jobs_say_which_pair_they_are_for(two: tuple[Process, Process]) -> None:
    remote = explainer(two[0])
    body = _transcribe_body(remote) | {"pair": ["pair", "0" * 12]}
    with pytest.raises(WorkerLost, match="does not hold the pair"):
        list(remote.address.lines(wire.TRANSCRIBE, body, lambda: False))


def test_memory_that_runs_out_there_is_memory_that_runs_out_here() -> None:
    there = json.loads(wire.error_line(torch.OutOfMemoryError("CUDA out of memory. Tried 2 GB")))
    assert isinstance(wire.error_of(there), torch.OutOfMemoryError)
    there = json.loads(wire.error_line(RuntimeError("DefaultCPUAllocator: can't allocate memory")))
    assert isinstance(wire.error_of(there), torch.OutOfMemoryError)
    refused = wire.error_of(json.loads(wire.error_line(NLAError("a", why="b", fix="c"))))
    assert (refused.what, refused.why, refused.fix) == ("a", "b", "c")  # type: ignore[attr-defined]
    broken = wire.error_of(json.loads(wire.error_line(ValueError("no"))))
    assert "ValueError: no" in str(broken)


def test_hanging_up_stops_the_work(two: tuple[Process, Process], real: Explainer) -> None:
    remote = explainer(two[1])
    (transcript,) = real.transcribe(
        [ask().prompts[0].content], seeds=[0], max_new_tokens=2, temperature=0.0
    )
    hang_up = [threading.Event(), threading.Event()]
    ended: list[str] = []

    def work(index: int) -> None:
        try:
            made = remote.explain_each(
                _wanted(transcript), temperature=0.0, max_new_tokens=20_000, batch_size=8,
                cancelled=hang_up[index].is_set,
            )  # fmt: skip
            ended.append(f"{index} made {len(list(made))}")
        except Cancelled:
            ended.append(f"{index} cancelled")

    def jobs() -> int:
        return int(remote.address.ask(wire.IDENTITY)["jobs"])

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(2)]
    for n, thread in enumerate(threads, start=1):
        thread.start()
        until(lambda n=n: jobs() == n)  # type: ignore[misc]
    hang_up[1].set()  # it waits for its turn
    threads[1].join(SOON)
    until(lambda: jobs() == 1)
    hang_up[0].set()  # in the middle of a text
    threads[0].join(SOON)
    until(lambda: jobs() == 0, 5.0)
    assert ended == ["1 cancelled", "0 cancelled"]


def test_rows_nobody_wants_are_given_up(two: tuple[Process, Process], real: Explainer) -> None:
    remote = explainer(two[1])
    (transcript,) = real.transcribe(
        [ask().prompts[0].content], seeds=[0], max_new_tokens=2, temperature=0.0
    )
    wanted = _wanted(transcript)
    kept = {
        row
        for row, _ in remote.explain_each(
            wanted, temperature=0.0, max_new_tokens=200, batch_size=8,
            still_wanted=lambda row: row == 2,
        )
    }  # fmt: skip
    assert 2 in kept
    assert len(kept) < len(wanted)


@pytest.mark.parametrize(
    "url", ["http://", "http://u:p@h:1", "http://h:99999", "http://h/?q=1", "ftp://h", "http://[x"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(NLAError, match="no address of a worker"):
        Address(url)


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [(200, b"<html>", "is no worker"), (200, b'{"protocol": 99}', "speaks version 99"),
     (302, b"", "status 302"), (500, b"oops", "status 500")],
)  # fmt: skip
def test_servers_that_are_no_workers(bench: Bench, status: int, body: bytes, told: str) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        runner = bench.runner(devices=f"http://127.0.0.1:{server.server_port}")
        run_id = runner.submit(ask(positions=Positions(Which.LAST, 1)), "ann").run_id
        until(lambda: told in runner.snapshot(run_id).model)
        assert runner.snapshot(run_id).state is RunState.QUEUED
        runner.stop()
    finally:
        server.shutdown()
        server.server_close()


def _wanted(transcript: object) -> list[object]:
    from nla_core.explain import Wanted

    return [Wanted(transcript, position, 0, 0) for position in range(4)]  # type: ignore[arg-type]


def _transcribe_body(remote: RemoteExplainer) -> dict[str, object]:
    job = wire.TranscribeJob("x", remote.pair.key, ("a text",), (0,), 0.0, 1)
    return job.to_json()
