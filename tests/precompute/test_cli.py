"""What all verbs have in common: help with an example, exit codes, errors in one paragraph."""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nla_core.errors import Cancelled, NLAError
from precompute import cli, verify
from precompute.cli import PROGRAM, VERBS, build_parser, main
from tests.helpers import make_dataset

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
NAMES = [verb.name for verb in VERBS]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.mark.parametrize("name", NAMES)
def test_help_has_an_example_that_parses(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    module = importlib.import_module(next(v.module for v in VERBS if v.name == name))
    examples = [line.strip() for line in module.EXAMPLE.splitlines() if PROGRAM in line]
    assert examples
    for example in examples:
        assert example in text
        words = shlex.split(example)
        assert " ".join(words[:3]) == PROGRAM
        args = build_parser(name).parse_args(words[3:])
        assert args.verb == name
        assert callable(args.main)


def test_overview_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(verb.name in text and verb.about in text for verb in VERBS)


@pytest.mark.parametrize(
    "argv",
    [[], ["juggle"], ["verify"], ["run", "--nla", "x"], ["verify", "x", "--no-such-flag"]],
)
def test_wrong_arguments_are_bad_input(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (NLAError("No", why="because", fix="do this"), 2, "Error: No. because. do this."),
        (KeyboardInterrupt(), 130, "run the same command again"),
        (Cancelled(), 130, "run the same command again"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 2, "The disk is full"),
        (ZeroDivisionError("a bug"), 70, "mistake in NLA Explorer"),
    ],
)
def test_exit_codes(
    dataset: Path,
    raised: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: argparse.Namespace) -> int:
        raise raised

    monkeypatch.setattr(verify, "main", fail)
    assert main(["verify", str(dataset)]) == code
    error = capsys.readouterr().err
    assert said in error
    assert ("Traceback" in error) == (code == cli.EXIT_BUG)
    if code == cli.EXIT_INTERRUPTED:
        assert f"{PROGRAM} verify {dataset}" in error


def test_an_error_is_written_as_json_too(tmp_path: Path) -> None:
    out = tmp_path / "error.json"
    assert main(["verify", str(tmp_path / "none"), "--json", str(out)]) == 2
    result = json.loads(out.read_text())
    assert result["ok"] is False
    assert set(result["error"]) == {"what", "why", "fix"}


def test_json_that_cannot_be_written_is_told_not_raised(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(dataset), "--json", "/dev/null/x.json"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_wrong_corpus_in_a_real_process(tmp_path: Path) -> None:
    """Exit code 2, one paragraph, no traceback, and told before any model is looked for."""
    path = tmp_path / "wrong.jsonl"
    path.write_bytes(b'{"id": "\xff"}\n')
    done = subprocess.run(
        [
            *(sys.executable, "-m", "precompute", "run", "--nla", "no-such-pair"),
            *("--corpus", str(path), "--out", str(tmp_path / "out")),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (paragraph,) = done.stderr.strip().splitlines()
    assert "wrong.jsonl line 1, is not UTF-8" in paragraph
    assert not (tmp_path / "out").exists()


def test_verify_imports_no_model_library() -> None:
    code = (
        "import sys; from precompute.cli import build_parser\n"
        "build_parser('verify'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
