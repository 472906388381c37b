"""Rows come and go while others are decoded, and nobody's text changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nla_core.errors import Cancelled
from nla_core.models.decoding import Batch, Prompted, decode, once
from nla_core.models.verbalizer import LocalVerbalizer
from tests.tiny import D_MODEL, tiny_model, tiny_pair, tiny_tokenizer

pytestmark = pytest.mark.unit
N, LONG = 14, 12
VOCABULARY = len(tiny_tokenizer())


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2"])
def verbalizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from nla_core.models.pair import find_pair, load_pair

    folder = tiny_pair(tmp_path_factory.mktemp(request.param), request.param)
    return load_pair(find_pair(folder), device="cpu", dtype="float32").verbalizer


def _vectors() -> torch.Tensor:
    return torch.randn(N, D_MODEL, generator=torch.Generator().manual_seed(1))


def _ids(
    verbalizer: LocalVerbalizer, rows: list[int], slots: int, **more: Any
) -> dict[int, tuple[int, ...]]:
    """Tokens by row; rows end where the sum of their tokens happens to be divisible by five."""
    vectors = _vectors()[rows]

    def feed(free: int) -> Prompted | None:
        taken = [left.pop(0) for _ in range(min(free, len(left)))]
        return verbalizer._prefill(taken, 20 * vectors[taken]) if taken else None

    left = list(range(len(rows)))
    found = decode(
        verbalizer.model,
        feed,
        slots,
        stop_ids=frozenset({2}),
        max_new_tokens=LONG,
        temperature=1.0,
        seeds=[100 + row for row in rows],
        is_complete=lambda ids: sum(ids) % 5 == 0,
        **more,
    )
    return {rows[done.row]: done.ids for done in found}


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("slots", [3, 9, N])
def test_texts_are_those_of_rows_alone(
    verbalizer: LocalVerbalizer, slots: int, ahead: bool
) -> None:
    """Sampled, since tiny models say the same to many vectors when they are greedy."""
    alone = {row: _ids(verbalizer, [row], 1)[row] for row in range(N)}
    together = _ids(verbalizer, list(range(N)), slots, ahead=ahead)
    assert together == alone
    lengths = {len(ids) for ids in alone.values()}
    assert len(lengths) > 3, "rows must end at different steps"


def test_places_are_filled_again_before_the_last_row_ends() -> None:
    """With four places and one short row after another beside a long one, the batch stays full."""
    sizes = []
    model = tiny_model()
    forward = model.forward

    def counted(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        return forward(**inputs)

    model.forward = counted
    lengths, left = [9, 3, 3, 3, 3, 3, 3], list(range(7))

    def feed(free: int) -> Prompted | None:
        rows = [left.pop(0) for _ in range(min(free, len(left)))]
        if not rows:
            return None
        first = model.model(input_ids=torch.full((len(rows), 5), 7), use_cache=True)
        logits = torch.zeros(len(rows), VOCABULARY)
        return Prompted(rows, first.past_key_values, logits)

    left_steps = dict(enumerate(lengths))
    done = decode(
        model,
        feed,
        4,
        stop_ids=frozenset(),
        max_new_tokens=9,
        temperature=0.0,
        seeds=[],
        wanted=lambda row: left_steps.update({row: left_steps[row] - 1}) or left_steps[row] > 0,
    )
    assert list(done) == []
    assert sizes == [4, 4, 1, 4, 4, 1, 1, 1]  # rows join behind the step in which they came
    assert sum(sizes) == sum(lengths) - 7  # a row's last token is never fed back


def _one_row(n_rows: int = 1) -> tuple[Any, Prompted]:
    model = tiny_model()
    first = model.model(input_ids=torch.full((n_rows, 5), 7), use_cache=True)
    return model, Prompted(range(n_rows), first.past_key_values, torch.zeros(n_rows, VOCABULARY))


def test_a_row_at_its_limit_costs_no_step_more() -> None:
    model, prompted = _one_row()
    steps = 0
    forward = model.forward

    def counted(**inputs: Any) -> Any:
        nonlocal steps
        steps += 1
        return forward(**inputs)

    model.forward = counted
    (done,) = decode(
        model, once(prompted), 1, stop_ids=frozenset(), max_new_tokens=6, temperature=0.0, seeds=[]
    )
    assert len(done.ids) == 6
    assert not done.stopped
    assert steps == 5


def test_columns_that_nobody_looks_at_fall_away() -> None:
    model, prompted = _one_row(2)
    batch = Batch(prompted)
    token = torch.tensor([7, 7])
    for _ in range(4):
        batch.step(model, token)
    _, new = _one_row(1)
    batch.admit(Prompted([2], new.cache, new.logits))
    assert batch.cache.get_seq_length() == 9
    batch.logits = batch.logits[batch.keep([2])]
    assert batch.rows == [2]
    assert batch.cache.get_seq_length() == 5
    batch.step(model, torch.tensor([7]))
    wanted = model(input_ids=torch.full((1, 6), 7)).logits[:, -1]
    torch.testing.assert_close(batch.logits, wanted)


def _stop_after(n: int) -> Callable[[], bool]:
    calls = iter(range(n))
    return lambda: next(calls, None) is None


def test_cancelling_is_noticed_between_steps() -> None:
    model, prompted = _one_row()
    found = decode(
        model,
        once(prompted),
        1,
        stop_ids=frozenset(),
        max_new_tokens=50,
        temperature=0.0,
        seeds=[],
        cancelled=_stop_after(3),
    )
    with pytest.raises(Cancelled):
        list(found)
