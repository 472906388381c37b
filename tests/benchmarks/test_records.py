"""Records: what is compared, what the page says, and that the kept page is that of the records."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks import harness
from benchmarks.harness import RECORDS, Figure

pytestmark = pytest.mark.unit


def record(**figures: Figure) -> dict[str, Any]:
    args = harness.parser("readings", "").parse_args(["--note", "nothing"])
    return harness.finish(args, "readings", "cpu", figures, load_before=0.5, settings={"n": 3})


@pytest.fixture
def kept() -> dict[str, dict[str, Any]]:
    return {
        "readings-cpu.json": record(
            ratio=Figure(2.0, "times as fast", "×", "higher"),
            growth=Figure(1.0, "growth", "", "lower"),
            seconds=Figure(3.0, "the whole", "s"),
        )
    }


def changed(kept: dict[str, dict[str, Any]], **values: float) -> dict[str, dict[str, Any]]:
    fresh = copy.deepcopy(kept)
    for name, value in values.items():
        fresh["readings-cpu.json"]["figures"][name]["value"] = value
    return fresh


def test_ratios_that_got_worse_by_more_than_a_tenth_are_named(
    kept: dict[str, dict[str, Any]],
) -> None:
    assert bench.regressions(kept, kept) == (2, [])
    assert bench.regressions(changed(kept, ratio=1.81, growth=1.09), kept)[1] == []
    assert bench.regressions(changed(kept, ratio=9.0, growth=0.1, seconds=99.0), kept)[1] == []
    _, worse = bench.regressions(changed(kept, ratio=1.79, growth=1.11), kept)
    assert len(worse) == 2
    assert "times as fast: 2 is now 1.79" in worse[0]


def test_the_exit_code_of_a_check(kept: dict[str, dict[str, Any]]) -> None:
    assert bench.check(kept, kept, whole=True) == 0
    assert bench.check(changed(kept, ratio=1.0), kept, whole=True) == 1
    assert bench.check(kept, kept, whole=False) == 2, "a benchmark failed"
    assert bench.check({"corpus-cuda.json": {}}, kept, whole=True) == 2, "nothing was compared"


def test_the_page_says_every_figure_and_its_machine(kept: dict[str, dict[str, Any]]) -> None:
    page = bench.render(kept)
    assert "| times as fast | **2×** |" in page
    assert "| the whole | 3 s |" in page
    assert "[cpu](benchmarks/readings-cpu.json)" in page
    assert "beside it: nothing. n 3." in page
    assert "## Search" not in page, "what was not measured has no section"


def test_the_kept_page_is_that_of_the_records() -> None:
    records = bench.read(RECORDS)
    assert {one["benchmark"] for one in records.values()} == bench.TITLES.keys()
    page = bench.PAGE.read_text(encoding="utf-8")
    assert page == bench.render(records), "run: python -m benchmarks --page"


def test_a_record_is_written_where_it_was_asked_for(tmp_path: Path) -> None:
    args = harness.parser("search", "").parse_args(["--out", str(tmp_path / "new")])
    figures = {"a": Figure(0.12345, "a share", "", "higher")}
    made = harness.finish(args, "search", "2-cores", figures, load_before=0.0, settings={})
    assert bench.read(tmp_path / "new") == {"search-2-cores.json": json.loads(json.dumps(made))}
    assert made["machine"]["cores"] > 0
    assert made["commit"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(2.0, "×", "2×"), (0.9998, "", "1.00"), (1234.5, "ms", "1,234 ms"), (0.5, "%", "0.500%")],
)
def test_numbers_have_three_digits(value: float, unit: str, text: str) -> None:
    assert harness.shown(value, unit) == text


def test_the_exponent_of_a_line_is_one() -> None:
    assert harness.exponent([100, 1000, 10_000], [3.0, 30.0, 300.0]) == pytest.approx(1.0)
    assert harness.exponent([10, 100], [1.0, 100.0]) == pytest.approx(2.0)
    assert harness.exponent([10], [1.0]) is None


def test_unknown_benchmarks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        bench.main(["speed"])
    assert stopped.value.code == 2
    assert "no benchmark speed" in capsys.readouterr().err
