"""``bench app``: how long the server takes to answer a person, with one, ten and fifty at a time.

Knows what a person does: reads a transcript and clicks its tokens, narrows the list, searches, goes
from page to page. Does not know Streamlit's messages. The decision a reader would question: people
pause between two acts (a second on average, drawn from one seed), since fifty sessions that never
pause are a queue and no reading room; the pause is in the result.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from nla_core.errors import EXIT_CHECK_FAILED, EXIT_OK, NLAError
from nla_core.links import ViewState
from nla_core.paths import PROJECT
from nla_core.store.dataset import Dataset
from nla_core.store.mounts import DATA_VARIABLE, RUNS_VARIABLE
from precompute.benches.sessions import Session, session
from precompute.output import say, write_result

START_SECONDS: Final = 120
ACTS: Final = ("token click", "facet change", "search", "page switch")
RUN_PROMPTS: Final = 40
FIRST_READING_S: Final = 180.0
TARGET_MS: Final = 300.0
"""What the 95th percentile of a token click at ten sessions has to stay below."""

Times = dict[str, list[float]]
Pause = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Material:
    """What there is to read: transcripts with their explained positions, and words to look for."""

    transcripts: tuple[tuple[str, tuple[int, ...]], ...]
    words: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Dataset, n: int = 200) -> Material:
        rows = dataset.transcripts(sort="mean_fve", descending=True, limit=n)
        ids = rows[rows["n_readings"] > 5]["transcript_id"]
        if ids.empty:
            raise NLAError(
                f"There is nothing to read in {dataset.root}",
                why="no transcript has more than five readings",
                fix="Give --dataset another one",
            )
        places = [(found, tuple(dataset.readings(found)["position"].unique())) for found in ids]
        words = {
            word
            for text in dataset.some_explanations(500)
            for word in re.findall(r"[A-Za-z]{4,}", text.lower())
        }
        return cls(tuple(places), tuple(sorted(words)))


class Log:
    """Seconds that acts took, by kind, and the server's processor time up to the act that followed.

    Processor time can be told apart only where one person acts at a time.
    """

    def __init__(self, cpu: Callable[[], float | None] = lambda: None) -> None:
        self.times: Times = defaultdict(list)
        self.cpu: Times = defaultdict(list)
        self._clock = cpu
        self._last: tuple[str, float] | None = None

    async def __call__(self, act: str, doing: Awaitable[float]) -> None:
        self.settle()
        before = self._clock()
        self.times[act].append(await doing)
        self._last = None if before is None else (act, before)

    def settle(self) -> None:
        """Book what was used since the last act; Streamlit tidies up after it has answered."""
        now = self._clock()
        if self._last is not None and now is not None:
            self.cpu[self._last[0]].append(now - self._last[1])
        self._last = None


async def one_round(
    person: Session, material: Material, rng: random.Random, log: Log, pause: Pause
) -> None:
    """What one person does once: eleven acts."""
    transcript, places = rng.choice(material.transcripts)
    await log("page switch", person.open("explore", ViewState(transcript=transcript).query))
    for _ in range(4):
        await pause()
        lock = {"position": int(rng.choice(places))}
        await log("token click", person.press("token_strip", "lock", lock))
    await pause()
    await log("page switch", person.open("browse"))
    for facet in ("facet_category", "facet_fidelity"):
        await pause()
        label = rng.choice(person.options(facet))
        await log("facet change", person.choose(facet, label))
    await pause()
    await log("page switch", person.open("search"))
    for n in (1, 2):
        await pause()
        text = " ".join(rng.sample(material.words, n))
        await log("search", person.type("search_text", text))
    await pause()
    log.settle()


async def people(
    address: str,
    material: Material,
    n: int,
    rounds: int,
    pause_s: float,
    *,
    seed: int,
    cpu: Callable[[], float | None],
) -> tuple[Log, list[str]]:
    """``n`` sessions at once, each for ``rounds``: what they did, and what pages showed that was
    an exception."""
    log = Log(cpu) if n == 1 else Log()
    wrong: list[str] = []

    async def person(number: int) -> None:
        rng = random.Random(f"{seed}/{n}/{number}")

        async def pause() -> None:
            await asyncio.sleep(rng.expovariate(1 / pause_s) if pause_s else 0)

        async with session(address) as opened:
            await asyncio.sleep(rng.uniform(0, pause_s * 2))  # nobody comes at the same moment
            await opened.open("about")
            await pause()
            for _ in range(rounds):
                await one_round(opened, material, rng, log, pause)
            wrong.extend(opened.exceptions)

    await asyncio.gather(*(person(number) for number in range(n)))
    return log, wrong


def summary(log: Log) -> dict[str, dict[str, float]]:
    """Of each act: count, median, 95th percentile and maximum in milliseconds; ``cpu_ms`` is the
    mean of the server's processor time, where it is known."""
    found: dict[str, dict[str, float]] = {}
    for act in ACTS:
        times = np.array(log.times[act]) * 1000
        found[act] = {
            "n": len(times),
            "median_ms": round(float(np.median(times)), 1),
            "p95_ms": round(float(np.percentile(times, 95)), 1),
            "max_ms": round(float(times.max()), 1),
        }
        if log.cpu[act]:
            found[act]["cpu_ms"] = round(float(np.mean(log.cpu[act])) * 1000, 1)
    return found


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Median / p95 in milliseconds, an act a row and a number of sessions a column."""
    head = "| server time, ms | " + " | ".join(f"{n} at a time" for n in results) + " |"
    rows = [
        f"| {act} | "
        + " | ".join(
            f"{r[act]['median_ms']:.0f} / {r[act]['p95_ms']:.0f}" for r in results.values()
        )
        + " |"
        for act in ACTS
    ]
    return "\n".join([head, "|---|" + "---|" * len(results), *rows])


@contextlib.contextmanager
def serving(
    root: Path, runs: tempfile.TemporaryDirectory[str] | None = None
) -> Iterator[tuple[str, int, float]]:
    """The app on a free port: (address, process id, seconds until it answered)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", f"--server.port={port}"]
    environment = os.environ | {DATA_VARIABLE: str(root.resolve())}
    if runs is not None:
        environment[RUNS_VARIABLE] = runs.name
    address, start = f"http://127.0.0.1:{port}", time.perf_counter()
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL
    ) as server:
        try:
            while not _healthy(address):
                if server.poll() is not None or time.perf_counter() - start > START_SECONDS:
                    raise NLAError(
                        "The app did not start",
                        why=f"`{' '.join(command)}` ended or was silent for {START_SECONDS} s",
                        fix="Run that command and read what it says",
                    )
                time.sleep(0.05)
            yield address, server.pid, time.perf_counter() - start
        finally:
            server.terminate()


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def resident_mb(pid: int) -> int | None:
    """Memory of a process in RAM, where the system says so."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) // 1024 if found else None


def processor_seconds(pid: int) -> float | None:
    """Processor time that a process has used so far, where the system says so."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_run(address: str, dataset: Dataset) -> str:
    """Ask the server for a long run, and wait until its first reading is there; the run's address.

    Raises NLAError where there is none within ``FIRST_READING_S``.
    """
    prompts = list(dict.fromkeys(dataset.some_explanations(RUN_PROMPTS)))
    body = {"prompts": prompts, "target": {"max_tokens": 16}, "name": "bench app"}
    made = _json(f"{address}/api/v1/runs", json.dumps(body).encode())
    run, until = f"{address}/api/v1/runs/{made['run_id']}", time.perf_counter() + FIRST_READING_S
    while not _json(run)["run"]["done"]:
        if time.perf_counter() > until:
            raise NLAError(
                "The run beside the measurement has no reading",
                why=f"{FIRST_READING_S} s are over",
                fix="Look at the log of `make app`",
            )
        time.sleep(0.5)
    return run


