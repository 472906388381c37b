"""The search file: any text is a query, rows are the right ones, and the file heals itself."""

from __future__ import annotations

import re
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nla_core.data import fulltext as fts
from nla_core.data.dataset import Dataset
from nla_core.data.fulltext import (
    FILE,
    LONGEST_QUERY,
    MOST_TERMS,
    FullText,
    Table,
    indexable,
    lit,
    original_places,
    read_words,
)
from nla_core.errors import NLAError
from nla_core.schema import Section
from tests.helpers import make_dataset

NASTY = [
    "",
    " ",
    '"',
    '""',
    '"""" OR 1=1 --',
    "AND",
    "a AND",
    "NOT",
    "NEAR(a b, 3)",
    "explanation : paris",
    "{text} : paris",
    "^paris",
    "paris)",
    "(((((",
    "'; DROP TABLE readings; --",
    "paris\x00rabbit",
    "\ud800 rabbit",
    ".*[a-z]+(?=x)$",
    "שלום עולם",
    "\u202eparis\u202c",
    "👋🏽",
    "日本語",
    "-",
    "--paris",
    "*",
    "par**",
    '-"the capital"',
    "paris" * 20_000,
    "a " * 50_000,
    "“smart quotes”",
    "%_%",
]

text_of_any_kind = st.one_of(
    st.text(max_size=60),
    st.text(alphabet='ab "*-()^:+AND OR NOT é日👋\x00', max_size=40),
    st.sampled_from(NASTY),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("fts")
    make_dataset(root, samples=2)
    return Dataset.open(root)


@pytest.fixture(scope="module")
def text(dataset: Dataset) -> FullText:
    return FullText(dataset)


@pytest.fixture(scope="module")
def explanations(dataset: Dataset) -> list[str]:
    return dataset.find_readings()["explanation"].tolist()


def words_of(value: str) -> list[str]:
    """The words of ASCII text, told by another program than SQLite."""
    return re.findall(r"[a-z0-9]+", value.lower())


# ---- any input -----------------------------------------------------------------------------------


@given(text_of_any_kind, st.booleans())
@settings(max_examples=400, deadline=None)
def test_no_text_whatsoever_raises(text: FullText, typed: str, typing: bool) -> None:
    words = read_words(typed, typing=typing)
    for table in Table:
        for match in (words.match, words.any_match, words.unwanted_match):
            rows = text.matches(table, match, 50)
            assert (np.diff(rows) > 0).all()
    assert len(words.wanted) + len(words.unwanted) <= MOST_TERMS


@given(
    st.lists(
        st.sampled_from(["the", "capital", "rabbit", "and", "or", "not", "near", "of"]), min_size=1
    )
)
@settings(max_examples=100, deadline=None)
def test_operators_are_words(text: FullText, explanations: list[str], words: list[str]) -> None:
    found = text.matches(Table.EXPLANATIONS, read_words(" ".join(words) + " ").match, 10_000)
    expected = [i for i, e in enumerate(explanations) if set(words) <= set(words_of(e))]
    assert found.tolist() == expected


@given(st.text(alphabet="ab é日本👋🏽ßñ'\x00\x1f\x02-", max_size=30))
@settings(max_examples=300, deadline=None)
def test_places_in_indexed_text_are_places_in_the_text(value: str) -> None:
    indexed = indexable(value)
    places = original_places(indexed)
    assert len(places) == len(indexed) + 1
    assert places[-1] == len(value)
    shown = "".join(sign for sign in indexed if sign != "\x1f")
    assert len(shown) == len(value)


@pytest.mark.parametrize(
    ("typed", "match"),
    [
        ("paris", '"paris" *'),
        ("paris ", '"paris"'),
        ("the par", '"the" AND "par" *'),
        ("par* the ", '"par" * AND "the"'),
        ('"the capital" of ', '"the capital" AND "of"'),
        ('"not closed', '"not closed"'),
        ("paris -rome ", '("paris") NOT ("rome")'),
        ('a -"b c" ', '("a") NOT ("b c")'),
        ("foo-bar ", '"foo-bar"'),
        ("AND OR ", '"AND" AND "OR"'),
        ("a a a ", '"a"'),
        ("!!! ", ""),
        ("-rome", ""),
    ],
)
def test_how_text_is_read(typed: str, match: str) -> None:
    assert read_words(typed).match == match


def test_what_is_left_out_is_said() -> None:
    (note,) = read_words("word " * 20_000).notes
    assert f"first {LONGEST_QUERY} of 100,000" in note
    assert "!!!" in read_words("rabbit !!!").notes[0]
    many = read_words(" ".join(f"w{i}" for i in range(60)))
    assert "first 24 of 60" in many.notes[0]
    assert read_words("plain words").notes == ()


# ---- the right rows ------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["paris", "capital", "topic", "animals", "nowhere", "8"])
def test_words_are_found_where_they_stand(
    text: FullText, explanations: list[str], word: str
) -> None:
    expected = [i for i, e in enumerate(explanations) if word in words_of(e)]
    assert text.matches(Table.EXPLANATIONS, read_words(f"{word} ").match, 10_000).tolist() == (
        expected
    )
    begun = [i for i, e in enumerate(explanations) if any(w.startswith("pa") for w in words_of(e))]
    assert text.matches(Table.EXPLANATIONS, read_words("pa").match, 10_000).tolist() == begun
    assert len(begun) > 10


def test_phrases_minus_masks_limits_and_ranges(text: FullText, explanations: list[str]) -> None:
    both = [i for i, e in enumerate(explanations) if "geography of france" in e.lower()]
    assert both
    phrase = read_words('"geography of france"').match
    assert text.matches(Table.EXPLANATIONS, phrase, 10_000).tolist() == both
    assert not len(text.matches(Table.EXPLANATIONS, read_words('"france of geography"').match, 9))
    without = read_words("topic -france ").match
    expected = [i for i, e in enumerate(explanations) if "France" not in e]
    assert text.matches(Table.EXPLANATIONS, without, 10_000).tolist() == expected
    mask = np.zeros(len(explanations), dtype=bool)
    mask[both[1::2]] = True
    assert text.matches(Table.EXPLANATIONS, phrase, 10_000, mask).tolist() == both[1::2]
    assert text.matches(Table.EXPLANATIONS, phrase, 3).tolist() == both[:3]
    inside = text.matches(Table.EXPLANATIONS, phrase, 10_000, start=both[1], end=both[4])
    assert inside.tolist() == both[1:4]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("東京", {"東京"}),
        ("京", {"京"}),
        ("拶 ", {"拶"}),
        ("👋", {"👋"}),
        ("gruße ", {"Grüße"}),
        ("grusse ", set()),
        ("京東", set()),
    ],
)
def test_scripts_without_spaces_accents_and_emoji(
    text: FullText, typed: str, found: set[str]
) -> None:
    words = read_words(typed)
    turns = [*text.turns(text.matches(Table.VISIBLE, words.match, 10).tolist()).values()]
    lights = lit([turn.text for turn in turns], words.any_match)
    assert all(lights)
    assert {
        turn.text[start:end]
        for turn, spans in zip(turns, lights, strict=True)
        for start, end in spans
    } == found


