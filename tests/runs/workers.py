"""Workers behind HTTP for tests: a process as an operator starts it, or a thread of this one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette

from nla_core.api.worker import bound
from nla_core.runs.remote_link import Address
from nla_core.runs.remote_wire import TOKEN_VARIABLE
from tests.runs.conftest import SOON

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests"
ROW = {"position": 0, "sample": 0, "seed": 0, "norm": 1.0}


class Process:
    """A worker as an operator starts it."""

    def __init__(self, pair: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nla_core.api.worker", "--nla", str(pair), "--port", "0",
             "--device", "cpu", "--dtype", "float32"],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
            env=os.environ | {TOKEN_VARIABLE: TOKEN},
        )  # fmt: skip
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if found := re.search(r"on (http://\S+)", line):
                self.url = found[1]
                break
        else:
            raise AssertionError(said)
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    @property
    def address(self) -> Address:
        return Address(self.url, TOKEN)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Here:
    """A worker in a thread of this process, for tests that kill nothing."""

    def __init__(self, app: Starlette, port: int = 0) -> None:
        self.socket = bound("127.0.0.1", port)
        self.socket.listen()
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True
        )
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(SOON)


def until(holds: Callable[[], object], seconds: float = SOON) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
