"""Models whose parts lie in different places say and compute what they do in one.

Two ways, since the tests have no two GPUs. With weights offloaded to the disk every pass is real,
and whoever reads a weight or its device between two passes finds nothing there. On two pretended
devices no number is real, but every operation checks that what it is given lies on one of them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nla_core.errors import NLAError
from nla_core.models.checkpoints import load_causal_lm
from nla_core.models.devices import ROOM_SHARE, Placement, device_of, pick_device, pick_place
from nla_core.models.families import parts_of
from nla_core.models.pair import LoadedPair, find_pair, load_pair
from nla_core.steering.push import Pusher
from tests.tiny import D_MODEL, tiny_model, tiny_pair

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
N = 6


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pair(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def whole(pair: Path) -> LoadedPair:
    return load_pair(find_pair(pair), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def spread(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedPair:
    """The models with most of their weights on the disk, between passes."""
    place = Placement(CPU, {"cpu": 60_000, "disk": 10**9}, tmp_path_factory.mktemp("offload"))
    return load_pair(find_pair(pair), device=place, dtype="float32")


def test_the_weights_are_elsewhere_between_passes(spread: LoadedPair) -> None:
    for model in (spread.target.model, spread.verbalizer.model, spread.reconstructor.model):
        assert any(parameter.is_meta for parameter in model.parameters())
        assert parts_of(model).device == CPU
        assert device_of(parts_of(model).layers[-1]) == CPU
    assert spread.target.device == CPU


def test_the_target_holds_and_answers_the_same(whole: LoadedPair, spread: LoadedPair) -> None:
    sequences = [[5, 6, 7, 8, 9], [20] * 12, [3, 4]]
    found = [loaded.target.trace(sequences) for loaded in (whole, spread)]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.hidden, other.hidden)
        assert torch.equal(one.top_ids, other.top_ids)
        assert torch.equal(one.surprisal[1:], other.surprisal[1:])
    options: dict[str, Any] = {"seeds": [1, 2, 3], "max_new_tokens": 8, "temperature": 0.8}
    assert whole.target.answer(sequences, **options) == spread.target.answer(sequences, **options)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_the_texts_and_their_vectors_are_the_same(
    whole: LoadedPair, spread: LoadedPair, temperature: float
) -> None:
    vectors = torch.randn(N, D_MODEL, generator=torch.Generator().manual_seed(0))
    found = []
    for loaded in (whole, spread):
        said = loaded.verbalizer.verbalize(  # three places: rows leave, others come
            vectors, seeds=range(N), temperature=temperature, max_new_tokens=9, batch_size=3
        )
        found.append({one.row: one.text for one in said})
    assert found[0] == found[1]
    texts = [f"{text} the fox" for _, text in sorted(found[0].items())]
    rebuilt = [loaded.reconstructor.reconstruct(texts) for loaded in (whole, spread)]
    assert torch.equal(*rebuilt)


def test_steering_is_the_same(whole: LoadedPair, spread: LoadedPair) -> None:
    vectors = torch.randn(3, D_MODEL, generator=torch.Generator().manual_seed(1))
    found = []
    for loaded in (whole, spread):
        pusher = Pusher(loaded.target, [5, 6, 7, 8], [2, 3], every=True)
        chance = pusher.chance(pusher.prefill(vectors), [9, 10])
        texts = pusher.texts(
            vectors, seeds=[0, 1, 2], new_tokens=6, temperature=0.7, cancelled=lambda: False
        )
        found.append((chance, texts))
    torch.testing.assert_close(found[0][0], found[1][0])  # products may be packed in one only
    assert found[0][1] == found[1][1]


def test_a_model_that_was_merged_first_is_spread_afterwards(tmp_path: Path) -> None:
    place = Placement(CPU, {"cpu": 120_000, "disk": 10**9}, tmp_path)
    ids = torch.tensor([[1, 2, 3]])
    expected = tiny_model()(input_ids=ids).logits
    model = place.put(tiny_model(), torch.float32)
    assert any(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(model(input_ids=ids).logits, expected)
    assert place.put(model, torch.float32) is model


def test_no_operation_mixes_two_devices(pair: Path, whole: LoadedPair) -> None:
    family = whole.target.model.config.model_type
    command = [sys.executable, "-m", "tests.models.pretend_devices", str(pair), family]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]


# ---- names ---------------------------------------------------------------------------------------


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda n: (60 - 20 * n, 100))
    monkeypatch.setattr("nla_core.models.devices._memory", lambda: 7)


@pytest.mark.usefixtures("two_gpus")
def test_weights_leave_room_on_every_device() -> None:
    place = pick_place("split")
    assert place.first == torch.device("cuda", 0)
    assert place.budget == {0: 60 - 100 * ROOM_SHARE, 1: 40 - 100 * ROOM_SHARE, "cpu": 7}
    assert pick_place("split:1/1").budget == {1: 40 - 100 * ROOM_SHARE, "cpu": 7}
    assert pick_place("split:1").first == torch.device("cuda", 1)


def test_each_model_is_given_what_those_before_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(range(100, 0, -10))
    given = []

    def place(_: str) -> Placement:
        return Placement(CPU, {"cpu": 10_000_000 + next(left), "disk": 10**9}, tmp_path)

    def load(*args: Any, device: Placement, **kwargs: Any) -> Any:
        given.append(device.budget["cpu"] - 10_000_000)
        return load_causal_lm(*args, device=CPU, **kwargs)

    monkeypatch.setattr("nla_core.models.pair.pick_place", place)
    monkeypatch.setattr("nla_core.models.pair.load_causal_lm", load)
    load_pair(find_pair(tiny_pair(tmp_path / "pair")), device="split", dtype="float32")
    assert given[0] > given[1] > given[2]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["split:", "split:a", "split:0+1", "splitter", "split:1/2"])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(NLAError):
        pick_place(name)


def test_without_a_gpu_there_is_nothing_to_split_over() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(NLAError, match="sees 0 CUDA devices"):
            pick_place("split")
    assert pick_place("cpu") == Placement(CPU)


def test_what_needs_one_device_says_so() -> None:
    with pytest.raises(NLAError, match="not one device"):
        pick_device("split")
