"""`from nla_core import Dataset` is the reader of the app, and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nla_core
from nla_core.data import dataset as dataset_module

LIGHT = """
import sys
import nla_core
heavy = {"duckdb", "pandas", "numpy", "pyarrow", "torch", "streamlit"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
from nla_core import Dataset
assert "duckdb" in sys.modules
assert not {"torch", "transformers", "streamlit"} & set(sys.modules)
print(len(Dataset.open(__import__("pathlib").Path(sys.argv[1])).transcripts()))
"""


def test_a_notebook_reads_what_the_app_reads(dataset_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, str(dataset_root)],
        cwd=Path(nla_core.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "7"


def test_the_package_lends_one_name() -> None:
    assert nla_core.Dataset is dataset_module.Dataset
    with pytest.raises(AttributeError, match="no attribute 'Shoe'"):
        nla_core.Shoe  # noqa: B018
