"""`docs/performance.md` out of result files.

Knows the files and how each is told. Measures nothing. The decision a reader would question: the
page is written from what lies in the folder, so a figure that nobody measured is said to be missing
instead of being left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from precompute.benches.promises import LABELS, PROMISES, Promise, Records
from precompute.evaluation.markdown import table

NOTES = "tried.md"


def read(folder: Path) -> dict[str, Any]:
    """All records of a folder by name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}


def render(folder: Path) -> str:
    """The page, from the records in ``folder`` and the notes beside them."""
    records = read(folder)
    notes = (folder / NOTES).read_text("utf-8")
    parts = [
        "# Performance",
        "Written by `make bench` from the records in [benchmarks](benchmarks); nothing here is "
        "typed by hand but the last section. `make bench-check` fails where a ratio is worse than "
        "its record by more than a fifth. Ratios and shares on a CPU are of processor time, on a "
        "GPU of time by the clock.",
        "## Promises",
        _promises(records),
        *(section for make in SECTIONS for section in make(records)),
        notes,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _promises(records: Records) -> str:
    rows = []
    values = {promise: promise.of(records) for promise in PROMISES}
    missing = [
        label
        for label in LABELS
        if all(values[p] is None for p in PROMISES if p.file.endswith(f"-{label}"))
    ]
    for promise, value in values.items():
        if any(promise.file.endswith(f"-{label}") for label in missing):
            continue
        if value is None:
            rows.append((promise.what, "not measured", _wanted(promise), ""))
            continue
        met = promise.is_met(value)
        verdict = "" if met is None else "yes" if met else "**no**"
        rows.append(
            (promise.what, f"{value:.{promise.digits}f}{promise.unit}", _wanted(promise), verdict)
        )
    unknown = [
        f"\nNot measured: {LABELS[label]}; `python scripts/bench.py "
        f"--device {label.split('-')[0]}` on one adds its rows."
        for label in missing
    ]
    return table(("figure", "measured", "target", "met"), rows) + "\n".join(unknown) + "\n"


def _wanted(promise: Promise) -> str:
    if promise.target is None:
        return ""
    return f"{'≤' if promise.less_is_better else '≥'} {promise.target:g}{promise.unit}"


def _each(records: Records, prefix: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Records of that kind, each after its label."""
    names = [name for name in sorted(records) if name.startswith(prefix)]
    return [(name.removeprefix(prefix), records[name]) for name in names]


def _conditions(record: Mapping[str, Any]) -> str:
    before, after = record["load_average"]
    return (
        f"{record['processor']}, {record['cores']} cores, {record['threads']} thread(s), "
        f"{record['dtype']}, torch {record['torch']}; load average {before} before, {after} after; "
        f"what ran beside it: {record['note'] or 'not said'}."
    )


def _roofline(records: Records) -> list[str]:
    found: list[str] = []
    for label, record in _each(records, "roofline-"):
        machine, own = record["machine"], record["device"] == "cpu"
        rows = [
            (
                name,
                str(stage["passes"]),
                stage["bound_by"],
                f"{stage['floor_cpu_s' if own else 'floor_s']:.2f} s",
                f"{stage['cpu_seconds' if own else 'seconds']:.2f} s",
                f"{stage['reached']:.0%}",
            )
            for name, stage in record["stages"].items()
        ]
        found += [
            f"## Floors, {label}",
            f"{_conditions(record)} Matrix product {machine['gflop_per_s']:,.0f} GFLOP/s, memory "
            f"{machine['gbyte_per_s']:.1f} GB/s. {record['vectors']} vectors, at most "
            f"{record['max_new_tokens']} tokens each: {record['formula']}.",
            table(("stage", "passes", "bound by", "floor", "taken", "reached"), rows),
        ]
    return found


def _batches(records: Records) -> list[str]:
    found: list[str] = []
    for label, record in _each(records, "batches-"):
        shape = record["random_weights"]
        rows = [
            (
                f"{one['batch']:,}",
                f"{one['readings_per_s']:.2f}",
                f"{one['readings_per_cpu_s']:.2f}",
                one["bound_by"],
                f"{one['reached']:.0%}",
            )
            for one in record["sizes"]
        ]
        end = record["too_large"]
        found += [
            f"## Size of the batch, {label}",
            f"{_conditions(record)} The AV "
            + (f"with random weights of the shape `{shape}`" if shape else "of the pair")
            + f", one batch from its vectors to its texts of at most {record['max_new_tokens']} "
            "tokens; the floor as above." + (f" A batch of {end:,} does not fit." if end else ""),
            table(
                ("at a time", "a second", "a second of processor time", "bound by", "reached"), rows
            ),
        ]
    return found


def _corpus(records: Records) -> list[str]:
    found: list[str] = []
    for label, record in _each(records, "corpus-"):
        rows = [
            (
                f"{size['readings']:,}",
                f"{size['cpu_s_per_1000_readings']:.0f}",
                f"{size['s_per_1000_readings']:.0f}",
                *(f"{s / size['cpu_seconds']:.0%}" for s in size["parts_cpu_s"].values()),
            )
            for size in record["sizes"]
        ]
        largest = record["largest_size_measured"]
        found += [
            f"## A corpus, end to end, {label}",
            f"{_conditions(record)} `precompute run` in batches of {record['batch_size']}, at most "
            f"{record['explanation_tokens']} tokens an explanation, models loaded. Measured up to "
            f"about {largest:,} readings"
            + (
                ""
                if largest >= 10_000
                else "; `bench corpus --readings 100 1000 10000` takes an hour on two cores"
            )
            + ".",
            table(
                (
                    "readings",
                    "s of processor time per 1,000",
                    "s per 1,000",
                    *record["sizes"][0]["parts_cpu_s"],
                ),
                rows,
            ),
        ]
    return found


def _precision(records: Records) -> list[str]:
    found: list[str] = []
    for label, record in _each(records, "precision-"):

        def of(name: str, record: Mapping[str, Any] = record) -> str:
            ends = record[f"{name}_ci"]
            return f"{record[name]:+.4f} ({ends['low']:+.4f} to {ends['high']:+.4f})"

        n, seconds = record["n"], record["cpu_seconds"]
        found += [
            f"## What a number format costs, {label}",
            f"{_conditions(record)} {n:,} positions of {record['documents']} prompts, greedy texts "
            f"of at most {record['max_new_tokens']} tokens; both against the vectors of float32. "
            "In parentheses the 95 % interval over prompts. It "
            + ("lies" if record["shown"] else "does not lie")
            + f" within {record['within']:g} of zero.",
            table(
                ("figure", "float32", record["dtype"], "difference"),
                [
                    (
                        "FVE of target, AV and AR",
                        f"{record['fve_float32']:.4f}",
                        f"{record['fve']:.4f}",
                        of("difference"),
                    ),
                    ("FVE of the same texts, AR alone", "", "", of("ar_difference")),
                    ("texts that are the same", "", f"{record['same_texts'] / n:.0%}", ""),
                    (
                        "`mse_nrm` of the target's vectors",
                        "",
                        f"{record['target_mse_nrm']:.1e}",
                        "",
                    ),
                    (
                        "s of processor time per 1,000",
                        *(f"{1000 * seconds[lane] / n:.0f}" for lane in ("float32", "fast")),
                        "",
                    ),
                ],
            ),
        ]
    return found


def _plan(records: Records) -> list[str]:
    found: list[str] = []
    for label, record in _each(records, "plan-"):
        rows = [
            (
                c["corpus"],
                f"{c['readings']:,}",
                f"{c['cpu_seconds_said']:.0f} s",
                f"{c['cpu_seconds']:.0f} s",
                f"{c['off']:+.0%}",
                f"{c['off_readings']:+.0%}",
                f"{c['off_disk']:+.0%}",
            )
            for c in record["corpora"]
        ]
        found += [
            f"## What `plan` said, {label}",
            f"{_conditions(record)} Processor time, from a run of about one batch.",
            table(("corpus", "readings", "said", "took", "time", "readings off", "disk off"), rows),
        ]
    return found


def _publish(records: Records) -> list[str]:
    found: list[str] = []
    for _, record in _each(records, "publish-"):
        rows = [
            (
                f"{one['readings']:,}",
                f"{one['publish_rows_per_s']:,}",
                f"{one['publish_own_mb']:,} MB ({one['publish_peak_mb']:,})",
                f"{one['derive_s']:.0f} s",
                f"{one['derive_own_mb']:,} MB ({one['derive_peak_mb']:,})",
                f"{one['bytes_a_reading']:,} + {one['derived_bytes_a_reading']:,}",
                f"{one['open_s']:.2f} s ({one['open_cpu_s']:.2f})",
                f"{one['first_words_s']:.2f} s ({one['first_words_cpu_s']:.2f})",
                f"{one['first_nearest_s']:.2f} s ({one['first_nearest_cpu_s']:.2f})",
            )
            for one in record["sizes"]
        ]
        known = {name: slope for name, slope in record["exponents"].items() if slope is not None}
        slopes = ", ".join(f"{name} {slope:.2f}" for name, slope in known.items())
        found += [
            "## Publishing and opening",
            f"{_conditions(record)} Synthetic datasets, made from the demo. Published a second of "
            "processor time; derived are the database, the full text and the index of vectors, "
            "which `publish` makes from 50,000 readings on. Openings by the clock, and in "
            "parentheses in processor time, without imports: a page, then the first search for a "
            "word, and the index of vectors with its first neighbours. Memory is the most that a "
            "process had of its own, and in parentheses with the pages of mapped files, which the "
            "system takes back when others need them. "
            f"Exponents: {slopes}. " + _ten_million(record["sizes"][-1]),
            table(
                ("readings", "a second", "memory", "derived in", "memory", "bytes a reading")
                + ("page", "words", "nearest"),
                rows,
            ),
        ]
    return found


def _ten_million(largest: Mapping[str, Any]) -> str:
    """In proportion to the largest size that was measured, and said to be so."""
    times = 10_000_000 / largest["readings"]
    if times <= 1:
        return ""
    disk = 1e-2 * (largest["bytes_a_reading"] + largest["derived_bytes_a_reading"])
    return (
        "Ten million readings were not measured; in proportion to the largest size they take "
        f"{disk:.0f} GB of disk, {times * largest['publish_s'] / 60:.0f} minutes to publish, "
        f"{times * largest['derive_s'] / 60:.0f} to derive, and their first search for a word "
        f"{times * largest['first_words_cpu_s']:.0f} s of processor time."
    )


def _vectors(records: Records) -> list[str]:
    found: list[str] = []
    for _, record in _each(records, "vectors-"):
        rows = [
            (
                f"{one['rows']:,}",
                f"{one['exact_ms']:.1f} ms",
                f"{one['approximate_ms']:.1f} ms",
                f"{one['recall_at_10']:.3f}",
                f"{one['build_s']:.1f} s",
                f"{one['index_mb']:.1f} MB",
            )
            for one in record["sizes"]
        ]
        found += [
            "## Exact or approximate",
            f"{_conditions(record)} {record['dimension']} dimensions, processor time of a query "
            f"(median of {record['queries']}). From {record['approximate_from']:,} rows on, search "
            "by meaning uses the index.",
            table(("rows", "exact", "index", "recall at 10", "built in", "size"), rows),
        ]
    return found


SECTIONS = (_roofline, _batches, _corpus, _precision, _plan, _publish, _vectors)
