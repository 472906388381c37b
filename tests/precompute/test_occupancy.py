"""What a step of the AV costs, and how many there are."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nla_core.nla import decoding
from nla_core.nla.pair import find_pair, load_pair
from nla_core.nla.verbalizer import Verbalization
from precompute import occupancy
from precompute.occupancy import StepCosts, steps
from tests.tiny import tiny_pair


def test_places_are_taken_as_they_become_free() -> None:
    assert steps([], 4) == 0
    assert steps([5, 3], 4) == 5
    assert steps([5, 3, 4], 2) == 7  # the third follows the second
    assert steps([24] * 72, 64) == 48
    assert steps([10] * 640, 64) == 100


@pytest.mark.parametrize("slots", [1, 8, 16, 64])
def test_as_many_steps_as_the_verbalizer_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    verbalizer = load_pair(find_pair(tiny_pair(tmp_path)), device="cpu").verbalizer
    verbalizer.stop_ids = frozenset()
    monkeypatch.setattr(verbalizer, "_is_complete", lambda ids: len(ids) > ids[0] % 9)
    taken = []
    pick = decoding._pick
    monkeypatch.setattr(decoding, "_pick", lambda *args: (taken.append(1), pick(*args))[1])
    vectors = torch.randn(40, verbalizer.parts.d_model, generator=torch.Generator().manual_seed(0))
    texts = verbalizer.verbalize(
        vectors, seeds=range(40), temperature=1.0, max_new_tokens=20, batch_size=slots
    )
    lengths = [text.n_tokens for text in sorted(texts, key=lambda text: text.row)]
    assert len(set(lengths)) > 4
    assert len(taken) == steps(lengths, slots)


class _Clockwork:
    """A verbalizer whose every row takes all its tokens, and costs exactly what it should."""

    parts = types.SimpleNamespace(device=torch.device("cpu"))

    def __init__(self, prompt: float, step: float, row: float) -> None:
        self.costs, self.now = (prompt, step, row), 0.0

    def verbalize(
        self, vectors: Any, *, seeds: Sequence[int], max_new_tokens: int, batch_size: int
    ) -> Iterator[Verbalization]:
        prompt, step, row = self.costs
        self.now += len(seeds) * prompt + (max_new_tokens - 1) * (step + len(seeds) * row)
        yield from ()

    def clock(self, device: torch.device) -> Any:
        clockwork = self

        class Spent:
            def __enter__(self) -> Spent:
                self.began = clockwork.now
                return self

            def __exit__(self, *_: object) -> None:
                self.cpu_s = clockwork.now - self.began

        return Spent()


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_prompts_steps_and_rows_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    clockwork = _Clockwork(prompt=0.02, step=0.03, row=0.001)
    monkeypatch.setattr(occupancy, "clock", clockwork.clock)
    found = StepCosts.of(clockwork, 4, batch_size)
    assert found.prompt_s == pytest.approx(0.02)
    if batch_size > 1:
        assert (found.step_s, found.row_s) == (pytest.approx(0.03), pytest.approx(0.001))
    assert found.step_s + found.row_s == pytest.approx(0.031)


def test_a_real_step_costs_something(tmp_path: Path) -> None:
    loaded = load_pair(find_pair(tiny_pair(tmp_path)), device="cpu")
    found = StepCosts.of(loaded.verbalizer, loaded.pair.d_model, 16)
    assert min(found.prompt_s, found.step_s, found.row_s) >= 0
    assert found.seconds([5] * 32, 16) > found.seconds([5] * 16, 16) > 0
