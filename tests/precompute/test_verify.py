"""``verify`` finds any change to a published dataset, and says which."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nla_core.data.manifest import CURRENT, MANIFEST, PARQUET, VECTORS
from precompute.cli import main
from tests.helpers import PAIR, make_dataset

pytestmark = pytest.mark.unit

SHIPPED = [*PARQUET.values(), VECTORS]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    make_dataset(root)
    return root


@pytest.fixture
def dataset(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "dataset"))


def directory(dataset: Path) -> Path:
    return dataset / (dataset / CURRENT).read_text().strip()


def test_a_whole_dataset_passes(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "result.json"
    assert main(["verify", str(dataset), "--json", str(out)]) == 0
    assert capsys.readouterr().out.startswith("OK ")
    result = json.loads(out.read_text())
    assert result["ok"] is True
    assert result["problems"] == []
    assert result["version"] == directory(dataset).name
    assert result["counts"]["transcripts"] == 6


@pytest.mark.parametrize("name", SHIPPED)
def test_any_changed_byte_fails(
    dataset: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = directory(dataset) / name
    content = path.read_bytes()
    for position in [*range(0, len(content), len(content) // 25), len(content) - 1]:
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 8)
        path.write_bytes(changed)
        assert main(["verify", str(dataset)]) == 1, f"byte {position} was changed"
        assert f"FAILED {name} has sha256" in capsys.readouterr().out
    path.write_bytes(content)
    assert main(["verify", str(dataset)]) == 0


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("change", ["cut", "longer", "gone"])
def test_a_file_of_another_size_fails(
    dataset: Path, name: str, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = directory(dataset) / name
    if change == "gone":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-1] if change == "cut" else content + b"\0")
    assert main(["verify", str(dataset)]) == 1
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("field", ["pair", "counts", "settings", "files", "schema_version"])
def test_an_edited_manifest_fails(dataset: Path, field: str, tmp_path: Path) -> None:
    path = directory(dataset) / MANIFEST
    data = json.loads(path.read_text())
    if field == "schema_version":
        data[field] = 0
    else:
        data[field].popitem()
    path.write_text(json.dumps(data))
    out = tmp_path / "result.json"
    assert main(["verify", str(dataset), "--json", str(out)]) == 1
    assert (
        "not the one this version was published with" in json.loads(out.read_text())["problems"][0]
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pair": {**PAIR, "rawvar": 0.9}}, "fve is not 1 - mse_nrm / rawvar"),
        ({"pair": {"pair_id": "x"}}, "no rawvar"),
    ],
)
def test_numbers_must_agree_with_the_pair(
    tmp_path: Path, change: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:  # as an older program without this check published it
        patch.setattr("nla_core.data.publish.problems", lambda *_: [])
        make_dataset(tmp_path, **change)
    assert main(["verify", str(tmp_path)]) == 1
    assert said in capsys.readouterr().out


def test_all_problems_are_listed(dataset: Path, tmp_path: Path) -> None:
    for name in PARQUET.values():
        (directory(dataset) / name).unlink()
    np.save(directory(dataset) / VECTORS, np.zeros((1, 1)))
    out = tmp_path / "result.json"
    assert main(["verify", str(dataset), "--json", str(out)]) == 1
    assert len(json.loads(out.read_text())["problems"]) == len(SHIPPED)


def test_current_names_a_version_that_is_gone(dataset: Path) -> None:
    shutil.rmtree(directory(dataset))
    assert main(["verify", str(dataset)]) == 1


@pytest.mark.parametrize("arguments", [["nowhere"], ["DATASET", "--version", "v-000000000000"]])
def test_what_is_not_there_is_bad_input(
    dataset: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(dataset) if word == "DATASET" else word for word in arguments]
    assert main(["verify", *arguments]) == 2
    assert capsys.readouterr().err.startswith("Error: ")
