"""The engine on a tiny pair: against a plain pass, seeds, batches, cancelling, streaming."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nla_core.errors import Cancelled, NLAError
from nla_core.explain import Explainer
from nla_core.steering import run
from nla_core.steering.experiment import Arm, Edit, Experiment
from nla_core.steering.outcome import Outcome
from nla_core.steering.push import Pusher, adding, edit_direction, random_direction
from nla_core.steering.run import fidelity_of, places, said_at, steer, vector_at, word_ids
from tests.tiny import D_MODEL, LAYER, tiny_pair

pytestmark = pytest.mark.unit

EDIT = Edit("the quick brown fox", "the old stone bridge")
ASKED = Experiment(
    "pair",
    (EDIT,),
    prompt="the lazy dog while rain falls",
    alphas=(0.5, 3.0),
    words=("rain", "language models"),
    n_seeds=3,
    new_tokens=4,
)


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def explainer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    pair = tiny_pair(tmp_path_factory.mktemp("pair"), request.param)
    return Explainer.load(pair, device="cpu", dtype="float32")


def last(explainer: Explainer, experiment: Experiment) -> Outcome:
    *_, whole = steer(explainer, experiment)
    return whole


def plain_logits(explainer: Explainer, ids: list[int], added: Tensor) -> Tensor:
    """``[T, vocab]`` with ``added`` ``[T, d]`` put on block K, without cache or batch."""
    target = explainer.loaded.target

    def add(_module: Any, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + added, *output[1:])
        return output + added

    handle = target.parts.layers[LAYER].register_forward_hook(add)
    try:
        with torch.inference_mode():
            return target.model(input_ids=torch.tensor([ids])).logits[0].float()
    finally:
        handle.remove()


@pytest.mark.parametrize("place", ["token", "last", "prompt"])
@pytest.mark.parametrize("every", [False, True])
def test_chances_and_greedy_texts_are_those_of_a_plain_pass(
    explainer: Explainer, place: Any, every: bool
) -> None:
    asked = replace(ASKED, place=place, every=every, temperature=0.0, read_at=2, n_seeds=1)
    found = last(explainer, asked)
    tokenizer, target = explainer.loaded.tokenizer, explainer.loaded.target
    ids = tokenizer(asked.prompt)["input_ids"]
    direction = edit_direction(explainer.loaded.reconstructor, [EDIT])
    for alpha in asked.alphas:
        push = alpha * found.facts.norm * direction

        def added(length: int, push: Tensor = push) -> Tensor:
            rows = torch.zeros(length, D_MODEL)
            rows[list(found.facts.positions)] = push
            if every:
                rows[len(ids) :] = push
            return rows

        for word in asked.words:
            tokens = word_ids(tokenizer, word, asked.prompt)
            whole = [*ids, *tokens]
            logprobs = plain_logits(explainer, whole, added(len(whole))).log_softmax(-1)
            expected = sum(
                float(logprobs[len(ids) - 1 + i, token]) for i, token in enumerate(tokens)
            )
            band = found.band(Arm.STEERED, alpha, word)
            assert band is not None
            assert band.mean == pytest.approx(float(torch.tensor(expected).exp()), rel=1e-3)
        written = list(ids)
        for _ in range(asked.new_tokens):
            token = int(plain_logits(explainer, written, added(len(written)))[-1].argmax())
            if token in target.stop_ids:
                break
            written.append(token)
        (text,) = found.texts(Arm.STEERED, alpha)
        assert text.text == tokenizer.decode(written[len(ids) :], skip_special_tokens=True)


def test_the_baseline_is_the_target_itself(explainer: Explainer) -> None:
    found = last(explainer, ASKED)
    ids = explainer.loaded.tokenizer(ASKED.prompt)["input_ids"]
    answers = explainer.loaded.target.answer(
        [ids] * 3, seeds=ASKED.seeds, max_new_tokens=4, temperature=ASKED.temperature
    )
    texts = [explainer.loaded.tokenizer.decode(a.ids, skip_special_tokens=True) for a in answers]
    assert [c.text for c in found.texts(Arm.BASELINE)] == texts


def test_the_same_whatever_the_batch(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = last(explainer, ASKED)
    monkeypatch.setattr(run, "BATCH_ROWS", 2)
    monkeypatch.setattr(Pusher, "batch_rows", 2)
    parted = last(explainer, ASKED)
    assert parted.continuations == whole.continuations
    assert [c.p for c in parted.chances] == pytest.approx([c.p for c in whole.chances], rel=1e-3)
    assert whole.complete
    assert len(whole.continuations) == ASKED.n_continuations == 15


def test_it_is_streamed_and_can_be_stopped(explainer: Explainer) -> None:
    steps = list(steer(explainer, ASKED))
    assert [bool(s.chances) for s in steps][:2] == [False, True]
    assert steps[0].facts == steps[-1].facts
    stop = threading.Event()
    running = steer(explainer, ASKED, cancelled=stop.is_set)
    next(running)
    stop.set()
    with pytest.raises(Cancelled):
        list(running)
    target = explainer.loaded.target
    assert not target.parts.layers[LAYER]._forward_hooks  # nothing stays on the model


def test_facts_say_what_was_measured(explainer: Explainer) -> None:
    facts = last(explainer, replace(ASKED, words=("rain",), alphas=(0.5,))).facts
    vector = vector_at(explainer, ASKED)
    assert facts.norm == pytest.approx(float(vector.norm()), rel=1e-4)
    assert facts.positions == (facts.n_prompt_tokens - 1,)
    assert facts.tokens[0][0].startswith(" ")
    original, edited = fidelity_of(explainer, ASKED, EDIT.original, EDIT.edited)
    assert (facts.original.fve, facts.edited.fve) == pytest.approx(
        (original.fve, edited.fve), abs=1e-4
    )
    assert said_at(explainer, ASKED) == said_at(explainer, ASKED)


def test_averaged_edits_are_the_mean_of_their_directions(explainer: Explainer) -> None:
    other = Edit("people say", "language models hold")
    ar = explainer.loaded.reconstructor
    both = edit_direction(ar, [EDIT, other])
    texts = [EDIT.edited, other.edited, EDIT.original, other.original]
    v = torch.nn.functional.normalize(ar.reconstruct(texts), dim=-1)
    expected = torch.nn.functional.normalize(v[:2].sum(0) - v[2:].sum(0), dim=-1)
    assert torch.allclose(both, expected, atol=1e-5)
    assert float(both.norm()) == pytest.approx(1, abs=1e-5)


def test_random_directions_follow_from_the_seed() -> None:
    one, other = random_direction(64, 1), random_direction(64, 2)
    assert torch.equal(one, random_direction(64, 1))
    assert abs(float(one @ other)) < 0.5
    assert float(one.norm()) == pytest.approx(1, abs=1e-5)


def test_attention_sinks_are_left_out_of_all() -> None:
    hidden = torch.ones(4, 8)
    hidden[0] *= 100
    asked = replace(ASKED, place="prompt")
    assert places(asked, hidden, 2, median_norm=float(hidden[1].norm())) == (1, 2, 3)
    assert places(replace(ASKED, place="last"), hidden, 2, 1.0) == (3,)
    assert places(ASKED, hidden, 2, 1.0) == (2,)


def test_another_thread_on_the_same_model_sees_nothing(explainer: Explainer) -> None:
    target, ids = explainer.loaded.target, list(range(5, 12))
    before = target.trace([ids])[0]
    with adding(target, lambda: torch.full((1, 1, D_MODEL), 50.0)):
        found: list[Any] = []
        other = threading.Thread(target=lambda: found.append(target.trace([ids])[0]))
        other.start()
        other.join()
        mine = target.trace([ids])[0]
    assert torch.equal(found[0].top_probs, before.top_probs)
    assert not torch.equal(mine.top_probs, before.top_probs)


def test_nonsense_is_refused(explainer: Explainer) -> None:
    with pytest.raises(NLAError, match="no token 99"):
        list(steer(explainer, replace(ASKED, read_at=99)))
    with pytest.raises(NLAError, match="context holds 256"):
        list(steer(explainer, replace(ASKED, prompt="", token_ids=tuple([7] * 300))))
    with pytest.raises(NLAError, match="not of this pair's target"):
        list(steer(explainer, replace(ASKED, prompt="", token_ids=(7, 40_000))))
    with pytest.raises(NLAError, match="Nothing was edited"):
        list(steer(explainer, replace(ASKED, edits=(Edit("a", "a"),))))
