"""What the API answers: pages, streams, several datasets."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from starlette.testclient import TestClient

from nla_core import links
from nla_core.api import datasets
from nla_core.api.wire import PREFIX
from nla_core.data.dataset import Dataset
from tests.api.asking import LISTS, get, refused, walk
from tests.api.conftest import client_of
from tests.helpers import transcript_id_of

# ---- answers -------------------------------------------------------------------------------------


def test_pages_of_transcripts_are_those_of_the_dataset(
    client: TestClient, dataset: Dataset
) -> None:
    query: dict[str, Any] = {"sort": "mean_fve", "descending": True, "flag": "early"}
    rows = walk(client, "/transcripts", 2, **query)
    expected = dataset.transcripts(**query)
    assert [row["transcript_id"] for row in rows] == expected["transcript_id"].tolist()
    assert get(client, "/transcripts", **query)["total"] == len(expected)


def test_pages_of_readings_are_those_of_the_dataset(client: TestClient, dataset: Dataset) -> None:
    query: dict[str, Any] = {"role": "assistant", "fve_min": 0.2, "fve_max": 0.6}
    rows = walk(client, "/readings", 7, **query)
    expected = dataset.find_readings(**query)
    assert [row["row"] for row in rows] == expected["row"].tolist()
    assert len(rows) > 14


def test_numbers_are_written_as_they_were_measured(client: TestClient, dataset: Dataset) -> None:
    row = get(client, "/readings", limit=1)["readings"][0]
    assert row["fve"] == float(str(dataset.find_readings(limit=1)["fve"].to_numpy()[0]))
    assert len(str(row["fve"])) < 14


def test_one_transcript_holds_messages_tokens_and_readings(
    client: TestClient, dataset: Dataset
) -> None:
    transcript_id = transcript_id_of("language-001")
    body = get(client, f"/transcripts/{transcript_id}")
    assert body["transcript"]["messages"][1]["content"].startswith("挨拶 (aisatsu) 😀")
    assert len(body["tokens"]) == len(dataset.tokens(transcript_id))
    assert len(body["readings"]) == len(dataset.readings(transcript_id))
    assert body["tokens"][0]["surprisal"] is None


def test_a_failed_transcript_says_why(client: TestClient) -> None:
    body = get(client, f"/transcripts/{transcript_id_of('long-001')}")
    assert "does not fit" in body["transcript"]["error"]
    assert body["transcript"]["mean_fve"] is None
    assert body["readings"] == []


def test_a_reading_leads_to_its_page_and_its_token(client: TestClient) -> None:
    listed = get(client, "/readings", limit=1, role="assistant")["readings"][0]
    body = get(client, f"/readings/{listed['reading_id']}")
    assert body["reading"] == listed
    view = links.ViewState.parse_query(listed["page"].partition("?")[2]).view
    assert (view.transcript, view.position) == (listed["transcript_id"], listed["position"])
    assert body["token"]["position"] == listed["position"]


def test_facets_hold_every_facet(client: TestClient) -> None:
    found = get(client, "/facets", contains="no such words")["facets"]
    assert found == {"category": [], "tag": [], "flag": [], "fidelity": [], "length": []}
    whole = get(client, "/facets")["facets"]
    assert {row["value"] for row in whole["category"]} >= {"facts", "code"}
    assert whole["length"][0]["label"].endswith("tokens")


def test_every_answer_says_where_it_comes_from(client: TestClient, dataset: Dataset) -> None:
    for address in ("/categories", "/transcripts", "/readings?format=csv"):
        response = client.get(PREFIX + address)
        assert response.headers["x-nla-dataset"] == "tiny%20set"
        assert response.headers["x-nla-version"] == dataset.version
        assert response.headers["x-nla-pair"] == "tiny-L2@0123456789ab"
        assert "access-control-allow-origin" not in response.headers
        assert response.headers["x-content-type-options"] == "nosniff"


# ---- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("address", LISTS)
def test_lines_hold_every_row(
    client: TestClient, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, address: str, size: int
) -> None:
    monkeypatch.setattr(datasets, "STREAMED", size)
    response = client.get(PREFIX + address, params={"format": "jsonl", "flag": "early"})
    rows = [json.loads(line) for line in response.text.strip().split("\n")]
    source = get(client, "/categories")["source"]
    assert source["version"] == dataset.version
    assert rows == [row | source for row in walk(client, address, 500, flag="early")]
    assert (
        f"{dataset.version}{address.replace('/', '-')}.jsonl"
        in (response.headers["content-disposition"])
    )


def test_csv_is_read_back_by_pandas(client: TestClient, dataset: Dataset) -> None:
    response = client.get(f"{PREFIX}/readings?format=csv&category=facts")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    frame = pd.read_csv(io.StringIO(response.text), keep_default_na=False)
    expected = dataset.find_readings(category="facts")
    assert frame["reading_id"].tolist() == expected["reading_id"].tolist()
    assert frame["fve"].tolist() == pytest.approx(expected["fve"].tolist())
    assert frame["fve"].min() < 0, "a negative number is no formula"
    assert set(frame["version"]) == {dataset.version}
    assert set(frame["pair"]) == {"tiny-L2"}
    assert frame["flags"].tolist() == ["; ".join(flags) for flags in expected["flags"]]


@pytest.mark.parametrize("address", LISTS)
def test_csv_holds_no_formulas(client: TestClient, address: str) -> None:
    text = client.get(f"{PREFIX}{address}?format=csv").text
    rows = list(csv.DictReader(io.StringIO(text)))
    titles = {row["title"] for row in rows}
    assert '\'=HYPERLINK("http://example.invalid")' in titles
    numbers = {"mean_fve", "fve", "cosine", "centred_cosine"}
    for row in rows:
        for name, cell in row.items():
            if name not in numbers:
                assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), (name, cell)


def rows_of(client: TestClient, kind: str, **query: Any) -> list[str]:
    text = client.get(f"{PREFIX}/readings", params={"format": kind, **query}).text
    if kind == "csv":
        return [row["reading_id"] for row in csv.DictReader(io.StringIO(text))]
    return [json.loads(line)["reading_id"] for line in text.strip().split("\n")]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_stream_may_be_limited_and_continued(client: TestClient, kind: str) -> None:
    token = get(client, "/readings", limit=3)["next"]
    first, rest = rows_of(client, kind, limit=3), rows_of(client, kind, next=token)
    assert len(first) == 3
    assert first + rest == rows_of(client, kind)


def test_an_empty_stream_still_has_its_header(client: TestClient) -> None:
    assert client.get(f"{PREFIX}/readings?fve_min=5&format=jsonl").text == ""
    lines = client.get(f"{PREFIX}/readings?fve_min=5&format=csv").text.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("reading_id,transcript_id,")


# ---- several datasets ----------------------------------------------------------------------------


def test_another_dataset_is_asked_by_name(client: TestClient) -> None:
    listed = get(client, "/datasets")
    assert [entry["dataset"] for entry in listed["datasets"]] == ["tiny set", "other"]
    body = get(client, "/transcripts", dataset="other")
    assert (body["source"]["dataset"], body["total"]) == ("other", 1)
    assert "d=other" in body["transcripts"][0]["page"]
    assert "other" in refused(client, "/transcripts?dataset=nope", 404)["fix"] + "other"


def test_a_token_is_of_one_dataset(client: TestClient) -> None:
    token = get(client, "/readings", limit=1)["next"]
    assert "version" in refused(client, f"/readings?dataset=other&next={token}")["what"]


def test_a_dataset_that_cannot_be_read_is_listed_with_the_reason(
    dataset_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    body = get(client_of(dataset_root, tmp_path / "broken"), "/datasets")
    assert [entry["dataset"] for entry in body["datasets"]] == ["tiny set"]
    assert body["unreadable"][0]["dataset"] == "broken"
    assert "There is no dataset" in body["unreadable"][0]["error"]["what"]
