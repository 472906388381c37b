"""Ray Serve on this machine: two replicas of the worker behind one address."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("ray.serve", exc_type=ImportError)

from nla_core.api.serve_app import build
from nla_core.errors import NLAError
from nla_core.explain import Explainer, Wanted
from nla_core.runs import remote_wire as wire
from nla_core.runs.remote import RemoteExplainer
from nla_core.runs.remote_link import Address, WorkerLost
from nla_core.runs.remote_wire import TOKEN_VARIABLE, Identity
from tests.tiny import tiny_pair

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As a replica has it: sums of two threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pair(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def address(pair: Path) -> Iterator[Address]:
    """The application of `deploy/serve.yaml`, but for pair, port and two replicas that stay."""
    import ray
    from ray import serve
    from ray.serve.schema import ServeDeploySchema

    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    config = yaml.safe_load((ROOT / "deploy/serve.yaml").read_text(encoding="utf-8"))
    config["http_options"]["port"] = port
    (application,) = config["applications"]
    application["args"] |= {"nla": str(pair), "device": "cpu", "dtype": "float32"}
    (deployment,) = application["deployments"]
    deployment["autoscaling_config"] |= {"min_replicas": 2}
    deployment["ray_actor_options"] = {"num_cpus": 0.5}
    schema = ServeDeploySchema.model_validate(config)
    assert schema.applications[0].import_path == f"{build.__module__}:{build.__name__}"
    environment = {"PYTHONPATH": str(ROOT), TOKEN_VARIABLE: TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": environment},
    )  # fmt: skip
    try:
        serve.start(proxy_location="HeadOnly", http_options=schema.http_options.model_dump())
        app = build(application["args"], **deployment)
        serve.run(app, name=application["name"], route_prefix=application["route_prefix"])
        yield Address(f"http://127.0.0.1:{port}", TOKEN)
    finally:
        serve.shutdown()
        ray.shutdown()


def test_two_replicas_answer_as_one_worker(address: Address, pair: Path) -> None:
    from ray import serve

    status = serve.status().applications["nla"].deployments["worker"]
    assert status.replica_states == {"RUNNING": 2}
    local = Explainer.load(pair, device="cpu", dtype="float32")
    remote = RemoteExplainer(address, Identity.from_json(address.ask(wire.IDENTITY)))
    assert remote.pair.key == (local.pair.pair_id, local.pair.revision)
    messages = ({"role": "user", "content": "the quick brown fox jumps"},)
    ask = {"seeds": [0], "max_new_tokens": 3, "temperature": 0.0}
    (here,) = local.transcribe([messages], **ask)  # type: ignore[arg-type]
    (there,) = remote.transcribe([messages], **ask)  # type: ignore[arg-type]
    assert not isinstance(here, NLAError)
    assert not isinstance(there, NLAError)
    assert torch.equal(here.hidden, there.hidden)
    assert here.tokens == there.tokens
    settings = {"temperature": 0.0, "max_new_tokens": 8, "batch_size": 4}
    wanted = [Wanted(here, position, 0, 7) for position in range(6)]
    expected = dict(local.explain_each(wanted, **settings))  # type: ignore[arg-type]
    found: list[dict[int, object]] = []

    def work() -> None:
        found.append(dict(remote.explain_each(wanted, **settings)))  # type: ignore[arg-type]

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [expected] * 6


def test_the_token_is_asked_for(address: Address) -> None:
    with pytest.raises(WorkerLost, match="token"):
        Address(address.url, "another-token-than-it").ask(wire.IDENTITY)


def test_it_listens_on_loopback_and_reports_to_nobody(address: Address) -> None:
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    port = int(address.url.rpartition(":")[2])
    listening = {
        line.split()[1]
        for name in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(name).read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].rpartition(":")[2], 16) == port
    }
    assert listening == {f"0100007F:{port:04X}"}


def test_arguments_that_are_not_ours_are_refused() -> None:
    with pytest.raises(NLAError, match="args has no nla"):
        build({"device": "cpu"})
    with pytest.raises(NLAError, match="args has pair"):
        build({"nla": "x", "pair": "y"})