def test_a_place_in_visible_text_is_a_token(dataset: Dataset, text: FullText) -> None:
    names = sorted(dataset.transcripts()["transcript_id"])
    rows = text.matches(Table.VISIBLE, read_words("the ").match, 100)
    assert len(rows) > 4
    for turn in text.turns(rows.tolist()).values():
        tokens = dataset.tokens(names[turn.transcript])
        tokens = tokens[(tokens["turn"] == turn.turn) & (tokens["section"] == Section.CONTENT)]
        assert turn.text == "".join(tokens["text"])
        for (start, end), *_ in lit([turn.text], read_words("the ").any_match):
            token = tokens[tokens["position"] == turn.position(start)]["text"].item()
            assert turn.text[start:end].lower() == "the"
            assert token.strip().lower() == "the"


def test_lights_are_the_words_that_match() -> None:
    texts = ["The Capital of capitals", "nothing here", "cap\x02ital capital"]
    assert [
        [value[start:end] for start, end in spans]
        for value, spans in zip(texts, lit(texts, read_words("capital ").any_match), strict=True)
    ] == [["Capital"], [], ["capital"]]
    assert lit(["Capital"], "") == [[]]


def test_words_are_counted_and_near_ones_offered(text: FullText, explanations: list[str]) -> None:
    holding = sum("france" in words_of(e) for e in explanations)
    assert text.documents("France") == (holding, 1)
    assert text.documents("nowhere") == (0, 0)
    assert ("france", holding) in text.words_like("franse", Table.EXPLANATIONS, 50)


# ---- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"not SQLite", b"SQLite format 3\x00" + b"\x00" * 5000])
def test_a_damaged_file_is_built_anew(tmp_path: Path, content: bytes) -> None:
    make_dataset(tmp_path)
    dataset = Dataset.open(tmp_path)
    (dataset.directory / FILE).write_bytes(content)
    text = FullText(dataset)
    assert len(text.matches(Table.EXPLANATIONS, '"topic"', 5)) == 5
    assert not list(dataset.directory.glob(".tmp-*"))


def test_a_file_of_another_version_is_built_anew(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    dataset = Dataset.open(tmp_path)
    FullText(dataset).close()
    path = dataset.directory / FILE
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET version = 'v-000000000000'")
        connection.execute("DELETE FROM readings")
    connection.close()
    assert FullText(dataset).readings([0])


def test_a_file_deleted_while_open_is_built_anew(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    dataset = Dataset.open(tmp_path)
    text = FullText(dataset)
    (dataset.directory / FILE).unlink()
    text.close()  # as when more threads ask than there are open connections
    assert len(text.matches(Table.EXPLANATIONS, '"topic"', 5)) == 5
    assert (dataset.directory / FILE).exists()


def test_a_version_that_is_gone_is_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    dataset = Dataset.open(tmp_path)
    text = FullText(dataset)
    text.close()
    dataset.directory.rename(tmp_path / "elsewhere")
    with pytest.raises(NLAError, match="is gone"):
        text.matches(Table.EXPLANATIONS, '"topic"', 5)


def test_a_broken_page_is_told_not_raised(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    dataset = Dataset.open(tmp_path)
    FullText(dataset).close()
    path = dataset.directory / FILE
    data = bytearray(path.read_bytes())
    data[8192:-4096] = b"\xff" * (len(data) - 8192 - 4096)
    path.write_bytes(data)
    with pytest.raises(NLAError, match="delete it and start again"):
        FullText(dataset).matches(Table.EXPLANATIONS, '"topic"', 5)


def test_threads_share_it(text: FullText) -> None:
    expected = text.matches(Table.EXPLANATIONS, '"topic"', 10_000).tolist()
    found: list[list[int]] = []

    def ask() -> None:
        for _ in range(20):
            found.append(text.matches(Table.EXPLANATIONS, '"topic"', 10_000).tolist())

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 240
    assert len(text._spare) <= fts.SPARE_CONNECTIONS
