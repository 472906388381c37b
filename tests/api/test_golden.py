"""What the API answers over the shipped demo dataset, byte for byte where that is short.

``golden.json`` holds status, content type and body of each request; a long body as a hash. After an
intended change, write it anew with ``NLA_WRITE_GOLDEN=1`` and read the difference.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from nla_core import access, opened
from tests.api.conftest import HashEncoder, client_of

DEMO = Path(__file__).resolve().parents[2] / "data/demo"
GOLDEN = Path(__file__).with_name("golden.json")
PREFIX = "/api/v1"
LONGEST = 300
"""Characters of a body that is kept whole; refusals always are."""

NEXT = "next=*"
"""Stands for the page token of the request before."""

READ = """
/datasets
/datasets/demo
/datasets/nope
/datasets/
/categories
/categories?dataset=demo
/categories?dataset=
/categories?dataset=nope
/categories?dataset=nope&limit=1
/categories?limit=1
/facets
/facets?category=facts&flag=early
/facets?contains=canoe&fidelity=good&length=long
/facets?flag=odd
/facets?length=endless
/transcripts
/transcripts?limit=3
/transcripts?limit=3&next=*
/transcripts?contains=canoe&sort=mean_fve&descending=true&limit=5
/transcripts?sort=n_tokens&descending=1&limit=2
/transcripts?sort=n_tokens&descending=1&limit=2&next=*
/transcripts?sort=n_tokens&descending=0&limit=1
/transcripts?next=AAAA
/transcripts?limit=2&sort=title
/transcripts?limit=2&sort=category&next=*
/transcripts?limit=&contains=&sort=
/transcripts?limit=0
/transcripts?limit=-1
/transcripts?limit=501
/transcripts?limit=1e3
/transcripts?limit=%D9%A3
/transcripts?limit=1_0
/transcripts?limit=%201
/transcripts?limit=99999999999999999999999
/transcripts?limit=1&limit=2
/transcripts?sort=title;drop
/transcripts?descending=perhaps
/transcripts?descending=True
/transcripts?fidelity=superb
/transcripts?format=xml
/transcripts?categroy=facts
/transcripts?a%1Bb=1
/transcripts?format=csv
/transcripts?format=jsonl&limit=7
/transcripts?format=csv&limit=501
/transcripts?format=csv&limit=0
/transcripts?format=jsonl&next=AAAA
/transcripts/ec2fca076db2
/transcripts/ec2fca076db2?limit=1
/transcripts/ec2fca076db
/transcripts/%00
/transcripts/a%2Fb
/readings
/readings?limit=5&role=assistant
/readings?limit=5&role=assistant&next=*
/readings?fve_min=0.8&fve_max=0.85&limit=500
/readings?transcript_id=ec2fca076db2&section=content
/readings?transcript_id=ec2fca076db2&position=20
/readings?category=facts&flag=low_fidelity&limit=20
/readings?fve_min=nan
/readings?fve_max=inf
/readings?fve_min=x
/readings?position=-1
/readings?position=2147483648
/readings?role=judge
/readings?section=middle
/readings?fve_min=0.9&format=csv
/readings?fve_min=0.9&format=jsonl
/readings?fve_min=5&format=csv
/readings?fve_min=5&format=jsonl
/readings/9ed2e62195a3
/readings/nope
/search
/search?q=river&mode=keyword&limit=5
/search?q=river&mode=keyword&limit=5&next=*
/search?q=river&mode=keyword&limit=5&next=AAAA
/search?q=river
/search?q=a+river&mode=semantic&limit=3
/search?q=river&unlike=boat&mode=semantic&limit=2
/search?q=canoe&within=visible
/search?q=nosuchword&mode=keyword
/search?q=river&unspoken=1&flag=early&without_flag=cut&first=2&last=90&fve_min=-3
/search?q=river&role=assistant&category=facts&tag=x&per_transcript=1
/search?q=river&fve_min=2
/search?q=river&mode=best
/search?q=river&limit=501
/search?q=river&per_transcript=0
/similar
/similar?reading_id=9ed2e62195a3&per_transcript=1&limit=3
/similar?reading_id=9ed2e62195a3&unlike=boat&limit=3
/similar?reading_id=nope
/themes
/themes?transcript_id=
/themes?transcript_id=ec2fca076db2
/themes?transcript_id=ec2fca076db2&first=10&last=60&limit=3
/themes?transcript_id=ec2fca076db2&limit=101
/themes?transcript_id=nope
/runs
/runs?state=done&limit=3
/runs?state=lost
/runs?next=AAAA
/runs?next=WyJydW5zIiwiIiwiYSJd
/runs?limit=501
/runs/limits
/runs/limits?dataset=demo
/runs/pairs
/runs/run-nope
/runs/run-nope/events
/runs/run-nope/events?limit=0
/runs/run-nope/events?format=csv
/runs/run-nope/export
/nothing
/../v2/datasets
""".strip().splitlines()

JSON_BODY = {"Content-Type": "application/json"}
CHANGES: dict[str, tuple[bytes | None, dict[str, str]]] = {
    "HEAD /datasets": (None, {}),
    "HEAD /transcripts?format=csv": (None, {}),
    "HEAD /transcripts/nope": (None, {}),
    "HEAD /runs/run-nope/cancel": (None, {}),
    "POST /datasets": (None, {}),
    "PUT /runs": (None, {}),
    "OPTIONS /runs": (None, {"Origin": "http://a.example"}),
    "DELETE /openapi.json": (None, {}),
    "POST /runs/run-nope": (None, {}),
    "GET /runs/run-nope/cancel": (None, {}),
    "POST /runs/run-nope/cancel": (None, {}),
    "POST /runs/run-nope/cancel?dataset=demo": (None, {}),
    "POST /runs/run-nope/cancel #text": (b"x", {"Content-Type": "text/plain"}),
    "POST /runs/run-nope/cancel #list": (b"[]", JSON_BODY),
    "POST /runs/run-nope/cancel #any": (b'{"any": 1}', JSON_BODY),
    "POST /runs/run-nope/retry": (b"{}", JSON_BODY),
    "POST /runs/run-nope/retry #site": (None, {"Origin": "http://evil.example"}),
    "DELETE /runs/run-nope": (None, {}),
    "DELETE /runs/run-nope #fetched": (None, {"Sec-Fetch-Site": "cross-site"}),
    "PATCH /runs/run-nope": (b'{"name": "x"}', JSON_BODY),
    "POST /runs #pairless": (b'{"prompt": "a"}', JSON_BODY),
    "POST /runs/estimate #pairless": (b'{"prompt": "a"}', JSON_BODY),
    "POST /runs #unknown pair": (b'{"prompt": "a", "pair": "nope"}', JSON_BODY),
    "POST /runs #samples": (b'{"prompt": "a", "pair": "nope", "samples": 0}', JSON_BODY),
    "POST /runs #type": (b"prompt=a", {"Content-Type": "application/x-www-form-urlencoded"}),
    "POST /runs #untyped": (b"prompt=a", {}),
    "POST /runs #broken": (b"{", JSON_BODY),
    "POST /runs #bytes": (b"\xff", JSON_BODY),
    "POST /runs #list": (b"[]", JSON_BODY),
    "POST /runs #number": (b"3", JSON_BODY),
}
SHAPES: dict[str, bytes] = {
    "POST /runs #empty": b'{"pair": "nope"}',
    "POST /runs #both": b'{"prompt": "a", "prompts": ["b"], "pair": "nope"}',
    "POST /runs #blank": b'{"prompt": "", "pair": "nope"}',
    "POST /runs #prompt": b'{"prompt": 3, "pair": "nope"}',
    "POST /runs #prompts": b'{"prompts": "a", "pair": "nope"}',
    "POST /runs #role": b'{"prompts": ["a", [{"role": "judge", "content": "b"}]], "pair": "nope"}',
    "POST /runs #field": b'{"prompt": "a", "temperature": 1, "pair": "nope"}',
    "POST /runs #fraction": b'{"prompt": "a", "samples": 1.5, "pair": "nope"}',
    "POST /runs #null": b'{"prompt": "a", "name": null, "pair": "nope"}',
    "POST /runs #positions": b'{"prompt": "a", "positions": "some", "pair": "nope"}',
    "POST /runs #target": b'{"prompt": "a", "target": {"temperature": "hot"}, "pair": "nope"}',
    "POST /runs/estimate #field": b'{"prompt": "a", "top_p": 1, "pair": "nope"}',
}
"""Bodies of another shape: what is said of the field is free, all else is not."""

EVERY = [*(f"GET {address}" for address in READ), *CHANGES, *SHAPES]


class DemoEncoder(HashEncoder):
    """Has the name that the demo asks for, so that it is searched by (meaningless) meaning."""

    name = "all-MiniLM-L6-v2@53aa51172d14"
    dimension = 384


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "encoder", DemoEncoder)
        for name in (access.ACCESS_VARIABLE, access.TOKEN_VARIABLE):
            patch.delenv(name, raising=False)
        patch.delenv("NLA_RUN_LIMITS", raising=False)
        yield client_of(DEMO)


@pytest.fixture(scope="module")
def found(client: TestClient) -> dict[str, Any]:
    """All answers, asked for in order: a page token comes from the answer before."""
    answers: dict[str, Any] = {}
    token = ""
    for name in EVERY:
        method, _, address = name.partition(" #")[0].partition(" ")
        data, headers = CHANGES.get(name, (SHAPES.get(name), JSON_BODY if name in SHAPES else {}))
        path = PREFIX + address.replace(NEXT, f"next={token}")
        response = client.request(
            method, path, content=data, headers=headers, follow_redirects=False
        )
        answers[name] = _kept(name, response)
        if response.headers.get("content-type") == "application/json" and response.content:
            token = response.json().get("next") or token
    if os.environ.get("NLA_WRITE_GOLDEN"):
        rows = (f" {json.dumps(name)}: {json.dumps(kept)}" for name, kept in answers.items())
        GOLDEN.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    return answers


def _kept(name: str, response: httpx2.Response) -> list[Any]:
    kind = response.headers.get("content-type")
    body: Any = response.text
    if kind == "application/json" and response.content:
        body = _rounded(response.json())
        if name in SHAPES:
            body["error"].pop("why")
        text = json.dumps(body, sort_keys=True)
    else:
        text = body
    if response.status_code < 400 and len(text) > LONGEST:
        body = f"{len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    told = {
        name: value
        for name in ("allow", "location", "content-disposition", "x-nla-version", "cache-control")
        if (value := response.headers.get(name)) is not None
    }
    if "allow" in told:
        told["allow"] = ", ".join(sorted(told["allow"].replace(" ", "").split(",")))
    return [response.status_code, kind, told, body]


def _rounded(value: Any) -> Any:
    """Scores are sums of products, whose last digits depend on the processor."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return value


def test_the_list_is_whole(found: dict[str, Any]) -> None:
    assert list(json.loads(GOLDEN.read_text(encoding="utf-8"))) == EVERY
    assert {kept[0] for kept in found.values()} >= {200, 307, 400, 403, 404, 405, 415, 422}


@pytest.mark.parametrize("name", EVERY)
def test_the_answer_is_the_frozen_one(found: dict[str, Any], name: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert found[name] == golden[name]
