"""A dataset with two samples of every token, its search, and its rows read the plain way."""

from __future__ import annotations

import pandas as pd
import pytest

from nla_core.data.dataset import Dataset
from nla_core.data.search import Search
from tests.helpers import make_dataset
from tests.search.builders import embed


@pytest.fixture(scope="package")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("search")
    make_dataset(root, samples=2, answer_repeats=3)
    return Dataset.open(root)


@pytest.fixture(scope="package")
def search(dataset: Dataset) -> Search:
    return Search.over(dataset, embed)


@pytest.fixture(scope="package")
def rows(dataset: Dataset) -> pd.DataFrame:
    """Every reading with what it can be filtered by, read off the tables the plain way."""
    parts = []
    for _, transcript in dataset.transcripts().sort_values("transcript_id").iterrows():
        readings = dataset.readings(transcript["transcript_id"])
        tokens = dataset.tokens(transcript["transcript_id"])[["position", "role"]]
        part = readings.merge(tokens, on="position", how="left")
        parts.append(
            part.assign(category=transcript["category"], tags=[transcript["tags"]] * len(part))
        )
    return pd.concat(parts, ignore_index=True)
