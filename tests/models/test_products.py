"""Packed products against the plain ones they take the place of."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from nla_core.models.cpu import PackedLinear, can_pack, pack_products, sharpen
from nla_core.models.families import parts_of
from nla_core.models.pair import find_pair, load_pair
from tests.tiny import FAMILIES, tiny_model, tiny_pair

pytestmark = pytest.mark.skipif(not can_pack(), reason="no oneDNN products on this machine")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 7, 64, 300])
def test_a_packed_layer_gives_the_same_states(rows: int, bias: bool) -> None:
    plain = nn.Linear(48, 80, bias=bias).requires_grad_(False)
    states = torch.randn(3, rows, 48, generator=torch.Generator().manual_seed(rows))
    torch.testing.assert_close(PackedLinear(plain)(states), plain(states))
    cut = states[:, -1:]  # not contiguous, as the last position of a batch
    torch.testing.assert_close(PackedLinear(plain)(cut), plain(cut))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_packed_model_predicts_the_same_and_keeps_its_shapes(family: str) -> None:
    plain = tiny_model(family).eval().requires_grad_(False)
    packed = pack_products(copy.deepcopy(plain))
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    assert any(isinstance(module, PackedLinear) for module in packed.modules())
    torch.testing.assert_close(packed(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-5)
    assert parts_of(packed).device == parts_of(plain).device
    shapes = {name: weight.shape for name, weight in plain.named_parameters()}
    found = {name: weight.shape for name, weight in packed.named_parameters()}
    assert {name: found[name] for name in shapes} == shapes


@pytest.mark.skipif(not can_pack(torch.bfloat16), reason="no bfloat16 on this processor")
@pytest.mark.parametrize("rows", [1, 7, 64, 300])
def test_bfloat16_is_as_close_to_the_exact_states_packed_as_plain(rows: int) -> None:
    plain = nn.Linear(48, 80).requires_grad_(False)
    half = copy.deepcopy(plain).to(torch.bfloat16)
    states = torch.randn(rows, 48, generator=torch.Generator().manual_seed(rows)).bfloat16()
    exact = nn.functional.linear(states.float(), half.weight.float(), half.bias.float())
    torch.testing.assert_close(PackedLinear(half)(states).float(), exact, rtol=1e-2, atol=1e-2)


@pytest.mark.skipif(not can_pack(torch.bfloat16), reason="no bfloat16 on this processor")
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_only_products_are_in_bfloat16(family: str) -> None:
    """What lies between them is in float32."""
    plain = tiny_model(family).eval().requires_grad_(False).bfloat16().float()
    packed = pack_products(copy.deepcopy(plain).bfloat16())
    parts = parts_of(packed)
    ids = torch.randint(3, 300, (8, 24), generator=torch.Generator().manual_seed(0))
    assert (parts.dtype, parts.product_dtype) == (torch.float32, torch.bfloat16)
    states = parts.decoder(input_ids=ids).last_hidden_state
    exact = parts_of(plain).decoder(input_ids=ids).last_hidden_state
    half = parts_of(copy.deepcopy(plain).bfloat16()).decoder(input_ids=ids).last_hidden_state
    assert states.dtype == torch.float32
    assert (states - exact).norm() < 0.8 * (half.float() - exact).norm()
    torch.testing.assert_close(packed(ids).logits, plain(ids).logits, rtol=0.1, atol=0.05)


@pytest.mark.skipif(not can_pack(torch.bfloat16), reason="no bfloat16 on this processor")
def test_an_embedding_and_the_head_that_is_tied_to_it_stay_one() -> None:
    model = tiny_model("llama").requires_grad_(False).bfloat16()
    model.lm_head.weight = model.model.embed_tokens.weight
    parts = parts_of(pack_products(sharpen(model)))
    assert parts.head.weight is parts.embed.weight
    assert parts.head.weight.dtype == torch.float32


@pytest.mark.parametrize("has", [True, False])
def test_models_of_many_rows_are_packed_where_they_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr("nla_core.models.cpu.has_avx512", lambda: has)
    loaded = load_pair(find_pair(tiny_pair(tmp_path)), device="cpu", dtype="float32")
    for model in (loaded.target.parts.decoder, loaded.reconstructor.model):
        assert any(isinstance(module, PackedLinear) for module in model.modules()) is has
    assert isinstance(loaded.target.parts.head, PackedLinear) is has
    assert any(isinstance(m, PackedLinear) for m in loaded.verbalizer.model.modules())
    monkeypatch.setattr("nla_core.models.pair.pack_products", lambda model, **_: model)
    plain = load_pair(loaded.pair, device="cpu", dtype="float32")
    vectors, traces = (
        [one.reconstructor.reconstruct(["the fox", "rain"]) for one in (loaded, plain)],
        [one.target.trace([[5, 6, 7]])[0] for one in (loaded, plain)],
    )
    torch.testing.assert_close(*vectors)
    torch.testing.assert_close(*(trace.hidden for trace in traces))
    torch.testing.assert_close(*(trace.top_probs for trace in traces))


def test_what_learns_and_what_the_processor_cannot_multiply_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nla_core.models.cpu.cpu_has_bf16", lambda: False)
    learns = tiny_model("llama").requires_grad_(True)
    half = tiny_model("llama").requires_grad_(False).to(torch.bfloat16)
    halves = tiny_model("llama").requires_grad_(False).to(torch.float16)
    for model in (learns, half, halves):
        assert not any(isinstance(m, PackedLinear) for m in pack_products(model).modules())
