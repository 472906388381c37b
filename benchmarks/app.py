"""People in the app: how long the server takes to answer clicks, facets, searches and pages.

Starts the app and speaks Streamlit's own protocol with it, so a session is a browser's without a
browser. People pause between two acts (a second on average): sessions that never pause are a queue.
The reference is a Streamlit page of one word that is run again in the same sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
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
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect

from benchmarks import harness
from benchmarks.harness import ROOT, Figure
from nla_core.data.dataset import DATA_VARIABLE, RUNS_VARIABLE, Dataset
from nla_core.errors import NLAError
from nla_core.links import ViewState

NAME = "app"
START_SECONDS: Final = 120
TIMEOUT: Final = 120.0
"""Seconds after which an answer is no longer waited for."""
ACTS: Final = ("token click", "facet change", "search", "page switch")
BARE: Final = 'import streamlit as st\n\nst.write("x")\n'
BARE_RUNS: Final = 20

Times = dict[str, list[float]]


# ---- a browser's side of a session ---------------------------------------------------------------

_DONE: Final = (
    ForwardMsg.FINISHED_SUCCESSFULLY,
    ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY,
)


@dataclass(frozen=True, slots=True)
class Widget:
    """``kind`` is its element's name in the protocol; ``options`` the labels of pills."""

    id: str
    kind: str
    fragment: str
    options: tuple[str, ...] = ()


@dataclass(slots=True)
class Session:
    """One open session. ``widgets`` are those drawn so far on this page, by their key."""

    socket: ClientConnection
    widgets: dict[str, Widget] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)  # url path -> page hash
    page: str = ""
    query: str = ""
    exceptions: list[str] = field(default_factory=list)

    async def open(self, page: str, query: str = "") -> float:
        """Go to a page by its url path, as a link does; seconds until it has been drawn."""
        message = BackMsg()
        self.query = query
        self.widgets.clear()
        if page in self.pages:
            self.page = self.pages[page]
        else:
            message.rerun_script.page_name = page
        return await self._run(message)

    async def press(self, key: str, event: str, value: Any) -> float:
        """Fire a component's trigger; seconds until the answer has been drawn."""
        widget = self._widget(key)
        message = BackMsg()
        state = message.rerun_script.widget_states.widgets.add()
        state.id = f"$$STREAMLIT_INTERNAL_KEY_{widget.id}__events"
        state.json_trigger_value = json.dumps([{"event": event, "value": value}])
        return await self._run(message, widget.fragment)

    async def type(self, key: str, text: str) -> float:
        """Give a text field another value."""
        widget = self._widget(key)
        message = BackMsg()
        state = message.rerun_script.widget_states.widgets.add()
        state.id, state.string_value = widget.id, text
        return await self._run(message, widget.fragment)

    async def choose(self, key: str, *labels: str) -> float:
        """Choose among pills, or let go of what was chosen."""
        widget = self._widget(key)
        message = BackMsg()
        state = message.rerun_script.widget_states.widgets.add()
        state.id = widget.id
        state.string_array_value.data.extend(labels)
        return await self._run(message, widget.fragment)

    def options(self, key: str) -> tuple[str, ...]:
        return self._widget(key).options

    def _widget(self, key: str) -> Widget:
        if key not in self.widgets:
            raise NLAError(
                f"The page has no widget {key!r}",
                why=f"it has {', '.join(self.widgets) or 'none'}",
                fix="Look at the page in a browser; the benchmark follows its widgets by key",
            )
        return self.widgets[key]

    async def _run(self, message: BackMsg, fragment: str = "") -> float:
        asked = message.rerun_script
        asked.query_string, asked.fragment_id = self.query, fragment
        asked.page_script_hash = self.page
        start = time.perf_counter()
        await self.socket.send(message.SerializeToString())
        try:
            async with asyncio.timeout(TIMEOUT):
                while True:
                    data = await self.socket.recv()
                    arrived = time.perf_counter()
                    answer = ForwardMsg()
                    answer.ParseFromString(data if isinstance(data, bytes) else data.encode())
                    if self._heard(answer):
                        return arrived - start
        except TimeoutError:
            raise NLAError(
                "The app did not answer",
                why=f"a run was not finished after {TIMEOUT:.0f} s",
                fix="Ask for fewer sessions, or look into what the server is doing",
            ) from None

    def _heard(self, answer: ForwardMsg) -> bool:
        """Take in one message; whether it ends the run."""
        match answer.WhichOneof("type"):
            case "script_finished":
                return answer.script_finished in _DONE
            case "navigation":
                self.pages = {
                    p.url_pathname: p.page_script_hash for p in answer.navigation.app_pages
                }
                self.page = answer.navigation.page_script_hash
            case "page_info_changed":
                self.query = answer.page_info_changed.query_string
            case "delta":
                self._drawn(answer)
        return False

    def _drawn(self, answer: ForwardMsg) -> None:
        if answer.delta.WhichOneof("type") != "new_element":
            return
        element = answer.delta.new_element
        kind = element.WhichOneof("type") or ""
        content: Any = getattr(element, kind, None)
        if kind == "exception":
            self.exceptions.append(f"{content.type}: {content.message}")
        if name := getattr(content, "id", ""):
            key = name.split("-", 2)[-1]  # $$ID-<hash>-<key>
            options = (
                tuple(option.content for option in getattr(content, "options", ()))
                if (kind == "button_group")
                else ()
            )
            self.widgets[key] = Widget(name, kind, answer.delta.fragment_id, options)


@asynccontextmanager
async def session(address: str) -> AsyncIterator[Session]:
    """A session with the server at ``address`` (http://host:port); nothing is drawn yet."""
    url = address.replace("http://", "ws://") + "/_stcore/stream"
    async with connect(
        url,
        origin=address,  # type: ignore[arg-type]
        subprotocols=["streamlit"],  # type: ignore[list-item]
        max_size=None,
        ping_interval=None,
    ) as socket:
        yield Session(socket)


