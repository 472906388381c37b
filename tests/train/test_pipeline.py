"""A config is a list of the program's own commands; every shipped one can be planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from nla_core.errors import NLAError
from precompute.cli import build_parser
from precompute.train.pipeline import RECORD, Step, known_configs, plan, run_all


def _config(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", known_configs())
def test_shipped_configs_hold_valid_commands(name: str, tmp_path: Path) -> None:
    steps = plan(name, out=tmp_path, corpus="text.jsonl", prompts=["p.jsonl", "q.jsonl"])
    assert [s.argv[:2] for s in steps if s.argv[1] == "assemble"]
    for step in steps:
        args = build_parser(step.argv[0]).parse_args(list(step.argv))
        assert "{" not in step.line
        assert args.verb == step.argv[0]


def test_target_and_lists_are_filled_in(tmp_path: Path) -> None:
    name = _config(
        tmp_path,
        "target: here\nlayer: 3\nsteps:\n- data: {corpus: '{corpus}', out: '{out}/data'}\n"
        "- testset: {nla: '{out}/pair', corpus: '{prompts}'}\n"
        "- eval: {nla: '{out}/pair', drop: false, show: 2, quick: true}\n",
    )
    first, second, third = plan(name, out=Path("runs/x"), corpus="a b.txt", prompts=["p", "q r"])
    assert first.line == (
        "python -m precompute train data --target here --layer 3 "
        "--corpus 'a b.txt' --out runs/x/data"
    )
    assert second.line == "python -m precompute testset --nla runs/x/pair --corpus p 'q r'"
    assert third.argv == ("eval", "--nla", "runs/x/pair", "--show", "2", "--quick")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("steps: 3\n", "steps"),
        ("steps: []\nlayers: 3\n", "layers"),
        ("steps: [av]\n", "steps[1]"),
        ("steps: [{dance: {}}]\n", "dance"),
        ("steps: [{av: 3}]\n", "steps[1].av"),
        ("steps: [\n", "while parsing"),
    ],
)
def test_wrong_config_is_refused_by_field(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(NLAError, match=r"config") as caught:
        plan(_config(tmp_path, text), out=tmp_path, corpus="x", prompts=[])
    assert named in str(caught.value)


def test_finished_steps_are_not_run_again(tmp_path: Path, capfd) -> None:
    good = Step(("train", "all", "--config", "smollm2-135m-cpu", "--corpus", "x", "--out", "y"))
    good = Step((*good.argv, "--dry-run"))
    bad = Step(("verify", str(tmp_path / "nowhere")))
    with pytest.raises(NLAError, match="Step 2 of 2 stopped"):
        run_all([good, bad], tmp_path)
    assert (tmp_path / RECORD).is_file()
    capfd.readouterr()
    with pytest.raises(NLAError, match="exit code 2"):
        run_all([good, bad], tmp_path)
    out = capfd.readouterr().out
    assert "done before" in out
    assert out.count("train data") == 0
