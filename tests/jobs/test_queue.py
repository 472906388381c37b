"""Whose turn it is, and who shares a batch."""

from __future__ import annotations

from collections import Counter, deque

from nla_core.jobs.queue import Capacity, Explain, Rotation, Transcribe, places
from nla_core.jobs.request import Sampling
from nla_core.jobs.store import Run, RunState, Unit
from tests.jobs.conftest import ask

CAPACITY = Capacity(batch=8, first_batch=2, transcribe=3)
PAIR = {"pair_id": "p", "revision": "1", "target": "t"}


def run(visitor: str, n_pending: int, *, pair: str = "p", limit: int = 5, old: bool = True) -> Run:
    made = Run(f"{visitor}-{n_pending}", ask(verbalizer=Sampling(limit)), {**PAIR, "pair_id": pair},
               [visitor], 0.0, (9,), state=RunState.RUNNING)  # fmt: skip
    made.pending = deque(Unit(0, position, 0) for position in range(n_pending))
    if old:
        made.readings[Unit(0, 99, 0)] = None  # type: ignore[assignment]
    return made


def shares(work: object) -> Counter[str]:
    assert isinstance(work, Explain)
    return Counter(r.owner for r, _ in work.items)


def test_a_turn_is_a_batch_and_others_fill_it() -> None:
    runs = [run("ann", 100), run("bob", 5), run("cleo", 100)]
    rotation = Rotation()
    found = [shares(rotation.next(runs, CAPACITY)) for _ in range(3)]
    assert found == [{"ann": 8}, {"bob": 5, "cleo": 3}, {"cleo": 8}]


def test_turns_go_round_among_runs_that_cannot_share() -> None:
    runs = [run("ann", 100, limit=5), run("bob", 100, limit=6), run("cleo", 100, limit=7)]
    rotation = Rotation()
    leads = [next(iter(shares(rotation.next(runs, CAPACITY)))) for _ in range(6)]
    assert leads == ["ann", "bob", "cleo"] * 2


def test_many_runs_of_one_visitor_are_no_advantage() -> None:
    runs = [run("ann", 50 + n) for n in range(5)] + [run("bob", 50)]
    rotation = Rotation()
    found = [shares(rotation.next(runs, CAPACITY)) for _ in range(4)]
    assert found == [{"ann": 8}, {"bob": 8}] * 2
    small = [run("ann", 3), run("ann", 20), run("bob", 3)]
    assert shares(Rotation().next(small, CAPACITY)) == {"ann": 5, "bob": 3}


def test_a_new_run_shows_something_soon_where_nobody_waits() -> None:
    fresh = run("ann", 50, old=False)
    assert len(Rotation().next([fresh], CAPACITY).items) == CAPACITY.first_batch  # type: ignore[union-attr]
    shared = Rotation().next([run("bob", 50, old=False), run("cleo", 50)], CAPACITY)
    assert sum(shares(shared).values()) == CAPACITY.batch


def test_prompts_are_read_as_they_are_needed() -> None:
    one = run("ann", 0)
    one.untranscribed = deque(range(5))
    first = Rotation().next([one], CAPACITY)
    assert isinstance(first, Transcribe)
    assert first.prompts == (0, 1, 2)
    one.pending = deque(Unit(0, p, 0) for p in range(20))
    assert isinstance(Rotation().next([one], CAPACITY), Explain)
    assert list(one.untranscribed) == [3, 4]


def test_a_suspect_prompt_is_read_alone() -> None:
    one = run("ann", 0)
    one.untranscribed, one.alone = deque(range(4)), {1}
    taken = [Rotation().next([one], CAPACITY).prompts for _ in range(3)]  # type: ignore[union-attr]
    assert taken == [(0,), (1,), (2, 3)]


def test_a_suspect_reading_is_made_in_a_smaller_batch() -> None:
    one, other = run("ann", 9), run("bob", 9)
    one.together = {Unit(0, 0, 0): 3, Unit(0, 1, 0): 1}
    found = Rotation().next([one, other], CAPACITY)
    assert isinstance(found, Explain)
    assert len(found.items) == 3
    assert Unit(0, 1, 0) not in [unit for r, unit in found.items if r is one]
    alone = Rotation().next([one], CAPACITY)
    assert isinstance(alone, Explain)
    assert [unit for _, unit in alone.items] == [Unit(0, 1, 0)]


def test_a_loaded_pair_is_stayed_with_while_it_has_work() -> None:
    runs = [run("ann", 5, pair="q"), run("bob", 5)]
    rotation = Rotation()
    assert set(shares(rotation.next(runs, CAPACITY, ("p", "1")))) == {"bob"}
    runs[1].pending.clear()
    assert set(shares(rotation.next(runs[:1], CAPACITY, ("p", "1")))) == {"ann"}


def test_places_in_the_queue() -> None:
    runs = [run("ann", n) for n in (1, 2, 3)] + [run("bob", 4)]
    for one in runs[1:]:
        one.state = RunState.QUEUED
    assert places(runs) == {"ann-1": 0, "bob-4": 1, "ann-2": 2, "ann-3": 3}
