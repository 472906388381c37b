"""What an experiment may be, how edits are carried over, and arithmetic on outcomes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from nla_core.errors import NLAError
from nla_core.steering.experiment import (
    Arm,
    Edit,
    Experiment,
    carried_over,
    changes,
    hits,
    hits_at,
    words_of,
)
from nla_core.steering.outcome import Chance, Continuation, Facts, Fidelity, Outcome

pytestmark = pytest.mark.unit

EDIT = Edit("About: cake, cake. Text: I will have", "About: fish, sea. Text: I will have")
ASKED = Experiment("tiny", (EDIT,), prompt="For dinner", alphas=(0.5, 1.0), words=("fish",))


def test_an_experiment_survives_json_and_keeps_its_key() -> None:
    there = Experiment.of_json(json.loads(json.dumps(ASKED.as_json())))
    assert there == ASKED
    assert there.key == ASKED.key
    assert replace(ASKED, first_seed=1).key != ASKED.key
    assert ASKED.seeds == tuple(range(20))
    with pytest.raises(NLAError, match="not a steering experiment"):
        Experiment.of_json({"pair": "tiny"})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prompt": " "}, "no prompt"),
        ({"prompt": "a" * 2001}, "2,001 characters"),
        ({"edits": (Edit("About: cake", " "),)}, "edited explanation is empty"),
        ({"edits": (Edit("", "About: cake"),)}, "no explanation to edit"),
        ({"edits": (Edit("About: cake", "About: cake "),)}, "difference of their vectors is zero"),
        ({"edits": (Edit("About: cake", "b" * 1501),)}, "1,501 characters"),
        ({"alphas": (float("nan"),)}, "not finite"),
        ({"temperature": float("inf")}, "not finite"),
        ({"alphas": ()}, "found none"),
        ({"alphas": (0.0, 1.0)}, "other than 0"),
        ({"alphas": (1.0, 1.0)}, "different values"),
        ({"alphas": (11.0,)}, "none beyond 10"),
        ({"words": ("a" * 41,)}, "named words"),
        ({"n_seeds": 0}, "found 0 from 0"),
        ({"new_tokens": 81}, "new tokens 1 to 80"),
        ({"n_seeds": 100, "alphas": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)}, "1,300 texts"),
        ({"place": "nowhere"}, "no place “nowhere”"),
    ],
)
def test_what_cannot_be_run_is_refused_in_words(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(NLAError, match=said):
        replace(ASKED, **changed).checked()


def test_the_same_words_are_changed_elsewhere() -> None:
    assert ("cake", "fish") in changes(EDIT)
    found = carried_over(
        EDIT, ["About: cake, party.", "About: pancakes.", "nothing of the kind", "cake"]
    )
    assert found[0] == EDIT
    assert [edit.original for edit in found[1:]] == ["About: cake, party.", "cake"]
    assert "cake" not in found[1].edited
    assert found[1].edited.endswith("party.")


def test_an_insertion_is_carried_over_to_nothing() -> None:
    assert carried_over(Edit("a b", "a new b"), ["a b", "b"]) == (Edit("a b", "a new b"),)


def test_words_are_whole_and_forget_case() -> None:
    assert words_of(" fish, sea;fish\nsolar system ,") == ("fish", "sea", "solar system")
    assert hits("The FISH was selfish.", ("fish", "sea", "self")) == ("fish",)
    text = "A solar system, a SOLAR thing"
    assert [text[a:b] for a, b in hits_at(text, ("solar", "solar system"))] == ["solar", "SOLAR"]


def outcome(steered: int, random: int, n: int = 20) -> Outcome:
    facts = Facts(
        "rev", 1.0, 0.0, Fidelity(0, 0, 0), Fidelity(0, 0, 0), 1, 2, (1,), ((" fish",),), "x"
    )
    made = [Continuation(Arm.BASELINE, 0.0, seed, "", ()) for seed in range(n)]
    for arm, hit in ((Arm.STEERED, steered), (Arm.RANDOM, random)):
        made += [
            Continuation(arm, 1.0, seed, "fish" if seed < hit else "", ("fish",) * (seed < hit))
            for seed in reversed(range(n))
        ]
    chances = [Chance(Arm.RANDOM, 1.0, seed, "fish", seed / 100) for seed in range(n)]
    asked = replace(ASKED, alphas=(1.0,), n_seeds=n)
    return Outcome(asked, facts, (*chances, Chance(Arm.STEERED, 1.0, None, "fish", 0.5)), (*made,))


def test_rates_and_their_difference() -> None:
    found = outcome(15, 2)
    assert found.complete
    assert found.rate(Arm.STEERED, 1.0).share == 0.75
    contrast = found.contrast(1.0)
    assert contrast.difference == pytest.approx(0.65)
    assert 0 < contrast.low < 0.65 < contrast.high < 1
    assert contrast.beats
    assert not outcome(4, 2).contrast(1.0).beats
    assert found.contrast(1.0, Arm.BASELINE).difference == 0.75
    assert [c.seed for c in found.texts(Arm.STEERED, 1.0)] == list(range(20))


def test_the_band_is_over_random_directions() -> None:
    found = outcome(1, 1)
    band = found.band(Arm.RANDOM, 1.0)
    assert band is not None
    assert band.mean == pytest.approx(0.095)
    assert 0 < band.low < band.mean < band.high < 0.19
    steered = found.band(Arm.STEERED, 1.0)
    assert steered is not None
    assert steered.low == steered.high == 0.5
    assert found.band(Arm.BASELINE) is None
    assert json.loads(json.dumps(found.as_json()))["rates"][0]["arm"] == "baseline"


def test_a_word_that_another_begins_is_not_counted_twice() -> None:
    found = outcome(1, 1)
    asked = replace(found.experiment, words=("solar", "solar system", "fish"))
    tokens = ((" solar",), (" solar", " system"), (" fish",))
    both = replace(found, experiment=asked, facts=replace(found.facts, tokens=tokens))
    assert both.disjoint == ("solar", "fish")
