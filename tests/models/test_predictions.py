"""Predictions in blocks of the vocabulary are those of one whole table of log-probabilities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nla_core.models import target as predictions
from nla_core.models.cpu import PackedLinear, can_pack
from nla_core.models.families import Parts, parts_of
from nla_core.models.target import Target, predict
from tests.tiny import tiny_model, tiny_tokenizer

N, K, BLOCK = 7, 4, 11


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that neither rows nor vocabulary are a multiple of what is taken at a time."""
    monkeypatch.setattr(predictions, "ROWS", 3)
    monkeypatch.setattr(predictions, "VOCABULARY", BLOCK)


def _whole(parts: Parts, states: Tensor) -> Tensor:
    return parts.logits(states).float().log_softmax(-1)


def _states(parts: Parts) -> Tensor:
    return torch.randn(N, parts.d_model, generator=torch.Generator().manual_seed(0))


def _check(parts: Parts) -> None:
    states = _states(parts)
    logs = _whole(parts, states)
    following = torch.randint(logs.shape[1], (N,), generator=torch.Generator().manual_seed(1))
    found = predict(parts, states, following, K)
    wanted = logs.topk(K, dim=-1)
    assert found.ids.tolist() == wanted.indices.tolist()
    torch.testing.assert_close(found.probs, wanted.values.exp(), atol=1e-6, rtol=1e-5)
    came = -logs.gather(1, following[:, None])[:, 0]
    torch.testing.assert_close(found.surprisal, came, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@torch.inference_mode()
def test_they_are_those_of_the_whole_table(family: str) -> None:
    parts = parts_of(tiny_model(family))
    assert type(parts.head) is nn.Linear
    assert parts.head.out_features % BLOCK
    _check(parts)


@torch.inference_mode()
def test_a_head_with_a_bias() -> None:
    model = tiny_model()
    model.lm_head.bias = nn.Parameter(torch.linspace(-3, 3, model.lm_head.out_features))
    _check(parts_of(model))


@torch.inference_mode()
def test_a_head_that_has_no_rows_to_slice_is_asked_as_a_whole() -> None:
    model = tiny_model()
    head = model.lm_head
    model.lm_head = nn.Sequential(head)
    _check(parts_of(model))


@pytest.mark.skipif(not can_pack(), reason="no oneDNN products on this machine")
@pytest.mark.parametrize("piece", [None, BLOCK, 3, 1])
@torch.inference_mode()
def test_a_packed_head_is_read_in_its_pieces(piece: int | None) -> None:
    """Pieces of fewer tokens than are asked for, too."""
    model = tiny_model()
    model.lm_head = PackedLinear(model.lm_head, piece)
    _check(parts_of(model))


@torch.inference_mode()
def test_more_than_there_are_and_none_at_all() -> None:
    parts = parts_of(tiny_model())
    vocabulary = parts.head.out_features
    states, none = _states(parts), torch.zeros(N, dtype=torch.long)
    found = predict(parts, states, none, vocabulary + 5)
    assert sorted(found.ids[0].tolist()) == list(range(vocabulary))
    assert found.probs.sum(-1).tolist() == pytest.approx([1.0] * N, abs=1e-5)
    assert predict(parts, states[:0], none[:0], K).ids.shape == (0, K)


def test_a_trace_has_them_where_they_were_asked_for() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    target = Target(model, tokenizer, layer=1)
    texts = [[5, 6, 7, 8, 9, 10], [11, 12, 13]]
    whole = target.trace(texts, top_k=K)
    some = target.trace(texts, top_k=K, predict_at=[[1, 5], []])
    for text, every, few in zip(texts, whole, some, strict=True):
        logs = model(input_ids=torch.tensor([text])).logits[0].log_softmax(-1)
        came = -logs[:-1].gather(1, torch.tensor(text)[1:, None])[:, 0]
        assert every.surprisal[0].isnan()
        torch.testing.assert_close(every.surprisal[1:], came.detach(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(few.hidden, every.hidden)
    assert some[0].surprisal.isnan().tolist() == [True, True, False, True, True, True]
    assert some[1].surprisal.isnan().all()
    assert not some[1].top_probs.any()
    assert some[0].top_probs.any(-1).tolist() == [False, True, False, False, False, True]
    assert some[0].top_ids[5].tolist() == whole[0].top_ids[5].tolist()
