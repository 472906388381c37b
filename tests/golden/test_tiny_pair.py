"""The tiny pair, end to end in float32: what it says, and the numbers beside it.

Texts are compared exactly. Vectors and scores are compared within a tolerance, since processors
add up in different orders.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from nla_core.explain import Explainer
from nla_core.readings import Reading, Transcript, reading_id
from tests.tiny import tiny_pair

EXPECTED = json.loads(Path(__file__).with_name("tiny_pair.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    # By a relative path: ids and seeds depend on the name of the target.
    with contextlib.chdir(tmp_path_factory.mktemp("tiny")):
        return Explainer.load(tiny_pair(Path()), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def transcript(explainer: Explainer) -> Transcript:
    (made,) = explainer.transcribe(
        [[{"role": "user", "content": "the quick brown fox"}]],
        seeds=[1],
        max_new_tokens=8,
        temperature=0.0,
    )
    assert isinstance(made, Transcript)
    return made


def _readings(explainer: Explainer, transcript: Transcript, temperature: float) -> list[Reading]:
    found = explainer.explain(
        [transcript],
        [explainer.content_positions(transcript)],
        temperature=temperature,
        seed=3,
        max_new_tokens=12,
    )
    return sorted((reading for _, reading in found), key=lambda reading: reading.position)


def _near(expected: Sequence[float]) -> object:
    return pytest.approx(expected, abs=2e-4)


def test_the_target_answers_and_holds_the_same(transcript: Transcript) -> None:
    assert transcript.transcript_id == EXPECTED["transcript_id"]
    assert transcript.messages[-1]["content"] == EXPECTED["answer"]
    assert transcript.hidden.dtype == torch.float32
    assert transcript.hidden.norm(dim=-1).tolist() == _near(EXPECTED["norms"])
    assert transcript.hidden[4].tolist() == _near(EXPECTED["vector_4"])


def test_the_verbalizer_writes_the_same_texts(explainer: Explainer, transcript: Transcript) -> None:
    greedy = _readings(explainer, transcript, 0.0)
    sampled = _readings(explainer, transcript, 1.0)
    assert [r.position for r in greedy] == [r.position for r in sampled] == EXPECTED["positions"]
    assert {r.explanation for r in greedy} == {EXPECTED["greedy"]}
    assert [r.explanation for r in sampled] == EXPECTED["sampled"]


def test_readings_keep_their_names_and_scores(explainer: Explainer, transcript: Transcript) -> None:
    sampled = _readings(explainer, transcript, 1.0)
    # Not the pair's own revision: it is a hash of statistics whose last bits processors decide.
    names = [reading_id("tiny", "r0", transcript.transcript_id, reading) for reading in sampled]
    assert names == EXPECTED["reading_ids"]
    assert [r.cosine for r in sampled] == _near(EXPECTED["cosines"])
    assert [r.fve for r in sampled] == _near(EXPECTED["fves"])
