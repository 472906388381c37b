"""What a worker turns away, from the outside."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from nla_core.api.worker import check_token, identity_of
from nla_core.api.worker_app import application
from nla_core.errors import NLAError
from nla_core.explain import Explainer
from nla_core.runs import remote_wire as wire
from nla_core.runs.remote_link import Address
from tests.runs.workers import ROOT, SOON, TOKEN, Here
from tests.tiny import tiny_pair

ROW = {"position": 0, "sample": 0, "seed": 0, "norm": 1.0}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    pair = tiny_pair(tmp_path_factory.mktemp("worker"))
    return Explainer.load(pair, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def worker(real: Explainer) -> Iterator[Here]:
    made = Here(application(real, identity_of(real), TOKEN))
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"headers": {"Content-Type": "text/plain"}}, 415, "not application/json"),
        ({"headers": {"Authorization": ""}}, 401, "token"),
        ({"headers": {"Content-Length": str(10**9)}}, 413, "67,108,864"),
        ({"body": b"{"}, 400, "does not understand"),
        ({"body": b"[" * 100_000}, 400, "does not understand"),
        ({"body": b"{}"}, 400, "KeyError"),
        ({"fields": {"temperature": "hot"}}, 400, "hot"),
        ({"fields": {"vectors": "AAAA"}}, 400, "no tensor"),
        ({"fields": {"vectors": wire.packed(torch.zeros(1, 7))}}, 400, "7 numbers"),
        ({"fields": {"vectors": wire.packed(torch.zeros(2, 32))}}, 400, "1 rows"),
        ({"method": "GET"}, 405, "GET"),
        ({"path": "/v2/explain"}, 404, "v2"),
    ],
)
def test_what_is_wrong_is_refused_in_words(
    worker: Here, change: dict[str, object], status: int, told: str
) -> None:
    body = {
        "job": "x", "pair": ["pair", "0"], "rows": [ROW],
        "vectors": wire.packed(torch.ones(1, 32)), "temperature": 0, "max_new_tokens": 2,
        "batch_size": 2, "score_size": 1, **change.get("fields", {}),
    }  # fmt: skip
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=SOON)
    connection.request(
        str(change.get("method", "POST")),
        str(change.get("path", wire.EXPLAIN)),
        change.get("body", json.dumps(body).encode()),  # type: ignore[arg-type]
        headers | change.get("headers", {}),
    )
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == status, text
    assert told in text
    assert json.loads(text)["error"].keys() == {"what", "why", "fix"}


def test_without_a_token_a_worker_answers_loopback_names_alone(
    real: Explainer,
) -> None:
    open_one = Here(application(real, identity_of(real), None))
    assert Address(open_one.url).ask(wire.IDENTITY)["protocol"] == wire.PROTOCOL
    connection = http.client.HTTPConnection("127.0.0.1", open_one.port, timeout=SOON)
    connection.request("GET", wire.IDENTITY, headers={"Host": "evil.example:8600"})
    assert connection.getresponse().status == 403
    connection.close()
    open_one.stop()
    for host in ("0.0.0.0", "10.0.0.2", "::", "worker.example"):
        with pytest.raises(NLAError, match="without a token"):
            check_token(host, None)
        check_token(host, TOKEN)
    check_token("::1", None)
    with pytest.raises(NLAError, match="too short"):
        check_token("127.0.0.1", "secret")


def test_a_port_that_is_taken_is_told_before_models_load(worker: Here) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nla_core.api.worker", "--nla", "nowhere", "--port",
         str(worker.port)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot have the address" in done.stderr
    assert "Traceback" not in done.stderr
