"""The one server of `streamlit run app.py`: pages and API from the same process."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.screenshots import serving
from tests.helpers import transcript_id_of

pytestmark = pytest.mark.app


@pytest.fixture(scope="module")
def address(dataset_root: Path) -> Iterator[str]:
    with serving(dataset_root) as url:
        yield url


def fetch(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_api_answers_beside_the_pages(address: str) -> None:
    status, text = fetch(f"{address}/api/v1/transcripts/{transcript_id_of('facts-001')}")
    assert status == 200
    assert json.loads(text)["transcript"]["title"] == "Capital of France"


@pytest.mark.parametrize("path", ["/", "/about", "/explore", "/explore?t=x&p=4"])
def test_pages_are_served_under_their_paths(address: str, path: str) -> None:
    status, text = fetch(address + path)
    assert status == 200
    assert "<title>Streamlit</title>" in text


def test_paths_that_streamlit_turns_away_are_refused_in_our_words(address: str) -> None:
    for path in ("/api/v1/transcripts/..%2f..%2fetc", "/api/v1/%5c%5chost", "/api"):
        status, text = fetch(address + path)
        assert status == 404
        assert set(json.loads(text)["error"]) == {"what", "why", "fix"}


def test_a_foreign_host_reads_nothing(address: str) -> None:
    status, text = fetch(f"{address}/api/v1/datasets", Host="rebound.example")
    assert status == 403
    assert "version" not in text
