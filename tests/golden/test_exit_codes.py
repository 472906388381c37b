"""Exit codes of the command line, as scripts rely on them: help, a wrong flag, a missing file."""

from __future__ import annotations

from pathlib import Path

import pytest

from precompute.cli import VERBS, main

# What each verb is asked with where a file, a folder or a URL that it reads is missing.
MISSING = {
    "app": "--data none",
    "run": "--nla no-pair --corpus none.jsonl --out out",
    "plan": "--nla no-pair --corpus none.jsonl",
    "transcripts": "none.jsonl --out corpus.jsonl",
    "publish": "--out none",
    "fetch": "none copy",
    "compare": "none",
    "verify": "none",
    "testset": "--nla none --corpus none.jsonl",
    "eval": "--nla none",
    "eval-compare": "--labels none.jsonl",
    "audit": "--dataset none",
    "doctor": "--nla none",
    "steer": "--nla none --presets none.json --out measured.json",
    "export": "--nla none --out out",
    "train": "data --corpus none.jsonl --out out",
}


def _exit_code(argv: list[str]) -> int:
    try:
        return main(argv)
    except SystemExit as stop:
        return int(stop.code or 0)


def test_every_verb_has_its_golden() -> None:
    assert set(MISSING) == {verb.name for verb in VERBS}


@pytest.mark.parametrize("verb", MISSING)
def test_exit_codes_of_a_verb(
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = MISSING[verb].split()
    assert _exit_code([verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m precompute {verb} ")
    assert _exit_code([verb, *asked, "--no-such-flag"]) == 2
    assert "unrecognized arguments: --no-such-flag" in capsys.readouterr().err
    if verb == "doctor":  # a pair that is not there is a check that failed
        assert _exit_code([verb, *asked]) == 1
        assert capsys.readouterr().out.startswith("FAIL ")
    else:
        assert _exit_code([verb, *asked]) == 2
        assert capsys.readouterr().err.startswith("Error: ")
    assert list(tmp_path.iterdir()) == []  # a refusal leaves nothing behind


def test_exit_codes_without_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code(["--help"]) == 0
    assert _exit_code([]) == 2
    assert _exit_code(["no-such-verb"]) == 2
    capsys.readouterr()
