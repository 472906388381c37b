"""``make bench`` and ``make bench-check``: all benchmarks, their records, and the page of figures.

`python -m benchmarks` measures, keeps the records and writes docs/performance.md; with ``--check``
it measures and compares ratios with the kept records instead; ``--page`` writes the page only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import RECORDS, ROOT, say, shown

PAGE = ROOT / "docs" / "performance.md"
TITLES = {
    "readings": "Explaining vectors",
    "corpus": "A corpus, end to end",
    "search": "Search",
    "app": "The app",
    "imports": "What one task touches",
}
ALLOWED = 0.1
"""By how much a ratio may be worse than its record."""

Records = Mapping[str, Mapping[str, Any]]


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of these benchmarks in ``folder``, by file name."""
    found = {}
    for name in TITLES:
        for path in sorted(folder.glob(f"{name}-*.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.get("benchmark") == name:
                found[path.name] = record
    return found


def regressions(fresh: Records, kept: Records) -> tuple[int, list[str]]:
    """How many ratios were compared, and a line for each that got worse by more than ALLOWED."""
    compared, worse = 0, []
    for name in sorted(fresh.keys() & kept.keys()):
        for key, new in fresh[name]["figures"].items():
            old = kept[name]["figures"].get(key)
            if old is None or new["better"] is None:
                continue
            compared += 1
            lower = new["better"] == "lower"
            limit = old["value"] * (1 + ALLOWED if lower else 1 - ALLOWED)
            if (new["value"] > limit) if lower else (new["value"] < limit):
                worse.append(f"{name}: {new['what']}: {old['value']:.3g} is now {new['value']:.3g}")
    return compared, worse


def render(records: Records) -> str:
    """The page of figures, from the records alone."""
    parts = [
        "# Performance",
        "Written by `make bench` from the records in [benchmarks](benchmarks); no number here is "
        "typed by hand. A figure in bold is a ratio against a reference that was measured in the "
        "same run: `make bench-check` measures again and fails where one is worse than its record "
        f"by more than {ALLOWED:.0%}. All others belong to one machine. On a CPU, models are "
        "timed in seconds of processor time. What was tried to get here, and what it gave, is in "
        "[tried.md](benchmarks/tried.md).",
    ]
    for name, title in TITLES.items():
        own = {file: one for file, one in records.items() if one["benchmark"] == name}
        if own:
            parts += [f"## {title}", *map(_conditions, own, own.values()), _table([*own.values()])]
    return "\n\n".join(parts) + "\n"


def _conditions(file: str, record: Mapping[str, Any]) -> str:
    machine = record["machine"]
    settings = ", ".join(f"{key} {value}" for key, value in record["settings"].items())
    before, after = record["load_average"]
    return (
        f"[{record['label']}](benchmarks/{file}): {machine.get('gpu') or machine['processor']}, "
        f"{machine['cores']} cores, {machine.get('threads', 'all')} thread(s); load average "
        f"{before} before, {after} after; beside it: {record['note'] or 'not said'}. {settings}."
    )


def _table(records: Sequence[Mapping[str, Any]]) -> str:
    figures: dict[str, Mapping[str, Any]] = {}
    for record in records:
        figures |= {key: one for key, one in record["figures"].items() if key not in figures}
    lines = [
        "| what | " + " | ".join(record["label"] for record in records) + " |",
        "|---|" + "---:|" * len(records),
    ]
    for key, one in figures.items():
        mark = "**" if one["better"] else ""
        cells = [
            f"{mark}{shown(record['figures'][key]['value'], one['unit'])}{mark}"
            if key in record["figures"]
            else ""
            for record in records
        ]
        lines.append(f"| {one['what']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure(names: Sequence[str], folder: Path, note: str) -> bool:
    """Run each benchmark in a process of its own; whether all of them ended well."""
    codes = []
    for name in names:
        say(f"-- {name}")
        command = [sys.executable, "-m", f"benchmarks.{name}", "--out", str(folder)]
        codes.append(subprocess.run([*command, "--note", note], cwd=ROOT, check=False).returncode)
    return not any(codes)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TITLES))
    parser.add_argument("--check", action="store_true", help="compare ratios with the records")
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - TITLES.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(TITLES)}")
    if not args.page:
        with tempfile.TemporaryDirectory(prefix="nla-bench-") as home:
            fresh = Path(home)
            whole = measure(args.names or [*TITLES], fresh, args.note)
            if args.check:
                return check(read(fresh), read(RECORDS), whole)
            if not whole:
                say("Not all could be measured; no record was changed.")
                return 2
            for path in fresh.glob("*.json"):
                shutil.copyfile(path, RECORDS / path.name)
    PAGE.write_text(render(read(RECORDS)), encoding="utf-8")
    say(f"{PAGE.relative_to(ROOT)} is written.")
    return 0


def check(fresh: Records, kept: Records, whole: bool) -> int:
    """Say what is worse than its record; 0, 1, or 2 where something could not be compared."""
    compared, worse = regressions(fresh, kept)
    for line in worse:
        say(f"worse by more than {ALLOWED:.0%}: {line}")
    say(f"{len(worse)} of {compared} ratios are worse than their record.")
    if worse:
        return 1
    return 0 if compared and whole else 2


if __name__ == "__main__":
    raise SystemExit(main())