# ---- what people do ------------------------------------------------------------------------------


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


async def one_round(
    person: Session, material: Material, rng: random.Random, times: Times, pause_s: float
) -> None:
    """What one person does once: eleven acts."""

    async def act(kind: str, doing: Awaitable[float]) -> None:
        times[kind].append(await doing)
        await asyncio.sleep(rng.expovariate(1 / pause_s) if pause_s else 0)

    transcript, places = rng.choice(material.transcripts)
    await act("page switch", person.open("explore", ViewState(transcript=transcript).query))
    for _ in range(4):
        lock = {"position": int(rng.choice(places))}
        await act("token click", person.press("token_strip", "lock", lock))
    await act("page switch", person.open("browse"))
    for facet in ("facet_category", "facet_fidelity"):
        label = rng.choice(person.options(facet))
        await act("facet change", person.choose(facet, label))
    await act("page switch", person.open("search"))
    for n in (1, 2):
        text = " ".join(rng.sample(material.words, n))
        await act("search", person.type("search_text", text))


async def people(
    address: str, material: Material, n: int, rounds: int, pause_s: float, *, seed: int
) -> tuple[Times, list[str]]:
    """``n`` sessions at once, each for ``rounds``: seconds by act, and exceptions on pages."""
    times: Times = defaultdict(list)
    wrong: list[str] = []

    async def person(number: int) -> None:
        rng = random.Random(f"{seed}/{n}/{number}")
        async with session(address) as opened:
            await asyncio.sleep(rng.uniform(0, pause_s * 2))  # nobody comes at the same moment
            await opened.open("about")
            for _ in range(rounds):
                await one_round(opened, material, rng, times, pause_s)
            wrong.extend(opened.exceptions)

    await asyncio.gather(*(person(number) for number in range(n)))
    return times, wrong


async def bare_runs(address: str) -> list[float]:
    """Seconds of each run of a page of one word, in one session."""
    async with session(address) as opened:
        return [await opened.open("") for _ in range(BARE_RUNS)]


# ---- the server ----------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(script: Path, environment: dict[str, str]) -> Iterator[tuple[str, float]]:
    """A Streamlit server on a free port: its address, and the seconds until it answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}"]
    address, start = f"http://127.0.0.1:{port}", time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL
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
            yield address, time.perf_counter() - start
        finally:
            server.terminate()


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def measure(
    root: Path, counts: Sequence[int], rounds: int, pause_s: float
) -> tuple[dict[str, Figure], list[str]]:
    """Figures of the app over the dataset at ``root``, and exceptions that pages showed."""
    material = Material.of(Dataset.open(root))
    figures: dict[str, Figure] = {}
    wrong: list[str] = []
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nla-bench-")))
        (home / "bare.py").write_text(BARE, encoding="utf-8")
        address, start_s = stack.enter_context(
            serving(
                ROOT / "app.py",
                {DATA_VARIABLE: str(root.resolve()), RUNS_VARIABLE: str(home / "runs")},
            )
        )
        bare, _ = stack.enter_context(serving(home / "bare.py", {}))
        figures["start_s"] = Figure(start_s, "from the command until the server answers", "s")
        asyncio.run(people(address, material, 1, 1, 0.0, seed=1))  # opens what is opened once
        floor = float(np.median(asyncio.run(bare_runs(bare))[1:]))
        for n in counts:
            each = max(2, -(-rounds // n))  # as many acts as make a 95th percentile mean something
            times, said = asyncio.run(people(address, material, n, each, pause_s, seed=2))
            wrong += said
            for act in ACTS:
                key, taken = f"{act.replace(' ', '_')}_{n}", np.array(times[act])
                at_once = f"{n} session{'s' * (n > 1)} at a time"
                figures[f"{key}_p50_ms"] = Figure(
                    1000 * float(np.median(taken)), f"{act}, {at_once}, median", "ms"
                )
                figures[f"{key}_p95_ms"] = Figure(
                    1000 * float(np.percentile(taken, 95)), f"{act}, {at_once}, 95 % below", "ms"
                )
                if n == 1:
                    figures[f"{key}_against_bare"] = Figure(
                        float(np.median(taken)) / floor,
                        f"{act}, one session, times a run of a Streamlit page of one word",
                        "×",
                        "lower",
                    )
            harness.say(f"{n} at a time: {sum(map(len, times.values()))} acts")
    figures["bare_ms"] = Figure(1000 * floor, "a run of a Streamlit page of one word", "ms")
    return figures, wrong


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Raises NLAError where a page showed an exception: its times would mean nothing."""
    parser = harness.parser(NAME, __doc__)
    parser.add_argument("--dataset", type=Path, default=harness.DATASET, metavar="DIR")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 10], metavar="N")
    parser.add_argument("--rounds", type=int, default=10, help="in all, two a session at least")
    parser.add_argument("--pause", type=float, default=1.0, help="mean seconds between two acts")
    args = parser.parse_args(argv)
    load_before = os.getloadavg()[0]
    figures, wrong = measure(args.dataset, args.sessions, args.rounds, args.pause)
    if wrong:
        raise NLAError("A page showed an exception", why=wrong[0], fix="Open it in a browser")
    return harness.finish(
        args,
        NAME,
        harness.cores_label(),
        figures,
        load_before=load_before,
        settings={
            "dataset": args.dataset.name,
            "readings": Dataset.open(args.dataset).manifest.counts["readings"],
            "rounds": args.rounds,
            "pause_s": args.pause,
        },
    )


if __name__ == "__main__":
    main()
