"""The OpenAPI file is true: routes, parameters and answers are what it says they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from nla_core.api.params import LONGEST_TEXT, Param
from nla_core.api.routes import OPENAPI, PREFIX, ROUTES, Route
from nla_core.store.dataset import Dataset

DOCUMENT: dict[str, Any] = json.loads(OPENAPI.read_text(encoding="utf-8"))
GUIDE = (Path(__file__).parents[2] / "docs/api.md").read_text(encoding="utf-8")
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
TYPES = {
    "text": "string",
    "choice": "string",
    "number": "number",
    "integer": "integer",
    "switch": "boolean",
}


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator that finds what ``schema`` refers to in the file."""
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


READ_HERE = [r for r in ROUTES if r.method == "GET" and not r.path.startswith("/runs/{")]
"""The others need a run: see test_running.py."""


def operation(path: str, method: str = "get") -> dict[str, Any]:
    return DOCUMENT["paths"][path][method.lower()]


def json_schema(path: str, method: str = "get", status: int = 200) -> dict[str, Any]:
    return operation(path, method)["responses"][str(status)]["content"]["application/json"][
        "schema"
    ]


def described(param: Param) -> dict[str, Any]:
    """The schema that the file has to give for a parameter."""
    schema: dict[str, Any] = {"type": TYPES[param.kind]}
    if param.kind == "text":
        schema["maxLength"] = LONGEST_TEXT
    if param.choices:
        schema["enum"] = list(param.choices)
    if param.low is not None:
        schema["minimum"] = param.low
    if param.high is not None:
        schema["maximum"] = param.high
    if param.default is not None:
        schema["default"] = param.default
    return schema


def test_every_route_is_described_and_every_description_is_a_route() -> None:
    described = {(path, name) for path, methods in DOCUMENT["paths"].items() for name in methods}
    assert described == {(route.path, route.method.lower()) for route in ROUTES}
    assert len(described) == len(ROUTES)
    assert DOCUMENT["servers"] == [{"url": PREFIX}]
    assert DOCUMENT["openapi"].startswith("3.1.")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_guarded_routes_say_so(route: Route) -> None:
    said = operation(route.path, route.method)
    kind = "Guarded" if route.is_guarded else "Refused"
    assert said["responses"]["default"] == {"$ref": f"#/components/responses/{kind}"}
    assert ("security" in said) is route.is_guarded


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_parameters_are_those_that_are_read(route: Route) -> None:
    listed = operation(route.path, route.method).get("parameters", [])
    in_path = [entry["name"] for entry in listed if entry["in"] == "path"]
    assert in_path == re.findall(r"{(\w+)}", route.path)
    in_query = {entry["name"]: entry["schema"] for entry in listed if entry["in"] == "query"}
    assert in_query == {param.name: described(param) for param in route.params}
    required = {entry["name"] for entry in listed if entry.get("required")}
    assert required == {*in_path, *(param.name for param in route.params if param.required)}
    assert all(entry.get("description") for entry in listed if entry["in"] == "query")


def test_schemas_are_schemas_and_all_are_used() -> None:
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(DOCUMENT)
    named = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert named == set(SCHEMAS)
    identifiers = [operation(route.path, route.method)["operationId"] for route in ROUTES]
    assert len(set(identifiers)) == len(identifiers)


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
    assert {path for path, _ in asked} == {route.path for route in READ_HERE}
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


def test_the_file_is_served_as_it_is(client: TestClient) -> None:
    response = client.get(f"{PREFIX}/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.content == OPENAPI.read_bytes()


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
    assert paths | {"/openapi.json"} == {route.path for route in ROUTES}


def test_the_notebook_of_the_guide_runs(
    dataset_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = re.findall(r"^```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    exec(compile(source.replace("data/demo", str(dataset_root)), "docs/api.md", "exec"), {})
    assert "mean_fve" in capsys.readouterr().out
