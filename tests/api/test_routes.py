"""What the API answers: pages, streams, and every way in which a question can be wrong."""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from nla_core import refs
from nla_core.api import routes
from nla_core.api.routes import FILTERS, MOST, PAGING, PREFIX, READING_FILTERS
from nla_core.store.dataset import Dataset
from nla_core.store.manifest import DATABASE
from tests.api.conftest import client_of
from tests.helpers import make_dataset, transcript_id_of

LISTS = {"/transcripts": "transcript_id", "/readings": "reading_id"}


def get(client: TestClient, address: str, **query: Any) -> dict[str, Any]:
    response = client.get(PREFIX + address, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def refused(client: TestClient, address: str, status: int = 400) -> dict[str, str]:
    response = client.get(PREFIX + address)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"what", "why", "fix"}
    assert all(error.values())
    return error


def walk(client: TestClient, address: str, limit: int, **query: Any) -> list[dict[str, Any]]:
    """All rows of a list, page by page."""
    name = address.strip("/")
    body = get(client, address, limit=limit, **query)
    rows = body[name]
    while body["next"]:
        assert len(body[name]) == limit
        body = get(client, address, limit=limit, next=body["next"], **query)
        rows += body[name]
    return rows


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
    view = refs.parse_query(listed["page"].partition("?")[2]).view
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
        assert response.headers["x-nla-pair"] == "tiny-L2@0123456789abcdef"
        assert "access-control-allow-origin" not in response.headers
        assert response.headers["x-content-type-options"] == "nosniff"


# ---- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("address", LISTS)
def test_lines_hold_every_row(
    client: TestClient, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, address: str, size: int
) -> None:
    monkeypatch.setattr(routes, "STREAMED", size)
    response = client.get(PREFIX + address, params={"format": "jsonl", "flag": "early"})
    first, *rows = [json.loads(line) for line in response.text.strip().split("\n")]
    assert first["dataset"]["version"] == dataset.version
    assert rows == walk(client, address, 500, flag="early")
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
    assert [json.loads(cell) for cell in frame["flags"]] == [list(f) for f in expected["flags"]]


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
    return [json.loads(line)["reading_id"] for line in text.strip().split("\n")[1:]]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_stream_may_be_limited_and_continued(client: TestClient, kind: str) -> None:
    token = get(client, "/readings", limit=3)["next"]
    first, rest = rows_of(client, kind, limit=3), rows_of(client, kind, next=token)
    assert len(first) == 3
    assert first + rest == rows_of(client, kind)


def test_an_empty_stream_still_has_its_first_line(client: TestClient) -> None:
    lines = client.get(f"{PREFIX}/readings?fve_min=5&format=csv").text.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("reading_id,transcript_id,")


# ---- what cannot be answered ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        (f"limit={MOST + 1}", "too long"),
        ("limit=99999999999999999999999", "limit"),
        ("limit=1e3", "whole number"),
        ("limit=٣", "whole number"),
        ("limit=1_0", "whole number"),
        ("sort=title;drop", "title, category"),
        ("descending=perhaps", "true or false"),
        ("flag=odd", "high_norm"),
        ("fidelity=superb", "good"),
        ("format=xml", "jsonl"),
        ("categroy=facts", "category, contains"),
        ("limit=1&limit=2", "more than once"),
        ("contains=" + "x" * 2000, "Shorten"),
        ("next=AAAA", "page token"),
        ("next=%00", "page token"),
        ("next=" + "W" * 900, "page token"),
    ],
)
def test_wrong_parameters_are_refused(client: TestClient, query: str, word: str) -> None:
    assert word in " ".join(refused(client, f"/transcripts?{query}").values())


@pytest.mark.parametrize("query", ["fve_min=nan", "fve_max=inf", "position=-1", "role=judge"])
def test_wrong_filters_of_readings_are_refused(client: TestClient, query: str) -> None:
    refused(client, f"/readings?{query}")


def test_a_token_answers_only_its_own_question(client: TestClient) -> None:
    token = get(client, "/transcripts", limit=1, sort="n_tokens")["next"]
    assert "another question" in refused(client, f"/transcripts?next={token}")["what"]
    assert "another question" in refused(client, f"/transcripts?next={token}&tag=a")["what"]
    refused(client, f"/readings?next={token}")
    assert get(client, "/transcripts", next=token, sort="n_tokens", limit=2)["transcripts"]


