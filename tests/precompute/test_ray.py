"""Shards on Ray: the same bytes as on one process, whoever dies in between."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("ray", exc_type=ImportError)

from nla_core.data.dataset import Dataset
from nla_core.errors import NLAError
from nla_core.schema import Status
from precompute import engines
from precompute.corpus import read_corpus
from precompute.engines import Need, RayEngine
from precompute.plan import Plan
from precompute.run import execute
from precompute.workspace import RECEIPT
from tests.precompute.conftest import PROMPTS, WriteCorpus, prompt
from tests.precompute.fake import (
    DEADLY,
    FakeExplainer,
    HashEmbedder,
    fake_plan,
    published,
    run_fake,
)
from tests.tiny import tiny_pair

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("NLA_KILLS", "0"))
KILLING = pytest.mark.skipif(not KILLS, reason="takes minutes: NLA_KILLS=20 runs it")
# With a death wish (PR_SET_PDEATHSIG): it must not outlive tests that are killed.
CLUSTER = """
import ctypes
from ray.scripts.scripts import main
ctypes.CDLL(None).prctl(1, 15)
main()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A cluster of two CPUs in a process of its own."""
    home = tempfile.mkdtemp(prefix="nla-ray-")  # short: paths of sockets are
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, "start", "--head",
         "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2", "--num-gpus=0",
         "--include-dashboard=false", "--disable-usage-stats", "--block",
         f"--temp-dir={home}"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "Ray runtime started" in line:
            break
    else:
        raise AssertionError(said)
    threading.Thread(target=process.stdout.read, daemon=True).start()
    yield f"127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)


class Slow(FakeExplainer):
    """Says which process it is in, waits for others where ``together`` asks for it, and works."""

    def __init__(self, pids: Path, seconds: float, together: int) -> None:
        super().__init__(self.wait)
        self.pids, self.seconds, self.together = pids, seconds, together
        (pids / str(os.getpid())).touch()

    def wait(self) -> None:
        end = time.monotonic() + 60
        while len(list(self.pids.iterdir())) < self.together and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(self.seconds)


def run_on(
    engine: RayEngine, plan: Plan, out: Path, pids: Path, seconds: float = 0.0, together: int = 1
) -> None:
    pids.mkdir(exist_ok=True)
    make = partial(Slow, pids, seconds, together)
    execute(plan, out, make, embedder=HashEmbedder(), engine=engine)


def long_corpus(write: WriteCorpus, *more: str) -> Path:
    texts = [f"the question number {n} is long" for n in range(30)]
    prompts = [prompt(f"q-{n:02d}", text) for n, text in enumerate([*texts, *more])]
    return write(PROMPTS + prompts)


def test_ray_gives_the_bytes_of_the_local_engine(
    cluster: str, plan: Plan, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    run_on(RayEngine(cluster, 2), plan, tmp_path / "ray", tmp_path / "pids", together=2)
    assert published(tmp_path / "ray") == reference
    assert len(list((tmp_path / "pids").iterdir())) == 2
    run_on(RayEngine(cluster), plan, tmp_path / "ray", tmp_path / "none")
    assert not list((tmp_path / "none").iterdir()), "nothing was left to do"


@KILLING
def test_workers_killed_at_random_moments_change_nothing(
    cluster: str, write_corpus: WriteCorpus, tmp_path: Path
) -> None:
    plan = fake_plan(read_corpus([long_corpus(write_corpus)]), shard_size=1)
    run_fake(plan, tmp_path / "whole")
    pids, over, killed = tmp_path / "pids", threading.Event(), 0
    pids.mkdir()
    chance = random.Random(11)

    def kill() -> None:
        nonlocal killed
        while killed < KILLS and not over.wait(chance.uniform(0.05, 0.6)):
            alive = sorted(pids.iterdir())
            if alive:
                victim = chance.choice(alive)
                victim.unlink()
                os.kill(int(victim.name), signal.SIGKILL)
                killed += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run_on(RayEngine(cluster, 2), plan, tmp_path / "killed", pids, seconds=0.4)
    finally:
        over.set()
        killer.join()
    assert killed >= KILLS // 2, f"only {killed} kills fell into the run"
    assert published(tmp_path / "killed") == published(tmp_path / "whole")


# A parent that has imported everything forks a driver for each moment, and kills it then.
DRIVERS = """
import os, random, signal, sys, time
from pathlib import Path
import ray
from precompute import publish as publish_verb
from precompute.corpus import read_corpus
from precompute.engines import RayEngine
from tests.precompute.fake import fake_plan
from tests.precompute.test_ray import run_on

publish_verb.git_commit = lambda: "test"
home, corpus, cluster, kills = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
plan = fake_plan(read_corpus([corpus]), shard_size=2)

def driver(out):
    child = os.fork()
    if not child:
        code = 1
        try:
            run_on(RayEngine(cluster, 1), plan, out, home / "pids", seconds=0.1)
            code = 0
        finally:
            os._exit(code)
    return child

assert os.waitpid(driver(home / "whole"), 0)[1] == 0
chance = random.Random(5)
for n in range(kills):
    child = driver(home / f"killed-{n:02d}")
    loaded = len(list((home / "pids").iterdir()))
    end = time.monotonic() + 60
    while n % 2 and len(list((home / "pids").iterdir())) == loaded and time.monotonic() < end:
        time.sleep(0.01)  # every other one while shards are done
    time.sleep(chance.uniform(0.0, 0.5))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@KILLING
