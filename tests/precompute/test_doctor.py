"""What `doctor` says of a pair that fits and of pairs that do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from nla_core.models.sidecar import FILE_NAME
from precompute.cli import main
from tests.tiny import tiny_pair


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    return tiny_pair(tmp_path)


def _examine(pair: Path) -> tuple[int, dict[str, tuple[bool, str]]]:
    out = pair.parent / "doctor.json"
    code = main(["doctor", "--nla", str(pair), "--dtype", "float32", "--json", str(out)])
    checks = json.loads(out.read_text())["checks"]
    return code, {c["name"]: (c["ok"], c["found"]) for c in checks}


def _edit(pair: Path, role: str, **change: object) -> None:
    path = pair / role / FILE_NAME
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(document | change), encoding="utf-8")


def test_form_is_right_for_a_pair_of_random_weights(pair: Path) -> None:
    _, checks = _examine(pair)
    for name in ("sidecars", "target", "marker", "BOS", "injection"):
        assert checks[name][0], checks[name]
    assert {"injection scale", "texts differ", "closed", "round trip"} <= set(checks)


def test_random_weights_do_not_pass(pair: Path) -> None:
    code, checks = _examine(pair)
    assert code == 1
    assert not checks["closed"][0]


def test_halves_of_different_layers(pair: Path) -> None:
    _edit(pair, "ar", extraction_layer_index=1)
    code, checks = _examine(pair)
    assert code == 1
    assert "layer" in checks["sidecars and models"][1]


def test_layer_beyond_the_target(pair: Path) -> None:
    for role in ("av", "ar"):
        _edit(pair, role, extraction_layer_index=9)
    code, checks = _examine(pair)
    assert code == 1
    assert "blocks 0 to 3" in checks["sidecars and models"][1]


def test_a_scale_that_drowns_the_prompt(pair: Path) -> None:
    _edit(pair, "av", extraction={"injection_scale": 1e7})
    code, checks = _examine(pair)
    assert code == 1
    assert not checks["injection scale"][0]


def test_no_pair_at_all(tmp_path: Path) -> None:
    assert main(["doctor", "--nla", str(tmp_path)]) == 1
