"""Pages, facets and bands: what is asked of many transcripts at once."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from nla_core.data import queries
from nla_core.data.database import SPARKLINE_BINS
from nla_core.data.dataset import Dataset
from nla_core.data.queries import BANDS, Facet, TranscriptSort
from nla_core.errors import NLAError
from nla_core.schema import Flag, Role, Section
from tests.helpers import ERROR_PROMPT, PROMPTS, Prompt, make_dataset, transcript_id_of

# Twelve more with equal titles, so that pages have to break ties.
TWINS: list[Prompt] = [
    (f"twin-{n:02}", "twins", "Twin", ["twin"], [("user", "Hi."), ("assistant", "Same. " * 30)])
    for n in range(12)
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root: Path = tmp_path_factory.mktemp("queries")
    make_dataset(root, [*PROMPTS, *TWINS], samples=2)
    return Dataset.open(root)


@pytest.fixture(scope="module")
def readings(dataset: Dataset) -> pd.DataFrame:
    return dataset.find_readings()


def pages_of(dataset: Dataset, limit: int, **question: Any) -> list[str]:
    found: list[str] = []
    after: str | None = None
    while True:
        page = dataset.transcripts(limit=limit, after=after, **question)
        found += page["transcript_id"].tolist()
        if len(page) < limit:
            return found
        after = found[-1]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", get_args(TranscriptSort))
def test_pages_put_together_are_the_whole_list(
    dataset: Dataset, sort: TranscriptSort, descending: bool
) -> None:
    whole = dataset.transcripts(sort=sort, descending=descending)["transcript_id"].tolist()
    assert len(whole) == len(PROMPTS) + len(TWINS)
    for limit in (1, 4, 5):
        assert pages_of(dataset, limit, sort=sort, descending=descending) == whole


def test_pages_keep_the_filter(dataset: Dataset) -> None:
    found = pages_of(dataset, 5, category="twins", sort="mean_fve")
    assert set(found) == {transcript_id_of(prompt[0]) for prompt in TWINS}
    assert len(found) == len(TWINS)


def test_after_an_unknown_row_there_is_nothing(dataset: Dataset) -> None:
    assert dataset.transcripts(after="nope").empty
    assert dataset.transcripts(after="' OR true --").empty


def test_tag_filter_and_count(dataset: Dataset) -> None:
    assert len(dataset.transcripts(tag="twin")) == 12
    assert dataset.count_transcripts(tag="geography") == 2
    assert dataset.count_transcripts(tag="geo") == 0
    assert dataset.count_transcripts() == len(PROMPTS) + len(TWINS)


@pytest.mark.parametrize("name", BANDS)
def test_bands_part_the_transcripts(dataset: Dataset, name: str) -> None:
    counts = [dataset.count_transcripts(**{name: band.name}) for band in BANDS[name]]  # type: ignore[misc]
    column = {"fidelity": "mean_fve", "length": "n_tokens"}[name]
    assert sum(counts) == dataset.transcripts()[column].notna().sum()
    for below, above in itertools.pairwise(
        sorted(BANDS[name], key=lambda b: -9.0 if b.low is None else b.low)
    ):
        assert below.high == above.low


def test_unknown_bands_and_filters_are_refused(dataset: Dataset) -> None:
    with pytest.raises(NLAError, match="fidelity band 'x'") as error:
        dataset.transcripts(fidelity="x")
    assert "high" in error.value.fix
    with pytest.raises(NLAError, match="cannot be filtered by 'shoe'"):
        dataset.facets(shoe="1")  # type: ignore[call-arg]


def test_facets_count_what_their_filter_would_leave(dataset: Dataset) -> None:
    frame = dataset.facets()
    assert set(frame["facet"]) == set(get_args(Facet))
    for row in frame.to_dict("records"):
        left = dataset.transcripts(**{row["facet"]: row["value"]})  # type: ignore[arg-type]
        assert (row["n_transcripts"], row["n_readings"]) == (len(left), left["n_readings"].sum())


def test_a_facet_ignores_its_own_filter_only(dataset: Dataset) -> None:
    frame = dataset.facets(category="facts", flag=Flag.EARLY).set_index(["facet", "value"])
    assert frame.loc[("category", "twins"), "n_transcripts"] == 12
    assert frame.loc[("tag", "geography"), "n_transcripts"] == 2
    assert ("tag", "twin") not in frame.index
    assert frame.loc[("flag", "low_fidelity"), "n_transcripts"] == 2
    assert dataset.facets(contains="no such words").empty


def test_the_sparkline_is_the_mean_fve_of_equal_shares(dataset: Dataset) -> None:
    rows = dataset.transcripts().set_index("transcript_id")
    for transcript_id, row in rows.iterrows():
        readings = dataset.readings(transcript_id)
        along = readings.groupby("position")["fve"].mean().to_numpy()
        n = min(len(along), SPARKLINE_BINS)
        bins = np.arange(len(along)) * n // max(len(along), 1)
        expected = [along[bins == b].mean() for b in range(n)]
        np.testing.assert_allclose(row["sparkline"], expected, rtol=1e-5)
    assert len(rows.loc[transcript_id_of(ERROR_PROMPT), "sparkline"]) == 0


def test_flags_of_a_transcript_are_those_of_its_readings(dataset: Dataset) -> None:
    for row in dataset.transcripts().to_dict("records"):
        found = {f for flags in dataset.readings(row["transcript_id"])["flags"] for f in flags}
        assert list(row["flags"]) == sorted(found)


# ---- readings across transcripts -----------------------------------------------------------------


def test_readings_follow_the_vectors(dataset: Dataset, readings: pd.DataFrame) -> None:
    assert readings["row"].tolist() == list(range(dataset.manifest.counts["readings"]))
    keys = list(readings[["transcript_id", "position", "sample"]].itertuples(index=False))
    assert keys == sorted(keys)
    assert len(dataset.explanation_vectors()) == len(readings)


def test_readings_page_by_page(dataset: Dataset, readings: pd.DataFrame) -> None:
    wanted = readings[(readings["fve"] >= 0.3) & (readings["role"] == Role.ASSISTANT)]
    found: list[int] = []
    while len(
        page := dataset.find_readings(
            limit=7, after=found[-1] if found else None, fve_min=0.3, role=Role.ASSISTANT
        )
    ):
        found += page["row"].tolist()
    assert found == wanted["row"].tolist()
    assert found


@pytest.mark.parametrize(
    ("filters", "keep"),
    [
        ({"category": "facts"}, lambda r: r["category"] == "facts"),
        ({"flag": "cut"}, lambda r: r["flags"].map(lambda flags: "cut" in flags)),
        ({"fve_max": 0.0}, lambda r: r["fve"] < 0),
        ({"section": "template"}, lambda r: r["section"] == Section.TEMPLATE),
        ({"position": 30}, lambda r: r["position"] == 30),
        ({"transcript_id": "' OR true --"}, lambda r: r["row"] < 0),
    ],
)
def test_readings_filtered(
    dataset: Dataset, readings: pd.DataFrame, filters: Any, keep: Any
) -> None:
    found = dataset.find_readings(**filters)
    assert found["row"].tolist() == readings[keep(readings)]["row"].tolist()


def test_the_token_of_a_reading_is_the_whole_character(dataset: Dataset) -> None:
    transcript_id = transcript_id_of("language-001")
    tokens = dataset.tokens(transcript_id)
    whole = tokens.groupby("chip")["text"].sum()
    found = dataset.find_readings(transcript_id=transcript_id)
    expected = [whole[tokens["chip"][p]] for p in found["position"]]
    assert found["token"].tolist() == expected
    assert "" not in expected


def test_one_reading_or_none(dataset: Dataset, readings: pd.DataFrame) -> None:
    wanted = readings.iloc[11]
    found = dataset.reading(wanted["reading_id"])
    assert found is not None
    assert found.drop(["flags"]).to_dict() == wanted.drop(["flags"]).to_dict()
    assert dataset.reading("nope") is None


def test_values_never_become_sql(dataset: Dataset) -> None:
    hostile = "'); DROP TABLE readings; -- \x00 \u202e"
    for name in ("category", "contains", "tag", "flag"):
        assert dataset.transcripts(**{name: hostile}).empty  # type: ignore[arg-type]
        text, values = queries.transcripts(
            {name: hostile}, sort="title", descending=False, limit=1, after=None
        )
        assert hostile not in text
        assert hostile in values.values()
    assert json.loads(dataset.transcript(transcript_id_of("facts-001"))["messages"])  # type: ignore[index]
