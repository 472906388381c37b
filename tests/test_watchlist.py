"""What people keep of their own is whole, and a refused list leaves the one before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nla_core.analysis import concepts as watchlist
from nla_core.analysis.concepts import dump_concepts, read_concepts
from nla_core.errors import NLAError


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(watchlist.OWN_VARIABLE, str(tmp_path / "own"))
    return tmp_path / "own"


def test_the_shipped_list_is_used_until_there_is_an_own_one() -> None:
    assert watchlist.watchlist() == (read_concepts(), False)
    watchlist.keep(dump_concepts(read_concepts()[:3]))
    assert watchlist.watchlist() == (read_concepts()[:3], True)
    watchlist.forget()
    watchlist.forget()  # twice is no harm
    assert watchlist.watchlist() == (read_concepts(), False)


@pytest.mark.parametrize("text", ["", "{}", "[1", '{"concepts": [{"id": "x"}]}', "\x00"])
def test_a_broken_list_leaves_the_one_before_it(text: str) -> None:
    watchlist.keep(dump_concepts(read_concepts()[:2]))
    with pytest.raises(NLAError, match="watchlist"):
        watchlist.keep(text)
    assert watchlist.watchlist() == (read_concepts()[:2], True)


def test_the_last_verdict_counts_and_can_be_taken_back(own: Path) -> None:
    assert watchlist.verdicts("demo", "refusing") == {}
    watchlist.judge("demo", "refusing", "a", "confirmed")
    watchlist.judge("demo", "refusing", "a", "rejected")
    watchlist.judge("demo", "refusing", "b", "confirmed")
    watchlist.judge("demo", "other", "a", "confirmed")
    watchlist.judge("elsewhere", "refusing", "c", "confirmed")
    assert watchlist.verdicts("demo", "refusing") == {"a": "rejected", "b": "confirmed"}
    watchlist.judge("demo", "refusing", "b", "open")
    assert watchlist.verdicts("demo", "refusing") == {"a": "rejected"}


def test_a_line_that_was_cut_short_costs_nothing_else(own: Path) -> None:
    watchlist.judge("demo", "refusing", "a", "confirmed")
    path = own / "verdicts.jsonl"
    with path.open("a") as handle:
        handle.write('{"dataset": "demo", "conc\n[]\n"x"\n{}\n')
    watchlist.judge("demo", "refusing", "b", "rejected")
    assert watchlist.verdicts("demo", "refusing") == {"a": "confirmed", "b": "rejected"}


def test_there_is_no_other_verdict() -> None:
    with pytest.raises(NLAError, match="no verdict"):
        watchlist.judge("demo", "refusing", "a", "maybe")  # type: ignore[arg-type]
