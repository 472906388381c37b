"""Verb ``plan``: what it measures, what it says, and what it does not load."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nla_core.errors import NLAError
from nla_core.explain import Explainer
from nla_core.models.pair import find_pair, load_pair
from precompute.cli import main
from precompute.corpus import Prompt
from precompute.cost import Forecast, chosen, count, forecast, in_words
from precompute.plan import Settings
from tests.precompute.fake import HashEmbedder
from tests.tiny import tiny_pair

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(max_new_tokens=2, explanation_tokens=3, batch_size=400, dtype="float32")


def prompt(name: str, text: str) -> Prompt:
    return Prompt(name, "c", "t", (), ({"role": "user", "content": text},))


FOX, RAIN = prompt("fox", "the fox"), prompt("rain", "rain falls on people")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pair(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def explainer(pair: Path) -> Explainer:
    return Explainer(load_pair(find_pair(pair), device="cpu"))


def planned(explainer: Explainer, *prompts: Prompt, **options: Any) -> Forecast:
    counted = count(prompts, explainer, SETTINGS.max_new_tokens)
    return forecast(counted, SETTINGS, explainer, HashEmbedder(), **options)


def test_a_corpus_that_is_its_own_sample_has_the_readings_of_a_run(explainer: Explainer) -> None:
    found = planned(explainer, FOX, RAIN, usd_per_hour=3600.0)
    made = explainer.transcribe(
        [FOX.messages, RAIN.messages], seeds=[0, 0], max_new_tokens=2, temperature=0.0
    )
    whole = [one for one in made if not isinstance(one, NLAError)]
    assert found.readings == sum(len(explainer.content_positions(one)) for one in whole)
    assert found.time.basis == "a batch"
    assert found.time.low is not None
    assert found.time.seconds is not None
    assert 0 < found.time.low < found.time.seconds < (found.time.high or 0)
    assert found.usd == pytest.approx((found.time.low, found.time.high))
    assert found.disk_bytes > 1000
    assert found.memory_bytes > 10**7


def test_ten_times_the_prompts_are_ten_times_the_readings(explainer: Explainer) -> None:
    once = planned(explainer, FOX, RAIN)
    many = [replace(one, id=f"{one.id}-{i}") for one in (FOX, RAIN) for i in range(10)]
    more = planned(explainer, *many, sample_readings=10)
    assert more.prompts == 20
    assert more.readings == pytest.approx(10 * once.readings, rel=0.1)
    assert more.tokens == pytest.approx(10 * once.tokens, rel=0.1)


def test_what_is_paid_once_is_not_scaled(explainer: Explainer) -> None:
    found = planned(explainer, FOX, load_s=10_000.0)
    assert found.time.seconds == pytest.approx(10_000, rel=0.01)


def test_a_prompt_that_cannot_be_counted_is_named(explainer: Explainer) -> None:
    endless = prompt("endless", "people " * 5_000)
    found = planned(explainer, FOX, endless, RAIN)
    assert found.prompts == 2
    assert found.failed.keys() == {"endless"}
    assert "cannot be run: endless: " in in_words(found)
    assert found.as_json()["failed"]["endless"].keys() == {"what", "why", "fix"}
    with pytest.raises(NLAError, match="No prompt of the corpus can be run") as caught:
        count([endless], explainer, 2)
    assert "endless" in caught.value.why


def test_prompts_are_chosen_over_the_range_of_lengths() -> None:
    prompts: list[Any] = [f"p{i}" for i in range(10)]
    lengths = [10 * (i + 1) for i in range(10)]
    assert len(chosen(prompts, lengths, 20)) == 2
    assert len(chosen(prompts, lengths, 10_000)) == 10
    some = chosen(prompts, lengths, 200)
    mean = sum(lengths[prompts.index(p)] for p in some) / len(some)
    assert 45 <= mean <= 65


def test_the_command_says_a_range(
    pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("nla_core.embed.MiniLM", HashEmbedder)
    row: dict[str, Any] = {"id": "a-001", "category": "c", "title": "t", "tags": []}
    row["messages"] = [{"role": "user", "content": "the fox"}]
    corpus, out = tmp_path / "c.jsonl", tmp_path / "out.json"
    corpus.write_text(json.dumps(row) + "\n", encoding="utf-8")
    command = ["plan", "--nla", str(pair), "--corpus", str(corpus), "--device", "cpu"]
    command += ["--max-new-tokens", "2", "--explanation-tokens", "3", "--json", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert " to " in said.splitlines()[1]
    assert "most likely" in said
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["ok"]
    assert result["time"]["low"] < result["time"]["high"]
    assert result["settings"]["explanation_tokens"] == 3


@pytest.mark.parametrize("verb", ["--help", "plan --help"])
def test_help_loads_no_model_library(verb: str) -> None:
    program = (
        "import sys\nfrom precompute.cli import main\n"
        f"try: main({verb.split()!r})\nexcept SystemExit: pass\n"
        "print(*sorted({'torch', 'peft', 'transformers', 'duckdb', 'ray'} & {*sys.modules}), "
        "*[m for m in sys.modules if m.startswith('precompute.train')], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == ""
