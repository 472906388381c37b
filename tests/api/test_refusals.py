"""Every way in which a question can be wrong gets the one error body, and no traceback."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from nla_core.api.models import MOST
from nla_core.api.wire import PREFIX
from nla_core.data.dataset import Dataset
from nla_core.data.manifest import DATABASE
from tests.api.asking import DOCUMENT, LISTS, ROUTES, get, refused
from tests.api.conftest import client_of
from tests.helpers import make_dataset, transcript_id_of


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
        ("dataset=nope&limit=x", "whole number"),
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


NAMES = sorted(
    {
        param["name"]
        for method, path in ROUTES
        for param in DOCUMENT["paths"][path][method.lower()].get("parameters", [])
    }
)
PLAIN = [path for method, path in ROUTES if "{" not in path and method == "GET"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    address=st.sampled_from([*PLAIN, *PLAIN, "/nothing", ""]),
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
    assert response.json()["error"]["what"] == "This address can only be read"
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
