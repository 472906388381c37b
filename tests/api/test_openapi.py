"""The OpenAPI document is true: routes, parameters and answers are what it says they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from nla_core.api import models
from nla_core.api.wire import PREFIX
from nla_core.data.dataset import Dataset
from nla_core.data.queries import BANDS
from tests.api.asking import DOCUMENT, ROUTES, validator

GUIDE = (Path(__file__).parents[2] / "docs/api.md").read_text(encoding="utf-8")
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
READ_HERE = [path for method, path in ROUTES if method == "GET" and "/runs/{" not in path]
"""The others need a run: see test_running.py."""


def operation(path: str, method: str = "get") -> dict[str, Any]:
    return DOCUMENT["paths"][path][method.lower()]


def json_schema(path: str, method: str = "get", status: int = 200) -> dict[str, Any]:
    return operation(path, method)["responses"][str(status)]["content"]["application/json"][
        "schema"
    ]


def test_addresses_are_below_the_prefix() -> None:
    assert DOCUMENT["servers"] == [{"url": PREFIX}]
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_operations_keep_their_names() -> None:
    """Clients are generated from these."""
    names = {operation(path, method)["operationId"] for method, path in ROUTES}
    assert names == {
        *("openapi", "datasets", "one_dataset", "categories", "facets"),
        *("transcripts", "one_transcript", "readings", "one_reading"),
        *("search", "similar", "recurring"),
        *("runs", "submit_run", "estimate_run", "run_limits", "run_pairs", "one_run"),
        *("rename_run", "delete_run", "cancel_run", "retry_run", "run_events", "export_run"),
    }
    assert len(names) == len(ROUTES)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_guarded_routes_say_so(method: str, path: str) -> None:
    described = operation(path, method)
    assert ("security" in described) is (method != "GET")
    refused = described["responses"]["default"]
    assert ("401" in refused["description"]) is (method != "GET")
    assert refused["content"]["application/json"]["schema"]["$ref"].endswith("/Error")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_parameters_are_explained(method: str, path: str) -> None:
    listed = operation(path, method).get("parameters", [])
    in_path = [entry["name"] for entry in listed if entry["in"] == "path"]
    assert in_path == re.findall(r"{(\w+)}", path)
    assert all(entry.get("description") for entry in listed if entry["in"] == "query")


def test_bounds_are_described() -> None:
    found = {entry["name"]: entry["schema"] for entry in operation("/readings")["parameters"]}
    position = found["position"]["anyOf"][0]
    assert position == {"type": "integer", "minimum": 0, "maximum": models.LAST_POSITION}
    assert found["category"]["anyOf"][0]["maxLength"] == models.LONGEST_TEXT


@pytest.mark.parametrize("name", BANDS)
def test_bands_are_those_of_the_dataset(name: str) -> None:
    choices, _ = get_args(models.FacetParams.model_fields[name].annotation)
    assert get_args(choices) == tuple(band.name for band in BANDS[name])


def test_schemas_are_schemas_and_all_are_used() -> None:
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(DOCUMENT)))
    assert named == set(SCHEMAS)


def test_the_page_of_routes_needs_no_other_server(client: TestClient) -> None:
    response = client.get(f"{PREFIX}/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    for method, path in ROUTES:
        assert f"{method} {PREFIX}{path}<" in response.text
    assert "high, good, fair, poor, negative" in response.text
    assert "early, high_norm" in response.text
    assert set(re.findall(r"(?:src|href)=\"?([^\" >]+)", response.text)) == {"openapi.json"}
    assert "//" not in response.text


SEARCHES = [
    "q=geography",
    "q=",
    "q=geography&mode=keyword&limit=1",
    "q=geography&mode=semantic&unlike=code",
    "q=paris&within=visible",
    "q=nosuchword&mode=keyword",
    "q=geography&unspoken=1&flag=early&without_flag=cut&first=2&last=9&fve_min=-3",
]


def questions(dataset: Dataset) -> list[tuple[str, str]]:
    """(route, path and query): one plain question a route, and some with all it can take."""
    whole = dataset.transcripts(sort="n_tokens", descending=True)["transcript_id"]
    reading = dataset.find_readings(limit=1)["reading_id"][0]
    return [
        ("/openapi.json", "/openapi.json"),
        ("/datasets", "/datasets"),
        ("/datasets/{dataset}", "/datasets/tiny%20set"),
        ("/categories", "/categories?dataset=other"),
        ("/categories", "/categories"),
        ("/facets", "/facets"),
        ("/facets", "/facets?category=facts&flag=early&fidelity=fair&contains=zzz"),
        ("/transcripts", "/transcripts"),
        ("/transcripts", "/transcripts?sort=max_surprisal&descending=1&limit=2"),
        *(("/transcripts/{transcript_id}", f"/transcripts/{found}") for found in whole),
        ("/readings", "/readings?limit=500"),
        ("/readings", "/readings?fve_min=3"),
        ("/readings/{reading_id}", f"/readings/{reading}"),
        *(("/search", f"/search?{query}") for query in SEARCHES),
        ("/similar", f"/similar?reading_id={reading}"),
        ("/similar", f"/similar?reading_id={reading}&per_transcript=1&role=assistant"),
        *(("/themes", f"/themes?transcript_id={found}") for found in whole),
        ("/runs", "/runs?state=done"),
        ("/runs/limits", "/runs/limits"),
        ("/runs/pairs", "/runs/pairs"),
    ]


def test_answers_are_as_described(client: TestClient, dataset: Dataset) -> None:
    asked = questions(dataset)
    assert {path for path, _ in asked} == set(READ_HERE)
    for path, address in asked:
        response = client.get(PREFIX + address)
        assert response.status_code == 200, response.text
        validator(json_schema(path)).validate(response.json())


def test_the_schemas_would_notice(client: TestClient) -> None:
    body = client.get(f"{PREFIX}/readings?limit=1").json()
    check = validator(json_schema("/readings"))
    for change in ({"fve": "0.5"}, {"novel": 1}, {"finish": "maybe"}, {"flags": None}):
        wrong = {**body, "readings": [body["readings"][0] | change]}
        assert not check.is_valid(wrong)
    assert not check.is_valid({"readings": [], "next": None})


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/nothing", 404),
        ("", 404),
        ("/transcripts/nope", 404),
        ("/readings/nope", 404),
        ("/datasets/nope", 404),
        ("/readings?limit=0", 400),
    ],
)
def test_refusals_are_as_described(client: TestClient, address: str, status: int) -> None:
    response = client.get(PREFIX + address)
    assert response.status_code == status
    validator(SCHEMAS["Error"]).validate(response.json())


def test_the_document_is_served(client: TestClient) -> None:
    response = client.get(f"{PREFIX}/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == DOCUMENT


EXAMPLE = re.compile(
    r"curl (?:-N )?(?:-X (\w+) )?'?http://127\.0\.0\.1:8501(/api/v1/[^\s']+)'?"
    r"(?: -H [^\n]*\\\n\s+-d '(.+)')?"
)


def test_all_examples_are_found() -> None:
    assert len(EXAMPLE.findall(GUIDE)) == GUIDE.count("curl ") > 8
    assert any(body for _, _, body in EXAMPLE.findall(GUIDE))


@pytest.mark.parametrize(("method", "address", "body"), EXAMPLE.findall(GUIDE))
def test_examples_of_the_guide_are_understood(
    client: TestClient, method: str, address: str, body: str
) -> None:
    given = {"json": json.loads(body)} if body else {}
    response = client.request(method or "GET", address, **given)
    if response.status_code == 422:  # nothing can be run in these tests
        assert response.json()["error"]["what"].startswith("There is no pair here")
        return
    unknown_id = response.status_code == 404 and "There is no" in response.json()["error"]["what"]
    assert response.status_code == 200 or unknown_id, response.text


def test_the_guide_names_every_route() -> None:
    listed = re.findall(r"^\| (`/.+`) \|", GUIDE, re.MULTILINE)
    paths = {path for cell in listed for path in re.findall(r"`(/[^`]+)`", cell)}
    assert paths | {"/openapi.json"} == {path for _, path in ROUTES} | {"/docs"}


def test_the_notebook_of_the_guide_runs(
    dataset_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = re.findall(r"^```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    exec(compile(source.replace("data/demo", str(dataset_root)), "docs/api.md", "exec"), {})
    assert "mean_fve" in capsys.readouterr().out
