"""Runs from the outside: a server that was really started, a real queue, real lines on a socket."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.screenshots import serving
from tests.api.running import asked
from tests.gate import Gate
from tests.tiny import tiny_pair

pytestmark = [pytest.mark.app, pytest.mark.slow]

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def closed_gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    gate = Gate(tmp_path_factory.mktemp("gate") / "gate")
    gate.close()
    return gate


@pytest.fixture(scope="module")
def address(
    dataset_root: Path, tmp_path_factory: pytest.TempPathFactory, closed_gate: Gate
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_RUNS", str(folder / "runs"))
        patch.setenv("NLA_PAIRS", str(tiny_pair(folder)))
        patch.setenv("NLA_RUN_TOKEN", TOKEN)
        patch.setenv("NLA_RUN_WORKER", "devices=cpu,dtype=float32,batch_size=4")
        patch.setenv("HF_HUB_OFFLINE", "1")
        with serving(dataset_root, **closed_gate.environment) as url:
            yield url + "/api/v1"


def send(method: str, url: str, body: Any = None, **headers: str) -> Any:
    """The open response; whoever reads it decides how much."""
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, named, method=method)
    if data is not None:
        request.add_header("Content-Type", "application/json")
    return urllib.request.urlopen(request, timeout=120)


def test_a_run_is_asked_for_watched_and_taken_away(address: str, closed_gate: Gate) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    body = asked("rain falls on the old stone bridge", positions="all", pair="pair")
    with pytest.raises(urllib.error.HTTPError) as refusal:
        send("POST", f"{address}/runs", body)
    assert refusal.value.code == 401
    assert "Bearer" in json.load(refusal.value)["error"]["fix"]
    with pytest.raises(urllib.error.HTTPError) as refusal:
        send("POST", f"{address}/runs", body, Origin="http://evil.example", **bearer)
    assert refusal.value.code == 403

    with send("POST", f"{address}/runs", body, **bearer) as response:
        assert response.status == 202
        run = f"{address}/runs/{json.load(response)['run_id']}"

    # One listener goes away after the first line; the other hears all of it.
    with send("GET", f"{run}/events?format=jsonl") as lost:
        assert json.loads(lost.readline())["kind"] == "run"
    with send("GET", f"{run}/events?format=jsonl", Accept_Encoding="identity") as stream:
        lines = [json.loads(stream.readline())]
        closed_gate.open()
        lines += [json.loads(line) for line in stream]
    states = [line["run"]["state"] for line in lines if line["kind"] == "run"]
    assert states[0] in ("queued", "running")
    assert states[-1] == "done"
    made = [line["reading"] for line in lines if line["kind"] == "reading"]
    assert len(made) == lines[-1]["run"]["done"] > 5

    with send("GET", f"{run}/export") as export:
        names = zipfile.ZipFile(io.BytesIO(export.read())).namelist()
    assert any(name.endswith("readings.parquet") for name in names)
    dataset = lines[-1]["run"]["dataset"]
    with send("GET", f"{address}/readings?dataset={dataset}&format=jsonl") as response:
        published = [json.loads(line) for line in response]
    assert {(r["position"], r["explanation"]) for r in published} == {
        (r["position"], r["explanation"]) for r in made
    }
    with send("DELETE", run, **bearer) as response:
        assert response.status == 200
