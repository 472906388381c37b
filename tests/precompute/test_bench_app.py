"""`bench app` does to the real server what people do, and counts what it was told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from nla_core.errors import NLAError
from nla_core.store.dataset import Dataset
from precompute.benches import app
from precompute.cli import main
from tests.helpers import make_dataset


def logged(seconds: list[float]) -> app.Log:
    log = app.Log()
    for act in app.ACTS:
        log.times[act] += seconds
    return log


def test_processor_time_is_booked_up_to_the_next_act() -> None:
    clock = iter([0.0, 1.0, 3.0, 3.0, 4.5])
    log = app.Log(lambda: next(clock))

    async def act() -> float:
        return 0.5

    async def acts() -> None:
        await log("search", act())  # from 1, after a look at 0
        await log("token click", act())  # from 3, when the search was booked
        log.settle()

    asyncio.run(acts())
    assert log.times == {"search": [0.5], "token click": [0.5]}
    assert log.cpu == {"search": [2.0], "token click": [1.5]}


def test_the_summary_holds_median_and_95th_percentile() -> None:
    for figures in app.summary(logged([0.1 * n for n in range(1, 21)])).values():
        assert figures == {"n": 20, "median_ms": 1050.0, "p95_ms": 1905.0, "max_ms": 2000.0}


def test_the_table_has_a_row_an_act_and_a_column_a_number_of_sessions() -> None:
    results = {n: app.summary(logged([0.01, 0.03])) for n in ("1", "10")}
    head, _, *rows = app.table(results).splitlines()
    assert head == "| server time, ms | 1 at a time | 10 at a time |"
    assert rows[0] == "| token click | 20 / 29 | 20 / 29 |"
    assert len(rows) == len(app.ACTS)


def test_a_dataset_without_readings_is_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path / "empty", [("long-001", "long text", "Too long", [], [("user", "a")])])
    with pytest.raises(NLAError, match="nothing to read"):
        app.Material.of(Dataset.open(tmp_path / "empty"))


@pytest.mark.app
@pytest.mark.slow
def test_people_are_answered_by_the_real_server(tmp_path: Path) -> None:
    make_dataset(tmp_path / "tiny", samples=2)
    out = tmp_path / "result.json"
    command = f"bench app --dataset {tmp_path / 'tiny'} --sessions 1 2 --rounds 2 --pause 0"
    assert main([*command.split(), "--note", "a test", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["exceptions"] == []
    assert result["note"] == "a test"
    for n in ("1", "2"):
        for act in app.ACTS:
            figures = result["sessions"][n][act]
            assert figures["n"] >= 2 * int(n)
            assert 0 < figures["median_ms"] <= figures["p95_ms"] <= figures["max_ms"]
