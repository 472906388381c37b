"""``make bench`` and ``make bench-check``: every benchmark of the models, one after another.

Knows which are run and where results go. Knows nothing of what they measure. The decision a reader
would question: results gather in a folder that git ignores, and one that was made of the same
commit is not made again, so that a run that was stopped goes on; only a whole set is published.

Usage: python scripts/bench.py [--device cpu] [--check] [--fresh FOLDER] [--again] [--note TEXT]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the project is run from its folder, not installed

from nla_core.errors import NLAError  # noqa: E402
from nla_core.nla.devices import pick_device, pick_dtype  # noqa: E402
from precompute.benches.performance import NOTES, read, render  # noqa: E402
from precompute.benches.promises import ratios_of_both, regressions  # noqa: E402
from precompute.publish import git_commit  # noqa: E402

KEPT = ROOT / "docs" / "benchmarks"
PAGE = ROOT / "docs" / "performance.md"
FRESH = ROOT / ".bench"
# Of each label (see promises.py), record by record: the benchmark and its flags.
MODELS: dict[str, list[str]] = {
    "roofline": ["--vectors", "32", "--explanation-tokens", "48"],
    "explain": ["--vectors", "64", "--explanation-tokens", "60", "--one-by-one", "8"]
    + ["--repeats", "2"],
    "batches": ["--explanation-tokens", "32"],
    "corpus": ["--readings", "100", "1000", "--explanation-tokens", "32", "--vectors", "64"],
    "run": ["--tokens", "40", "--repeat", "3"],
    "engines": ["--prompts", "16"],
    "plan": ["--readings", "250", "--explanation-tokens", "24", "--vectors", "64"],
}
_MANY = ["--batches", "1", "8", "32", "64", "128", "256", "512", "1024", "--explanation-tokens"]
BENCHES = {
    "cpu": MODELS,
    "cpu-bf16": {**MODELS, "precision": ["--dtype", "bfloat16", "--vectors", "1000"]},
    "cuda": {
        **MODELS,
        "roofline": ["--vectors", "512", "--explanation-tokens", "60"],
        "explain": ["--vectors", "512", "--explanation-tokens", "60", "--one-by-one", "16"],
        "batches": [*_MANY, "60"],
        "batches-7b": ["--random-weights", "7b", *_MANY, "60"],
        "precision": ["--vectors", "4000"],
        "corpus": ["--readings", "100", "1000", "10000", "--vectors", "512"],
    },
}


def run_all(folder: Path, device: str, note: str, again: bool) -> bool:
    """Run what is missing in ``folder``; whether all of it is there afterwards."""
    folder.mkdir(exist_ok=True)
    label = label_of(device)
    commit = git_commit() or "unknown"
    whole = True
    for name, flags in BENCHES[label].items():
        path = folder / f"{name}-{label}.json"
        if not again and _commit_of(path) == commit:
            print(f"{name}: there already", file=sys.stderr)
            continue
        began = time.monotonic()
        what = name.split("-")[0]  # batches-7b is one of batches
        command = [sys.executable, "-m", "precompute", "bench", what, "--device", device]
        command += [*flags, "--note", note, "--json", str(path)]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        print(f"{name}: {time.monotonic() - began:.0f} s, exit code {code}", file=sys.stderr)
        if code not in (0, 1):  # 1: measured, and a promise is not kept
            whole = False
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(
            json.dumps({**record, "commit": commit}, indent=2, sort_keys=True) + "\n",
            encoding="utf-8",
        )
    return whole


def label_of(device: str) -> str:
    """One of `precompute.benches.promises.LABELS`: the device, and on a CPU its number format."""
    place = pick_device(device)
    is_half = place.type == "cpu" and pick_dtype(place) == torch.bfloat16
    return "cpu-bf16" if is_half else place.type


def _commit_of(path: Path) -> str | None:
    if not path.is_file():
        return None
    return str(json.loads(path.read_text(encoding="utf-8")).get("commit"))


def publish(folder: Path | None) -> None:
    """Copy fresh records over the kept ones and write the page."""
    for path in sorted(folder.glob("*.json")) if folder else ():
        shutil.copyfile(path, KEPT / path.name)
    PAGE.write_text(render(KEPT), encoding="utf-8")
    print(f"updated {PAGE.relative_to(ROOT)}; its last section is {KEPT.name}/{NOTES}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the benchmarks of the models.")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--check", action="store_true", help="compare with the kept records")
    parser.add_argument("--fresh", type=Path, help="compare these records instead of a new run")
    parser.add_argument("--again", action="store_true", help="run what is there already, too")
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    args = parser.parse_args()
    if args.page:
        publish(None)
        return 0
    try:
        if args.fresh is None and not run_all(FRESH, args.device, args.note, args.again):
            print("Not all could be run; start the same command again to go on.", file=sys.stderr)
            return 2
    except NLAError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    folder = args.fresh or FRESH
    if not args.check:
        publish(folder)
        return 0
    return check(folder)


def check(folder: Path) -> int:
    """Say what is worse than its record, and how much was compared; the exit code."""
    fresh, kept = read(folder), read(KEPT)
    compared, worse = ratios_of_both(fresh, kept), regressions(fresh, kept)
    if not compared:
        print(f"Nothing to compare: {KEPT.relative_to(ROOT)} holds no record of such a machine.")
        print("Run this without --check on the commit that is to be compared with.")
        return 2
    for line in worse:
        print(f"worse by more than a fifth: {line}")
    print(f"{len(worse)} of {len(compared)} ratios are worse than their record by a fifth.")
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())
