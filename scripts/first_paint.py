"""Time the first paint: from navigation to the first token, beside a page of one word.

    python scripts/first_paint.py [--rounds 5] [--note "..."] [--json OUT]

Knows what is waited for and in what order the visits are made. Does not know what the pages draw,
nor why they take long. The decision a reader would question: the ratio to the floor, a Streamlit
page that says one word, is the result to compare. Seconds belong to a machine and to what else it
does; the floor is visited in turn with the app and so shares its luck.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

PROJECT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))  # run by its path, Python looks beside this file only

from nla_core.data.dataset import Dataset  # noqa: E402
from nla_core.links import TokenRef  # noqa: E402
from scripts.screenshots import (  # noqa: E402
    NO_CHROMIUM,
    browser,
    chromium,
    serving,
    settle,
)

TOKEN: Final = '[role="option"]:not(.markup)'
WORD: Final = '[data-testid="stMarkdown"]'
PATIENCE_MS: Final = 180_000  # a machine that trains a model as well
BARE: Final = 'import streamlit as st\n\nst.write("x")\n'

# what is measured -> the floor it is divided by
FLOOR: Final = {"fresh": "bare_fresh", "warm": "bare_warm", "permalink": "bare_warm"}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed (median)")
    parser.add_argument("--note", default="", help="what else this machine was doing")
    parser.add_argument("--json", type=Path, default=None, metavar="OUT")
    options = parser.parse_args()
    if chromium() is None:
        sys.stderr.write(NO_CHROMIUM + "\n")
        return 2
    data = Path(os.environ.get("NLA_DATA") or PROJECT / "data/demo")
    links = permalinks(Dataset.open(data), options.rounds)  # also builds the DuckDB file
    seconds: dict[str, list[float]] = {name: [] for name in (*FLOOR, "bare_fresh", "bare_warm")}
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE, encoding="utf-8")
        for number, link in enumerate(links, 1):
            for name, taken in one_round(bare, link):
                seconds[name].append(taken)
                sys.stdout.write(f"round {number}  {name:<10}  {taken:.2f} s\n")
                sys.stdout.flush()
    report = summary(seconds, options.note)
    sys.stdout.write("\n" + told(report))
    if options.json is not None:
        text = json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def permalinks(dataset: Dataset, n: int) -> list[str]:
    """``n`` links, each to the middle of another transcript (in turn if they run out)."""
    ids = list(dataset.transcripts(sort="n_tokens", descending=True)["transcript_id"])
    found = []
    for transcript_id in ids[:: max(len(ids) // (n + 1), 1)][:n]:
        positions = list(dataset.readings(transcript_id)["position"])
        if positions:
            found.append(TokenRef(transcript_id, int(positions[len(positions) // 2])).query)
    return [found[i % len(found)] for i in range(n)]


def one_round(bare: Path, link: str) -> Iterator[tuple[str, float]]:
    """Each visit once; a server is fresh for its first visitor only."""
    with serving(app=bare) as floor, serving() as address:
        yield "bare_fresh", paint(floor, WORD)
        yield "fresh", paint(address, TOKEN)
        yield "bare_warm", paint(floor, WORD)
        yield "warm", paint(address, TOKEN)
        yield "permalink", paint(f"{address}/explore?{link}", TOKEN)


def paint(url: str, selector: str) -> float:
    """Seconds from navigation until ``selector`` is visible, in a browser that was just started."""
    with browser(["--disable-background-networking"]) as window:
        page: Any = window.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        started = time.perf_counter()
        page.goto(url, wait_until="commit")
        page.wait_for_selector(selector)
        taken = time.perf_counter() - started
        settle(page)  # so that its end does not fall into the next visit
        return taken


def summary(seconds: dict[str, list[float]], note: str) -> dict[str, Any]:
    """Medians in seconds; ratios are medians of the ratios within a round."""
    return {
        "median_s": {name: round(statistics.median(all_), 3) for name, all_ in seconds.items()},
        "ratio": {
            name: round(
                statistics.median(
                    a / b for a, b in zip(seconds[name], seconds[floor], strict=True)
                ),
                3,
            )
            for name, floor in FLOOR.items()
        },
        "seconds": {name: [round(s, 3) for s in all_] for name, all_ in seconds.items()},
        "rounds": len(seconds["fresh"]),
        "note": note,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "processor": platform.machine(),
        "streamlit": version("streamlit"),
    }


def told(report: dict[str, Any]) -> str:
    lines = [f"{'':<12}{'median':>8}{'floor':>9}{'ratio':>8}"]
    for name, floor in FLOOR.items():
        median, least = report["median_s"][name], report["median_s"][floor]
        lines.append(f"{name:<12}{median:>6.2f} s{least:>7.2f} s{report['ratio'][name]:>8.2f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
