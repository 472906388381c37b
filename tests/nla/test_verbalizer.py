"""The contract of verbalizers, over every implementation that can run here."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nla_core.errors import Cancelled, NLAError
from nla_core.nla.pair import LoadedPair, find_pair, load_pair
from nla_core.nla.verbalizer import LocalVerbalizer
from nla_core.nla.vllm_verbalizer import VllmVerbalizer
from tests.tiny import D_MODEL, tiny_pair

HAS_VLLM = importlib.util.find_spec("vllm") is not None
N = 5


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedPair:
    folder = tiny_pair(tmp_path_factory.mktemp("verbalizer"))
    return load_pair(find_pair(folder), device="cpu", dtype="float32")


class StandIn:
    """What vLLM does with prompts of embeddings, by the model itself, one prompt at a time."""

    def __init__(self, local: LocalVerbalizer) -> None:
        self.local = local
        self.asked: list[dict[str, Any]] = []

    def generate(self, prompts: Any, params: Any, *, use_tqdm: bool) -> Any:
        self.asked += params
        return [self._one(*pair) for pair in zip(prompts, params, strict=True)]

    def _one(self, prompt: dict[str, torch.Tensor], params: dict[str, Any]) -> Any:
        draw, ids = torch.Generator().manual_seed(params["seed"]), []
        inputs = prompt["prompt_embeds"][None]
        for _ in range(params["max_tokens"]):
            logits = self.local.model(inputs_embeds=inputs).logits[0, -1]
            if params["temperature"]:
                p = torch.softmax(logits / params["temperature"], -1)
                token = int(torch.multinomial(p, 1, generator=draw))
            else:
                token = int(logits.argmax())
            ids.append(token)
            if token in self.local.stop_ids:
                break
            new = self.local.parts.embed(torch.tensor([[token]]))
            inputs = torch.cat([inputs, new], dim=1)
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids)])


@pytest.fixture(
    params=[
        "local",
        "vllm, stood in for",
        pytest.param(
            "vllm",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed: not run here"),
            ],
        ),
    ]
)
def verbalizer(request: pytest.FixtureRequest, loaded: LoadedPair) -> Any:
    local = loaded.verbalizer
    if request.param == "local":
        return local
    if request.param == "vllm":
        return VllmVerbalizer.load(loaded.pair.av_dir, loaded.pair.av, dtype="float32")
    return VllmVerbalizer(StandIn(local), dict, local.parts.embed, loaded.tokenizer, loaded.pair.av)


def _vectors() -> torch.Tensor:
    return torch.randn(N, D_MODEL, generator=torch.Generator().manual_seed(0))


def test_greedy_texts_are_those_of_the_built_in_one(verbalizer: Any, loaded: LoadedPair) -> None:
    def texts(of: Any) -> list[tuple[Any, ...]]:
        found = of.verbalize(_vectors(), seeds=[0] * N, max_new_tokens=10, batch_size=2)
        return sorted((v.row, v.text, v.finish, v.n_tokens, v.token_ids) for v in found)

    assert texts(verbalizer) == texts(loaded.verbalizer)
    assert [row for row, *_ in texts(verbalizer)] == list(range(N))


def test_a_text_depends_on_its_own_seed(verbalizer: Any) -> None:
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


def test_rows_that_nobody_wants_are_not_yielded(verbalizer: Any) -> None:
    found = verbalizer.verbalize(
        _vectors(), seeds=[0] * N, max_new_tokens=4, batch_size=2, wanted=lambda row: row != 1
    )
    assert sorted(v.row for v in found) == [0, 2, 3, 4]


def test_unusable_vectors_and_cancelling(verbalizer: Any) -> None:
    with pytest.raises(NLAError):
        list(verbalizer.verbalize(torch.zeros(1, D_MODEL), seeds=[0]))
    with pytest.raises(Cancelled):
        list(verbalizer.verbalize(_vectors(), seeds=[0] * N, cancelled=lambda: True))


def test_nothing_of_a_generation_config_reaches_vllm(loaded: LoadedPair) -> None:
    local = loaded.verbalizer
    engine = StandIn(local)
    found = VllmVerbalizer(engine, dict, local.parts.embed, loaded.tokenizer, loaded.pair.av)
    list(found.verbalize(_vectors()[:1], seeds=[5], temperature=0.7, max_new_tokens=3))
    (asked,) = engine.asked
    assert (asked["seed"], asked["temperature"], asked["max_tokens"]) == (5, 0.7, 3)
    assert (asked["top_p"], asked["top_k"], asked["repetition_penalty"]) == (1.0, -1, 1.0)


@pytest.mark.skipif(HAS_VLLM, reason="vLLM is installed")
def test_where_vllm_is_missing_it_is_said(loaded: LoadedPair) -> None:
    with pytest.raises(NLAError, match="vLLM is not installed"):
        VllmVerbalizer.load(loaded.pair.av_dir, loaded.pair.av)
