"""Estimates: one arithmetic for past runs, batches and first steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from nla_core.jobs.estimate import PUBLISHER, SPREAD, History, Kind, Rates

KEY = ("pair", "r1")


def test_rates_are_scaled_by_tokens_and_readings() -> None:
    rates = Rates("a batch", token=0.01, reading=1.0, publish=0.1, load=5.0)
    found = rates.estimate(tokens=100, readings=20, loaded=True, readings_ahead=10)
    assert found.seconds == pytest.approx(1 + 30 + 2)
    cold = rates.estimate(tokens=100, readings=20, loaded=False, readings_ahead=10)
    assert cold.seconds == pytest.approx(38)
    assert (cold.low, cold.high) == (
        pytest.approx(38 * (1 - SPREAD["a batch"])),
        pytest.approx(38 * (1 + SPREAD["a batch"])),
    )


def test_nothing_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    history = History(tmp_path / "history.json")
    assert history.rates(KEY, "cpu", 80) is None
    history.learn(KEY, "cpu", Kind.LOAD, 1, 4.0)
    assert history.rates(KEY, "cpu", 80) is None, "a load says nothing of readings"
    history.learn(KEY, "cpu", Kind.READING, 0, 4.0)
    assert history.rates(KEY, "cpu", 80) is None, "no amount was measured"


def test_first_steps_are_a_wider_guess_than_readings(tmp_path: Path) -> None:
    history = History(tmp_path / "history.json")
    history.learn(KEY, "cpu", Kind.TOKEN, 100, 1.0)
    guess = history.rates(KEY, "cpu", 20)
    assert guess is not None
    assert guess.basis == "warm-up"
    assert guess.reading == pytest.approx(0.2)
    history.learn(KEY, "cpu", Kind.READING, 10, 5.0)
    history.learn(KEY, PUBLISHER, Kind.PUBLISH, 10, 1.0)
    known = history.rates(KEY, "cpu", 20)
    assert known is not None
    assert known.basis == "past runs"
    assert (known.reading, known.publish) == (pytest.approx(0.5), pytest.approx(0.1))
    assert SPREAD[guess.basis] > SPREAD[known.basis]


def test_averages_move_and_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "home" / "history.json"
    history = History(path)
    history.learn(KEY, "cpu", Kind.READING, 1, 1.0)
    history.learn(KEY, "cpu", Kind.READING, 1, 2.0)
    history.save()
    again = History(path).rates(KEY, "cpu", 80)
    assert again is not None
    assert again.reading == pytest.approx(1.3)
    path.write_text("{broken", encoding="utf-8")
    assert History(path).rates(KEY, "cpu", 80) is None


def test_a_history_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    history = History(tmp_path / "file" / "history.json")
    history.learn(KEY, "cpu", Kind.READING, 1, 1.0)
    assert history.rates(KEY, "cpu", 80) is not None
