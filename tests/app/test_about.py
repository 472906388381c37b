"""About: the caveats, and facts that come from the manifest alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from nla_core.schema import FLAG_TEXT
from tests.app.conftest import Open
from tests.helpers import PAIR, make_dataset


def about(app: AppTest) -> str:
    app.switch_page("pages/about.py").run()
    assert not app.exception
    return "\n".join([m.value for m in app.markdown] + [h.value for h in app.get("html")])


def test_it_says_how_to_read_and_what_the_flags_mean(open_app: Open) -> None:
    text = about(open_app())
    for words in ("Quotes are often invented", "hypothesis about what is represented", "rawvar"):
        assert words in text
    for meaning in FLAG_TEXT.values():
        assert meaning.removeprefix("Low fidelity: t") in text


def test_the_facts_are_those_of_the_dataset_shown(
    open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.helpers.RAWVAR", 0.4567)
    root = tmp_path / "other"
    version = make_dataset(root, pair={**PAIR, "pair_id": "another-pair", "rawvar": 0.4567})
    text = about(open_app(root=root))
    assert "another-pair" in text
    assert "For the pair shown here it is 0.457." in text
    assert version in text
    assert "{&#x27;" not in text  # no value is shown as a program would print it
    assert "{'" not in text
    assert f"{PAIR['rawvar']:.3f}" not in text


def test_a_missing_dataset_leaves_a_message(open_app: Open, tmp_path: Path) -> None:
    text = about(open_app(root=tmp_path / "nothing"))
    assert "There is no dataset at" in text
