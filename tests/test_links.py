"""The links of docs/links.md are frozen: what each shows, its one canonical form, its problems.

tests/data/links.json holds, for each page, a link as it may arrive, the fields of its view that are
not the default, the link that the page writes for that view, and what the visitor reads about
whatever could not be used.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import pytest

from nla_core import refs, run_view, views

HERE: Final = Path(__file__).parent
GOLDEN: Final = json.loads((HERE / "data/links.json").read_text(encoding="utf-8"))
PARSE: Final[dict[str, Any]] = {
    "explore": refs.parse,
    "search": views.parse_search,
    "compare": views.parse_compare,
    "audit": views.parse_audit,
    "run": run_view.parse_run,
    "steer": views.parse_steer,
}
SECTION: Final = {
    "explore": "Links to a token or a list",
    "search": "Links to a search",
    "compare": "Links to a comparison",
    "audit": "Links to an audit",
    "run": "Links to a run",
    "steer": "Links to an experiment",
}


def read(page: str, link: str) -> Any:
    return PARSE[page](dict(parse_qsl(link, keep_blank_values=True)))


@pytest.mark.parametrize("page", PARSE)
def test_each_link_reads_as_it_always_did(page: str) -> None:
    for golden in GOLDEN[page]:
        parsed = read(page, golden["link"])
        fields = {
            field.name: getattr(parsed.view, field.name)
            for field in dataclasses.fields(parsed.view)
            if getattr(parsed.view, field.name) != field.default
        }
        found = {
            "link": golden["link"],
            "view": json.loads(json.dumps(fields)),
            "canonical": parsed.view.query,
            "problems": list(parsed.problems),
        }
        if parsed.wanted is not None:
            found["wanted"] = parsed.wanted
        assert found == golden


@pytest.mark.parametrize("page", PARSE)
def test_a_canonical_link_is_read_without_complaint_and_written_again(page: str) -> None:
    for golden in GOLDEN[page]:
        parsed = read(page, golden["canonical"])
        assert parsed.problems == ()
        assert parsed.view == read(page, golden["link"]).view
        assert parsed.view.query == golden["canonical"]


@pytest.mark.parametrize("page", PARSE)
def test_every_documented_parameter_is_in_a_golden_link(page: str) -> None:
    document = (HERE.parent / "docs/links.md").read_text(encoding="utf-8")
    section = document.split(f"## {SECTION[page]}\n")[1].split("\n## ")[0]
    documented = set(
        re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)))
    )
    written = {name for golden in GOLDEN[page] for name, _ in parse_qsl(golden["canonical"])}
    assert documented == written
