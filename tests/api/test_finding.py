"""Search, readings alike and themes through the API."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from nla_core.data.dataset import Dataset
from tests.api.asking import get, refused
from tests.helpers import transcript_id_of


def test_search_finds_words_and_goes_on(client: TestClient, dataset: Dataset) -> None:
    query = {"q": "geography", "mode": "keyword", "limit": 3}
    body = get(client, "/search", **query)
    rows = list(body["hits"])
    while body["next"]:
        body = get(client, "/search", next=body["next"], **query)
        rows += body["hits"]
    every = dataset.find_readings()
    expected = every[every["explanation"].str.contains("geography")]["reading_id"]
    assert {hit["reading_id"] for hit in rows} == set(expected)
    assert len(rows) == body["total"] == len(expected)
    for hit in rows:
        assert any(hit["text"][a:b].lower() == "geography" for a, b in hit["spans"])


def test_a_hit_leads_to_its_reading(client: TestClient) -> None:
    hit = get(client, "/search", q="geography", limit=1)["hits"][0]
    reading = get(client, f"/readings/{hit['reading_id']}")["reading"]
    for name in ("row", "explanation", "position", "sample", "role", "page", "title"):
        assert reading[name] == hit["text" if name == "explanation" else name]


def test_readings_alike_do_not_hold_the_reading_itself(client: TestClient) -> None:
    wanted = get(client, "/readings", limit=1)["readings"][0]
    body = get(client, "/similar", reading_id=wanted["reading_id"], per_transcript=1, limit=5)
    assert body["hits"]
    assert wanted["reading_id"] not in {hit["reading_id"] for hit in body["hits"]}
    assert len({hit["transcript_id"] for hit in body["hits"]}) == len(body["hits"])


def test_themes_are_counted_in_the_stretch_alone(client: TestClient, dataset: Dataset) -> None:
    transcript_id = transcript_id_of("facts-002")
    whole = get(client, "/themes", transcript_id=transcript_id)
    first_samples = dataset.find_readings(transcript_id=transcript_id).query("sample == 0")
    assert whole["n_readings"] == len(first_samples)
    some = get(client, "/themes", transcript_id=transcript_id, first=10, last=30, limit=3)
    assert len(some["themes"]) <= 3
    assert all(10 <= at <= 30 for theme in some["themes"] for at in theme["positions"])
    assert whole["themes"]
    for theme in whole["themes"]:
        assert theme["count"] == len(theme["positions"]) > theme["expected"]


@pytest.mark.parametrize(
    ("address", "status", "word"),
    [
        ("/similar", 400, "missing"),
        ("/similar?reading_id=nope", 404, "reading"),
        ("/themes", 400, "missing"),
        ("/themes?transcript_id=nope", 404, "transcript"),
        ("/search?q=a&next=AAAA", 400, "continued"),
        ("/search?q=a&limit=501", 400, "at most"),
        ("/search?q=a&mode=best", 400, "hybrid"),
        ("/search?q=a&role=judge", 400, "assistant"),
    ],
)
def test_wrong_searches_are_refused(
    client: TestClient, address: str, status: int, word: str
) -> None:
    assert word in " ".join(refused(client, address, status).values())
