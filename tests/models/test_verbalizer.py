"""The contract of the verbalizer: batches, seeds, rows given up, bad input, cancelling."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nla_core.errors import Cancelled, NLAError
from nla_core.models.pair import LoadedPair, find_pair, load_pair
from nla_core.models.verbalizer import LocalVerbalizer
from tests.tiny import D_MODEL, tiny_pair

N = 5


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedPair:
    folder = tiny_pair(tmp_path_factory.mktemp("verbalizer"))
    return load_pair(find_pair(folder), device="cpu", dtype="float32")


@pytest.fixture
def verbalizer(loaded: LoadedPair) -> LocalVerbalizer:
    return loaded.verbalizer


def _vectors() -> torch.Tensor:
    return torch.randn(N, D_MODEL, generator=torch.Generator().manual_seed(0))


def test_greedy_texts_do_not_depend_on_their_batch(verbalizer: LocalVerbalizer) -> None:
    def texts(batch_size: int) -> list[tuple[Any, ...]]:
        found = verbalizer.verbalize(
            _vectors(), seeds=[0] * N, max_new_tokens=10, batch_size=batch_size
        )
        return sorted((v.row, v.text, v.finish, v.n_tokens, v.token_ids) for v in found)

    assert texts(2) == texts(1) == texts(N)
    assert [row for row, *_ in texts(2)] == list(range(N))


def test_a_text_depends_on_its_own_seed(verbalizer: LocalVerbalizer) -> None:
    def text(rows: list[int]) -> dict[int, str]:
        found = verbalizer.verbalize(
            _vectors()[rows],
            seeds=[7 + row for row in rows],
            temperature=1.0,
            max_new_tokens=8,
        )
        return {rows[v.row]: v.text for v in found}

    together = text(list(range(N)))
    assert text([3]) == {3: together[3]}
    assert len(set(together.values())) > 1


def test_rows_that_nobody_wants_are_not_yielded(verbalizer: LocalVerbalizer) -> None:
    found = verbalizer.verbalize(
        _vectors(), seeds=[0] * N, max_new_tokens=4, batch_size=2, wanted=lambda row: row != 1
    )
    assert sorted(v.row for v in found) == [0, 2, 3, 4]


def test_unusable_vectors_and_cancelling(verbalizer: LocalVerbalizer) -> None:
    with pytest.raises(NLAError):
        list(verbalizer.verbalize(torch.zeros(1, D_MODEL), seeds=[0]))
    with pytest.raises(Cancelled):
        list(verbalizer.verbalize(_vectors(), seeds=[0] * N, cancelled=lambda: True))