def _json(address: str, body: bytes | None = None) -> Any:
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(address, body, headers)) as response:
        return json.load(response)


def measure(
    root: Path, counts: list[int], rounds: int, pause_s: float, during_run: bool = False
) -> dict[str, Any]:
    """Start the app on the dataset at ``root`` and time it with so many sessions at once.

    ``during_run``: while the server reads forty prompts with its own pair.
    """
    load = [round(os.getloadavg()[0], 1)]
    dataset = Dataset.open(root)
    material = Material.of(dataset)
    results: dict[str, dict[str, dict[str, float]]] = {}
    wrong: list[str] = []
    run_home = tempfile.TemporaryDirectory(prefix="nla-bench-") if during_run else None
    beside: dict[str, Any] = {}
    with run_home or contextlib.nullcontext(), serving(root, run_home) as (address, pid, start_s):
        say(f"the server answered after {start_s:.1f} s")

        def cpu() -> float | None:
            return processor_seconds(pid)

        first, _ = asyncio.run(people(address, material, 1, 1, 0.0, seed=1, cpu=cpu))
        run = start_run(address, dataset) if during_run else None
        for n in counts:
            # As many acts as make a 95th percentile mean something.
            each = max(2, -(-rounds // n))
            log, said = asyncio.run(people(address, material, n, each, pause_s, seed=2, cpu=cpu))
            results[str(n)], wrong = summary(log), wrong + said
            clicks = results[str(n)]["token click"]
            say(
                f"{n} at a time: {sum(map(len, log.times.values()))} acts, token click "
                f"{clicks['median_ms']:.0f} ms, 95th percentile {clicks['p95_ms']:.0f} ms"
            )
        memory = resident_mb(pid)
        if run is not None:
            told = _json(run)["run"]
            beside = {name: told[name] for name in ("state", "done", "total", "rate")}
    load.append(round(os.getloadavg()[0], 1))
    at_ten = results.get("10", {}).get("token click", {}).get("p95_ms")
    return {
        "sessions": results,
        "pause_s": pause_s,
        "during_run": beside or None,
        "start_s": round(start_s, 2),
        "first_search_ms": round(max(first.times["search"]) * 1000),
        "resident_mb": memory,
        "exceptions": wrong,
        "click_p95_at_10_below_300_ms": None if at_ten is None else at_ten < TARGET_MS,
        "dataset": dataset.root.resolve().name,
        "version": dataset.version,
        "counts": dict(dataset.manifest.counts),
        "cores": os.cpu_count(),
        "load_average_before_and_after": load,
        "processor": platform.processor() or platform.machine(),
    }


def main(args: argparse.Namespace) -> int:
    """Print the table; ``--json`` gets all of it. Fails where a page showed an exception."""
    result = measure(args.dataset, args.sessions, args.rounds, args.pause, args.during_run)
    print(table(result["sessions"]))
    if args.note:
        result["note"] = args.note
    write_result(args, {"ok": not result["exceptions"], **result})
    for line in result["exceptions"][:3]:
        say(f"a page showed: {line}")
    return EXIT_CHECK_FAILED if result["exceptions"] else EXIT_OK
