"""Take the pictures of the README: start the app, open pages in Chromium, save PNGs.

    python scripts/screenshots.py [--out docs/images]

Knows how to serve the app on a free port and which pictures the documentation shows. Does not know
what the pages draw. The decision a reader would question: it shows whatever dataset NLA_DATA names
(the demo without it), so that the pictures can never be of something a user does not get.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
APP = PROJECT / "app.py"
START_SECONDS = 60
NO_CHROMIUM = (
    "No Chromium was found. Install one (on Debian: `apt-get install chromium`) or put its "
    "`chromium` on the PATH."
)
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]

PHRASE = "/?m=phrase&ph=astronomer&t=9c6d383ba891&p=30"
SEARCH = "/search?q=a+planet+or+the+night+sky"

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
    ("about-light", "/about", 1440, 900, "light"),
    ("about-dark", "/about", 1440, 900, "dark"),
]
# What a page draws in the browser after its script has ended.
DRAWN = {"/": '[role="option"]:not(.markup)', "/browse": ".card", "/search": ".cards mark, .card"}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=PROJECT / "docs/images")
    parser.add_argument("--query", default="", help="view to show on Explore, e.g. 't=ab12&p=40'")
    options = parser.parse_args()
    if chromium() is None:
        sys.stderr.write(NO_CHROMIUM + "\n")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with serving() as address, browser() as window:
        for name, path, width, height, scheme in SHOTS:
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
def serving(data: Path | None = None, *, app: Path = APP) -> Iterator[str]:
    """The app on a free port of this machine; yields its address, stops it afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | ({"NLA_DATA": str(data)} if data is not None else {})
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