@pytest.mark.parametrize("body", ["[]", "{}", "null", '["v",1]', '["v","d",{}]', '["v","d",true]'])
def test_invented_tokens_are_refused(client: TestClient, body: str) -> None:
    token = base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")
    for address in LISTS:
        refused(client, f"{address}?next={token}")


def test_a_new_version_ends_the_old_tokens(dataset_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny set"
    shutil.copytree(dataset_root, root)
    client = client_of(root)
    body = get(client, "/readings", limit=1)
    newer = make_dataset(root, samples=1)
    error = refused(client, f"/readings?limit=1&next={body['next']}")
    assert newer in error["why"]
    assert get(client, "/datasets")["datasets"][0]["version"] == newer


def test_an_unknown_id_names_what_is_near(client: TestClient) -> None:
    wanted = transcript_id_of("facts-001")
    error = refused(client, f"/transcripts/{wanted[:-2]}", 404)
    assert wanted in error["fix"]


@pytest.mark.parametrize(
    "strange",
    [
        "' OR 1=1 --",
        "\x00",
        "\u202eabc",
        "👋🏽",
        "..",
        "../../etc/passwd",
        "a/b",
        "x" * 3000,
        "%",
        "\\\\h",
    ],
)
def test_strange_ids_are_unknown_ids(client: TestClient, strange: str) -> None:
    for kind in ("transcripts", "readings", "datasets"):
        refused(client, f"/{kind}/{quote(strange, safe='')}", 404)


NAMES = [param.name for param in (*FILTERS, *READING_FILTERS, *PAGING)] + ["sort", "descending"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    address=st.sampled_from([*LISTS, "/facets", "/categories", "/nothing", ""]),
    query=st.lists(
        st.tuples(
            st.sampled_from(NAMES) | st.text(max_size=8),
            st.text(max_size=30)
            | st.sampled_from(["1", "0.3", "early", "facts", "title", "true", "csv", "user"]),
        ),
        max_size=4,
    ),
)
def test_any_query_is_answered_or_refused(
    client: TestClient, address: str, query: list[tuple[str, str]]
) -> None:
    response = client.get(f"{PREFIX}{address}?{urlencode(query, errors='replace')}")
    assert response.status_code in (200, 400, 404)
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"what", "why", "fix"}


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/v2/datasets", "/api/v1", "/api//h"])
def test_all_of_api_has_the_one_error_body(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert "openapi.json" in response.json()["error"]["fix"]


@pytest.mark.parametrize("path", ["/", "/about", "/apiary", "/explore?t=/api/v1/"])
def test_pages_are_left_alone(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 418


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_can_only_be_read(client: TestClient, method: str) -> None:
    response = client.request(method, f"{PREFIX}/datasets", headers={"Origin": "http://a.example"})
    assert response.status_code == 405
    assert "GET" in response.headers["allow"]
    assert response.json()["error"]["what"] == "This API can only be read"
    assert not any(name.startswith("access-control") for name in response.headers)


def test_a_foreign_host_is_turned_away(client: TestClient) -> None:
    response = client.get(f"{PREFIX}/datasets", headers={"Host": "rebound.example"})
    assert response.status_code == 403
    assert "allowedHosts" in response.json()["error"]["why"]


def test_without_a_dataset_it_says_so(tmp_path: Path) -> None:
    error = refused(client_of(tmp_path / "nothing"), "/transcripts", 503)
    assert "There is no dataset" in error["what"]


def test_the_first_request_builds_the_database(dataset_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "fresh"
    shutil.copytree(dataset_root, root, ignore=shutil.ignore_patterns(DATABASE))
    assert get(client_of(root), "/categories")["categories"]


def test_our_own_mistakes_show_no_traceback(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Dataset, "categories", lambda self: 1 / 0)
    error = refused(client, "/categories", 500)
    assert "ZeroDivisionError" not in json.dumps(error)
    assert "ZeroDivisionError" in caplog.text