def test_drivers_killed_at_random_moments_leave_what_a_rerun_completes(
    cluster: str, plan: Plan, corpus_file: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVERS, str(tmp_path), str(corpus_file), cluster, str(KILLS)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert published(tmp_path / "whole") == reference
    left = sorted(tmp_path.glob("killed-*"))
    receipts = set()
    for n in range(KILLS):
        out = tmp_path / f"killed-{n:02d}"
        receipts.add(sum(1 for _ in out.rglob(RECEIPT)))
        run_fake(plan, out)
        found = {p: b for p, b in published(out).items() if not p.startswith(".tmp-")}
        assert found == reference, f"kill {n}"
    assert left
    assert len(receipts) >= 2 or KILLS < 10, f"all kills fell on the same moment: {receipts}"


def test_a_prompt_that_kills_its_workers_costs_its_own_rows(
    cluster: str, write_corpus: WriteCorpus, tmp_path: Path
) -> None:
    deadly = read_corpus([long_corpus(write_corpus, f"a {DEADLY} one")])
    plan = fake_plan(deadly, shard_size=4)
    run_on(RayEngine(cluster, 2), plan, tmp_path / "deadly", tmp_path / "pids")
    rows = Dataset.open(tmp_path / "deadly").transcripts().set_index("prompt_id")
    assert rows.loc["q-30", "status"] == Status.ERROR
    assert "the workers that tried it died" in rows.loc["q-30", "error"]
    harmless = fake_plan(read_corpus([long_corpus(write_corpus, "a tame one")]), shard_size=4)
    run_fake(harmless, tmp_path / "tame")
    tame = Dataset.open(tmp_path / "tame").transcripts().set_index("prompt_id")
    others = [name for name in rows.index if name != "q-30"]
    columns = ["transcript_id", "status", "n_readings", "mean_fve"]
    assert rows.loc[others, columns].equals(tame.loc[others, columns])


def test_mistakes_of_workers_end_the_run_in_words(cluster: str, plan: Plan, tmp_path: Path) -> None:
    def refuse() -> FakeExplainer:
        raise NLAError("There is no pair", why="the folder is empty", fix="Train one")

    with pytest.raises(NLAError, match="There is no pair"):
        execute(plan, tmp_path, refuse, embedder=None, engine=RayEngine(cluster))

    def stumble() -> FakeExplainer:
        raise KeyError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        execute(plan, tmp_path, stumble, embedder=None, engine=RayEngine(cluster))

    def die() -> FakeExplainer:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with pytest.raises(NLAError, match="die while they load"):
        execute(plan, tmp_path, die, embedder=None, engine=RayEngine(cluster))


def test_a_cluster_without_room_says_what_is_missing(
    cluster: str, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    for engine, told in (
        (RayEngine(cluster, 3), "3 workers of 1 CPU"),
        (RayEngine(cluster, gpu=True), "1 workers of 1 GPU and 1 CPU"),
    ):
        with pytest.raises(NLAError, match=f"no room for {told}") as error:
            execute(plan, tmp_path, FakeExplainer, embedder=None, engine=engine)
        assert "2 CPU, 0 GPU" in error.value.why
    ray = engines.connected(cluster)
    holder = ray.remote(Hold).options(num_cpus=2).remote()  # somebody else has all of it
    assert ray.get(holder.there.remote())
    monkeypatch.setattr(engines, "connected", lambda address: ray)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(NLAError, match="no worker for 3 seconds") as error:
        execute(
            plan, tmp_path, FakeExplainer, embedder=None, engine=RayEngine(cluster, 2, place_s=3.0)
        )
    assert "free are 0 CPU" in error.value.why
    monkeypatch.undo()
    ray.shutdown()
    assert time.monotonic() - began < 60


class Hold:
    def there(self) -> bool:
        return True


def test_a_cluster_that_is_not_there(tmp_path: Path, plan: Plan) -> None:
    with pytest.raises(NLAError, match="127.0.0.1:1 cannot be used"):
        execute(plan, tmp_path, FakeExplainer, embedder=None, engine=RayEngine("127.0.0.1:1"))


def test_shares_of_a_cluster() -> None:
    two = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}]
    assert RayEngine(workers=2).need(two) == Need(4.0)
    assert RayEngine(workers=3).need(two) == Need(4.0)
    assert RayEngine(workers=12).need(two) == Need(1.0)
    assert RayEngine().need(two) == Need(4.0)
    assert Need(4.0).room(two) == 3
    assert RayEngine(gpu=True).need(two).room(two) == 2
    with pytest.raises(NLAError, match="no room for 13"):
        RayEngine(workers=13).need(two)
    with pytest.raises(NLAError, match="--workers 0"):
        RayEngine(workers=0)


def test_the_command_gives_the_bytes_of_the_local_one(
    write_corpus: WriteCorpus, tmp_path: Path
) -> None:
    """A cluster of its own, the tiny pair, two workers."""
    pair = tiny_pair(tmp_path)
    corpus = write_corpus([prompt(f"p-{n}", f"the quick brown fox {n}") for n in range(6)])
    outs = {}
    for engine in (["local"], ["ray", "--workers", "2"]):
        out = tmp_path / engine[0] / "data"
        done = subprocess.run(
            [sys.executable, "-m", "precompute", "run", "--nla", str(pair), "--corpus",
             str(corpus), "--out", str(out), "--max-new-tokens", "3", "--explanation-tokens", "6",
             "--shard-size", "1", "--device", "cpu", "--dtype", "float32", "--no-publish",
             "--engine", *engine],
            cwd=ROOT, capture_output=True, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # Ray gives a worker of one CPU one thread
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        outs[engine[0]] = {
            str(path.relative_to(out)): path.read_bytes()
            for path in out.rglob("*")
            if path.is_file() and path.suffix in (".parquet", ".json")
        }
    assert outs["ray"] == outs["local"]
    assert len(outs["ray"]) == 6 * 4 + 1
    shutil.rmtree(tmp_path / "ray")
