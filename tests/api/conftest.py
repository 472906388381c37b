"""The API in this process, on a dataset with one transcript that a spreadsheet would run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from nla_core import opened
from nla_core.api.asgi import BesidePages, application
from nla_core.api.datasets import Datasets
from nla_core.data.dataset import Dataset
from nla_core.jobs.models import Pairs
from nla_core.jobs.runner import JobRunner
from tests.helpers import PROMPTS, Prompt, hash_vectors, make_dataset
from tests.precompute.fake import HashEmbedder

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


class HashEncoder:
    """Gives the vectors that `make_dataset` publishes."""

    name = "tests"
    dimension = 16

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return hash_vectors(texts, self.dimension).astype(np.float32)


@pytest.fixture(scope="package", autouse=True)
def encoder() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "encoder", HashEncoder)
        yield


@pytest.fixture(scope="package", autouse=True)
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobRunner]:
    """A queue without pairs, on which nothing runs; tests of runs put another one in its place."""
    made = JobRunner(
        tmp_path_factory.mktemp("queue") / "runs", pairs=Pairs(lambda: {}), embedder=HashEmbedder()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "runner", lambda: made)
        yield made


def client_of(*roots: Path) -> TestClient:
    api = application(Datasets(lambda: {root.name: root for root in roots}))
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
def other_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("api") / "other"
    make_dataset(root, PROMPTS[:1])
    return root


@pytest.fixture(scope="session")
def client(dataset_root: Path, other_root: Path) -> TestClient:
    return client_of(dataset_root, other_root)
