"""The API in this process, on a dataset with one transcript that a spreadsheet would run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from nla_core.api.asgi import BesidePages, Current, application
from nla_core.store.dataset import Dataset
from tests.helpers import PROMPTS, Prompt, make_dataset

FORMULA: Prompt = (
    "formula-001",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://example.invalid")',
    ["+1"],
    [("user", "What is -2 + 3?"), ("assistant", "=1+1 is 2, and -2 + 3 is 1.")],
)


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """Stands where Streamlit does: whatever gets here is not the API's."""
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def client_of(root: Path) -> TestClient:
    api = application(Current(lambda: root))
    return TestClient(
        BesidePages(pages, api), base_url="http://localhost", raise_server_exceptions=False
    )


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("api") / "tiny set"
    make_dataset(root, [*PROMPTS, FORMULA], samples=2)
    return root


@pytest.fixture(scope="session")
def dataset(dataset_root: Path) -> Dataset:
    return Dataset.open(dataset_root)


@pytest.fixture(scope="session")
def client(dataset_root: Path) -> TestClient:
    return client_of(dataset_root)
