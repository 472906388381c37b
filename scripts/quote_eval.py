"""Write the measured numbers of a pair into the documents that quote them.

Knows the form `<!-- eval:KEY -->0.12<!-- /eval -->` and where KEY is looked up: in the eval.json of
the pair that a model card belongs to, in what `steer` measured for docs/steering.md, or in that of
the demo pair for every other document. KEY may be nested (`controls.empty`,
`by_category.code.fve`, `histogram.counts.0`). The demo pair's figures hold as `throughput` the
kept record of the speed of training. Also writes the report of each pair that has one. Digits are
chosen here, three decimals for numbers that are no integers, so that documents cannot round in
their own favour.

Usage: python scripts/quote_eval.py
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the project is run from its folder, not installed

from precompute.evaluation.report import render  # noqa: E402

DEMO_PAIR = ROOT / "data" / "nla" / "smollm2-135m-L20"
THROUGHPUT = ROOT / "docs" / "benchmarks" / "training-throughput-2-cores.json"
STEERING = ROOT / "data" / "steering" / "presets-measured.json"
MARKER = re.compile(r"(<!-- eval:([\w.@+ -]+?) -->)(.*?)(<!-- /eval -->)", re.DOTALL)


def documents() -> list[Path]:
    """Every Markdown file of the project that a reader may open."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "data").rglob("*.md")]
    return sorted(path for path in found if "runs" not in path.parts)


def source_of(document: Path) -> Path:
    """The file of figures whose numbers ``document`` quotes; it need not exist yet."""
    if document == ROOT / "docs" / "steering.md":
        return STEERING
    is_model_card = document.parent.parent == DEMO_PAIR.parent
    return (document.parent if is_model_card else DEMO_PAIR) / "eval.json"


def figures_of(source: Path) -> dict[str, Any]:
    """The figures in an eval.json; those of the demo pair with the throughput of training."""
    figures: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    if source.parent == DEMO_PAIR and "throughput" not in figures and THROUGHPUT.is_file():
        figures["throughput"] = json.loads(THROUGHPUT.read_text(encoding="utf-8"))
    return figures


def look_up(report: dict[str, Any], key: str) -> str:
    """The value of a dotted ``key`` as documents print it; KeyError names what is missing.

    Parts of a key are names, or positions in a list. A figure that was not measured is missing.
    """
    value: Any = report
    for part in key.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            why = report.get("left_out", {}).get(key)
            raise KeyError(f"eval.json has no '{key}'" + (f": {why}" if why else ""))
    if isinstance(value, dict | list):
        raise KeyError(f"'{key}' in eval.json holds several figures, not one")
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.3f}"
    return f"{int(value):,}" if isinstance(value, int | float) else str(value)


def quoted(text: str, report: dict[str, Any]) -> str:
    """``text`` with every marker filled from ``report``."""
    return MARKER.sub(lambda found: found[1] + look_up(report, found[2]) + found[4], text)


def reports() -> dict[Path, dict[str, str]]:
    """Report folder -> file name -> what it must hold, for every pair whose folder has a report."""
    found = {}
    for folder in sorted(DEMO_PAIR.parent.glob("*/report")):
        found[folder] = render(figures_of(folder.parent / "eval.json"))
    return found


def main() -> int:
    for folder, files in reports().items():
        for name, content in files.items():
            path = folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != content:
                path.write_text(content, encoding="utf-8")
                print(f"updated {path.relative_to(ROOT)}")
    for path in documents():
        text, source = path.read_text(encoding="utf-8"), source_of(path)
        if not MARKER.search(text):
            continue
        if not source.is_file():
            print(f"{source.relative_to(ROOT)} does not exist yet.", file=sys.stderr)
            return 2
        new = quoted(text, figures_of(source))
        if new != text:
            path.write_text(new, encoding="utf-8")
            print(f"updated {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
