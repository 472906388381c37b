"""The prompt corpus is well formed, complete, varied and our own.

Knows what ``data/prompts/README.md`` promises. Reads the files itself instead of through
``precompute.corpus``, so that a mistake in that reader cannot hide one in the files.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.unit

FOLDER = Path(__file__).resolve().parents[1] / "data" / "prompts"
CATEGORIES = {
    "facts", "arithmetic", "rhyme and planning", "language switching", "code", "instructions",
    "roleplay and fiction", "ambiguous words", "false premises", "self-description",
    "being tested", "refusals", "emotional conversations", "long text",
}  # fmt: skip
FIELDS = {"id", "category", "title", "tags", "messages"}
SHINGLE = 4
MOST_SHARED = 0.5
"""Two prompts that share more of their four-word runs than this are one prompt told twice."""

Prompt = dict[str, Any]


def _load() -> dict[str, list[Prompt]]:
    return {
        path.name: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(FOLDER.glob("*.jsonl"))
    }


FILES = _load()
PROMPTS = [prompt for prompts in FILES.values() for prompt in prompts]


def _words(prompt: Prompt) -> list[str]:
    text = " ".join(message["content"] for message in prompt["messages"])
    return re.findall(r"\w+", text.casefold())


def _shingles(prompt: Prompt) -> set[tuple[str, ...]]:
    words = _words(prompt)
    return {tuple(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1))}


def shared(one: Prompt, other: Prompt) -> float:
    """Jaccard overlap of the two prompts' word runs, in [0, 1]."""
    left, right = _shingles(one), _shingles(other)
    return len(left & right) / len(left | right)


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt["id"])
def test_a_prompt_has_the_promised_shape(prompt: Prompt) -> None:
    assert set(prompt) == FIELDS
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*-\d{3}", prompt["id"])
    assert 3 <= len(prompt["title"]) <= 40
    assert prompt["title"] == prompt["title"].strip()
    assert prompt["tags"]
    assert len(set(prompt["tags"])) == len(prompt["tags"])
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", tag) for tag in prompt["tags"])


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt["id"])
def test_messages_alternate_and_end_with_the_user(prompt: Prompt) -> None:
    messages = prompt["messages"]
    assert all(set(message) == {"role", "content"} for message in messages)
    assert all(message["content"] == message["content"].strip() != "" for message in messages)
    roles = [message["role"] for message in messages]
    system = roles[0] == "system"
    turns = roles[1:] if system else roles
    assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"]
    assert ("system-prompt" in prompt["tags"]) == system
    assert ("multi-turn" in prompt["tags"]) == (len(turns) > 1)


def test_ids_titles_and_texts_are_unique() -> None:
    for key in ("id", "title"):
        twice = [name for name, n in Counter(prompt[key] for prompt in PROMPTS).items() if n > 1]
        assert not twice, f"{key} used more than once: {twice}"
    texts = Counter(" ".join(_words(prompt)) for prompt in PROMPTS)
    assert texts.most_common(1)[0][1] == 1


def test_every_category_is_there_with_enough_prompts() -> None:
    count = Counter(prompt["category"] for prompt in PROMPTS)
    assert set(count) == CATEGORIES
    assert min(count.values()) >= 11
    assert len(PROMPTS) >= 160


def test_one_file_holds_one_category() -> None:
    assert all(len({prompt["category"] for prompt in prompts}) == 1 for prompts in FILES.values())


def test_system_prompts_and_earlier_turns_are_common() -> None:
    tags = Counter(tag for prompt in PROMPTS for tag in prompt["tags"])
    assert tags["system-prompt"] >= 25
    assert tags["multi-turn"] >= 25


def test_long_texts_are_long_and_the_rest_is_short() -> None:
    for prompt in PROMPTS:
        words = sum(len(message["content"].split()) for message in prompt["messages"])
        low, high = (150, 300) if prompt["category"] == "long text" else (1, 80)
        assert low <= words <= high, f"{prompt['id']} has {words} words"


def test_no_two_prompts_say_the_same() -> None:
    close = [
        (one["id"], other["id"], round(shared(one, other), 2))
        for one, other in combinations(PROMPTS, 2)
        if shared(one, other) > MOST_SHARED
        and not ("pair" in one["tags"] and "pair" in other["tags"])
    ]
    assert not close


def test_overlap_is_measured_on_word_runs() -> None:
    def prompt(text: str) -> Prompt:
        return {"messages": [{"role": "user", "content": text}]}

    one = prompt("Where does the old river meet the sea?")
    assert shared(one, prompt("where does the OLD river meet the sea")) == 1.0
    assert shared(one, prompt("Sea the meet river old the does where")) == 0.0
    assert shared(one, prompt("Tell me where does the old river meet the lake")) > 0.3


def test_the_readme_counts_what_is_there() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"\| `(\S+\.jsonl)` \| [^|]+ \| +(\d+) \|", readme))
    assert {name: int(n) for name, n in rows.items()} == {
        name: len(prompts) for name, prompts in FILES.items()
    }
    assert f"{len(PROMPTS)} chat prompts" in readme
