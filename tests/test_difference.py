"""The difference of two vectors is read by the real models, and nonsense is refused in words."""

from __future__ import annotations

import pytest

from nla_core.difference import Place, read_difference
from nla_core.errors import NLAError
from nla_core.explain import Explainer
from tests.tiny import tiny_pair


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    return Explainer.load(tiny_pair(tmp_path_factory.mktemp("pair")), device="cpu", dtype="float32")


def ids(explainer: Explainer, text: str) -> list[int]:
    return explainer.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_it_is_the_same_every_time_and_depends_on_the_order(explainer: Explainer) -> None:
    one = Place(ids(explainer, "the quick brown fox"), 2)
    other = Place(ids(explainer, "the lazy brown dog"), 2)
    found = read_difference(explainer, one, other)
    assert found == read_difference(explainer, one, other)
    assert -1 <= found.cosine <= 1
    assert found.alike < 1
    back = read_difference(explainer, other, one)
    assert back.alike == pytest.approx(found.alike, abs=1e-5)
    assert (back.explanation, back.cosine) != (found.explanation, found.cosine)


def test_the_same_vector_has_no_difference(explainer: Explainer) -> None:
    place = Place(ids(explainer, "the quick brown fox"), 1)
    with pytest.raises(NLAError, match="same vector"):
        read_difference(explainer, place, place)


def test_a_token_that_is_not_there(explainer: Explainer) -> None:
    place = Place(ids(explainer, "the quick"), 99)
    with pytest.raises(NLAError, match="There is no token 99"):
        read_difference(explainer, place, place)
