"""Take the pictures of the README: start the app, open pages in Chromium, save PNGs.

    python scripts/screenshots.py [--out docs/images]

Knows how to serve the app on a free port and which pictures the documentation shows. Does not know
what the pages draw. The decision a reader would question: it shows whatever dataset NLA_DATA names
(the demo without it), so that the pictures can never be of something a user does not get.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
APP = PROJECT / "app.py"
START_SECONDS = 60
RUN_SECONDS = 300
NO_CHROMIUM = (
    "No Chromium was found. Install one (on Debian: `apt-get install chromium`) or put its "
    "`chromium` on the PATH."
)
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]

PHRASE = "/?m=phrase&ph=astronomer&t=9c6d383ba891&p=30"
SEARCH = "/search?q=a+planet+or+the+night+sky"
STEER = "/steer"
RUN = "/run"
PROMPT = "Why do cats purr when they are happy?"

# name, path, width, height, colour scheme
SHOTS = [
    ("explore-light", "/", 1440, 900, "light"),
    ("explore-dark", "/", 1440, 900, "dark"),
    ("explore-narrow", "/", 390, 844, "light"),
    ("phrase-light", PHRASE, 1440, 900, "light"),
    ("browse-light", "/browse", 1440, 900, "light"),
    ("browse-dark", "/browse", 1440, 900, "dark"),
    ("search-light", SEARCH, 1440, 900, "light"),
    ("search-dark", SEARCH, 1440, 900, "dark"),
    ("search-narrow", SEARCH, 390, 844, "light"),
    ("run-light", RUN, 1440, 900, "light"),
    ("run-dark", RUN, 1440, 900, "dark"),
    ("steer-light", STEER, 1440, 900, "light"),
    ("steer-dark", STEER, 1440, 900, "dark"),
    ("about-light", "/about", 1440, 900, "light"),
    ("about-dark", "/about", 1440, 900, "dark"),
]
# What a page draws in the browser after its script has ended.
DRAWN = {
    "/": '[role="option"]:not(.markup)',
    "/browse": ".card",
    "/search": ".cards mark, .card",
    "/run": ".chip.locked",
    "/steer": ".card",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=PROJECT / "docs/images")
    parser.add_argument("--query", default="", help="view to show on Explore, e.g. 't=ab12&p=40'")
    options = parser.parse_args()
    if chromium() is None:
        sys.stderr.write(NO_CHROMIUM + "\n")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="nla-pictures-") as runs,
        serving(NLA_RUNS=runs) as address,
        browser() as window,
    ):
        run = read_prompt(address)
        for name, wanted, width, height, scheme in SHOTS:
            path = run if wanted == RUN else wanted
            page = window.new_page(
                viewport={"width": width, "height": height},
                color_scheme=scheme,
                device_scale_factor=2 if width < 600 else 1,
                reduced_motion="reduce",
            )
            page.goto(f"{address}{path}" + (f"?{options.query}" if path == "/" else ""))
            settle(page)
            if drawn := DRAWN.get(path.partition("?")[0]):
                page.wait_for_selector(drawn)
            page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
            page.wait_for_timeout(700)
            page.screenshot(path=str(options.out / f"{name}.png"))
            page.close()
            sys.stdout.write(f"{options.out / name}.png\n")
    return 0


def read_prompt(address: str) -> str:
    """Run ``PROMPT`` with the pair that ships; the path that shows it with a token locked."""
    body = json.dumps({"prompt": PROMPT, "target": {"max_tokens": 32}}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/api/v1/runs", body, headers)
    with urllib.request.urlopen(request) as answer:
        run_id = json.load(answer)["run_id"]
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{address}/api/v1/runs/{run_id}") as answer:
            if json.load(answer)["run"]["version"]:
                return f"/run?run={run_id}&p=29"
        time.sleep(1)
    raise RuntimeError(f"The prompt was not read within {RUN_SECONDS} s.")


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def browser(arguments: Sequence[str] = ()) -> Iterator[Any]:
    """A headless Chromium driven by Playwright, the system's own program."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        window = playwright.chromium.launch(
            executable_path=chromium(), args=[*CHROMIUM_ARGUMENTS, *arguments], headless=True
        )
        try:
            yield window
        finally:
            window.close()


@contextlib.contextmanager
def serving(data: Path | None = None, *, app: Path = APP, **variables: str) -> Iterator[str]:
    """The app on a free port of this machine, with ``variables`` in its environment; yields its
    address, stops it afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | ({"NLA_DATA": str(data)} if data is not None else {}) | variables
    command = [sys.executable, "-m", "streamlit", "run", str(app), f"--server.port={port}"]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as server:
        try:
            _wait_for(address, server)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()


def settle(page: Any) -> None:
    """Wait until the app has run and what it draws has come to rest."""
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    page.wait_for_load_state("networkidle")
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(700)


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            said = server.stderr.read().decode(errors="replace") if server.stderr else ""
            raise RuntimeError(f"The app ended before it answered. It said: {said[-2000:]}")
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"The app did not answer within {START_SECONDS} s.")


if __name__ == "__main__":
    raise SystemExit(main())
