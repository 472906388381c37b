"""Files to take away hold the rows, say where they come from, and run nothing."""

from __future__ import annotations

import io
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from nla_core.data.dataset import Dataset
from nla_core.exports import Provenance, encoded, readings_of
from tests.helpers import make_dataset, transcript_id_of

FACTS = transcript_id_of("facts-001")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("exports") / "tiny"
    make_dataset(root, samples=2)
    return Dataset.open(root)


def test_each_format_holds_the_same_rows(dataset: Dataset) -> None:
    rows, source = readings_of(dataset, FACTS), Provenance.of(dataset)
    csv = pd.read_csv(io.BytesIO(encoded(rows, source, "csv")))
    lines = [json.loads(line) for line in encoded(rows, source, "jsonl").splitlines()]
    table = pq.read_table(io.BytesIO(encoded(rows, source, "parquet")))
    texts = rows["explanation"].tolist()
    assert csv["explanation"].tolist() == texts
    assert [line["explanation"] for line in lines] == texts
    assert table["explanation"].to_pylist() == texts
    assert [line["flags"] for line in lines] == [list(flags) for flags in rows["flags"]]


def test_each_format_says_where_its_rows_come_from(dataset: Dataset) -> None:
    rows, source = readings_of(dataset, FACTS), Provenance.of(dataset)
    assert source.version == dataset.version
    csv = pd.read_csv(io.BytesIO(encoded(rows, source, "csv")))
    assert set(csv["version"]) == {dataset.version}
    assert json.loads(encoded(rows, source, "jsonl").splitlines()[0])["pair"] == "tiny-L2"
    metadata = pq.read_schema(io.BytesIO(encoded(rows, source, "parquet"))).metadata
    assert json.loads(metadata[b"nla_explorer"])["version"] == dataset.version
    assert f"# version: {dataset.version}" in encoded(rows, source, "txt").decode()


def test_the_dump_is_one_line_a_reading(dataset: Dataset) -> None:
    rows = readings_of(dataset, FACTS, (8, 10))
    lines = encoded(rows, Provenance.of(dataset), "txt").decode().splitlines()
    body = [line for line in lines if not line.startswith("#")]
    assert len(body) == len(rows) > 0
    first = rows.iloc[0]
    said = " ".join(first["explanation"].split())
    assert body[0] == f"[{first['position']}] {first['token']!r}: {said}"


def test_a_span_is_both_ends_included(dataset: Dataset) -> None:
    every = readings_of(dataset, FACTS)["position"].unique().tolist()
    some = readings_of(dataset, FACTS, (every[2], every[4]))["position"].unique().tolist()
    assert some == every[2:5]
    assert readings_of(dataset, FACTS, (9_000, 9_001)).empty
    empty = readings_of(dataset, FACTS, (9_000, 9_001))
    assert encoded(empty, Provenance.of(dataset), "csv").startswith(b"transcript_id,")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(dataset: Dataset, text: str) -> None:
    rows = readings_of(dataset, FACTS).head(1).assign(explanation=text)
    csv = pd.read_csv(io.BytesIO(encoded(rows, Provenance.of(dataset), "csv")))
    assert csv["explanation"][0].startswith("'")


def test_what_is_missing_is_null(dataset: Dataset) -> None:
    rows = readings_of(dataset, FACTS).head(1).assign(surprisal=float("nan"))
    line = json.loads(encoded(rows, Provenance.of(dataset), "jsonl"))
    assert line["surprisal"] is None
