"""A synthetic dataset of any size, made from a real one: what search at size is measured on.

Knows the scheme: every synthetic transcript is a real one whose words and vectors were recombined
with those of a partner. Knows nothing of search. The decision a reader would question: numbers,
flags and lengths are copied and texts and vectors are not, because search time depends on how words
and directions are distributed, and copies of texts would make every rare word common.

The scheme, all of it drawn from one seed. A transcript has a source and a partner of the same
category. Of each text, every fourth word comes from the partner's reading at the same place, and
one in thirty is an invented word out of a tail of 200,000 (the head of one real word and the end of
another, drawn by Zipf's law), since a larger corpus has a larger vocabulary. A vector is the
source's, moved 0.35 of the way to the partner's, plus 0.3 of the difference of two other vectors of
the category, plus normal noise of length 0.1, scaled to length 1: real directions, in clusters that
are as tight as the real ones and many times as full.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nla_core.errors import NLAError
from nla_core.schema import TABLES, Section
from nla_core.store.dataset import Dataset
from nla_core.store.files import building
from nla_core.store.manifest import PARQUET
from nla_core.store.publish import publish

PARTNER_WORDS = 0.25
INVENTED_WORDS = 1 / 30
TAIL = 200_000
TO_PARTNER, DIFFERENCE, NOISE = 0.35, 0.3, 0.1
BLOCK = 256
"""Transcripts that are made at once; decides memory, not content."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A real dataset in memory; ``first`` holds the first row of each transcript, and the end."""

    transcripts: list[dict[str, Any]]
    tokens: pa.Table
    readings: pa.Table
    token_first: np.ndarray
    reading_first: np.ndarray
    vectors: np.ndarray
    peers: list[np.ndarray]  # for each transcript, those of its category

    @classmethod
    def of(cls, dataset: Dataset) -> _Source:
        tables = {name: pq.read_table(dataset.directory / PARQUET[name]) for name in PARQUET}
        rows = tables["transcripts"].to_pylist()
        kept = [row for row in rows if row["n_readings"]]
        if not kept:
            raise NLAError(
                f"The dataset {dataset.root} has no readings to make more of",
                why="none of its transcripts has one",
                fix="Name a dataset with readings, such as data/demo",
            )
        category = np.array([row["category"] for row in kept])
        return cls(
            kept,
            tables["tokens"],
            tables["readings"],
            _first_rows(tables["tokens"], kept),
            _first_rows(tables["readings"], kept),
            np.asarray(dataset.explanation_vectors(), dtype=np.float32),
            [np.flatnonzero(category == row["category"]) for row in kept],
        )


def make_million(
    dataset: Dataset, root: Path, rows: int, seed: int = 0, spent: dict[str, float] | None = None
) -> str:
    """Publish at least ``rows`` synthetic readings under ``root``; returns the version.

    The last transcript is kept whole, so there may be a few more. Deterministic in its arguments.
    ``spent`` is told the seconds of processor time that ``rows_s`` and ``vectors_s`` took to make,
    which is what a real run computes, and ``publish_s``, which is all the rest.
    """
    spent = {} if spent is None else spent
    source = _Source.of(dataset)
    plan = _plan(source, rows, seed)
    vectors = itertools.chain.from_iterable(
        _vectors(source, block, np.random.default_rng((seed, 1, number)))
        for number, block in enumerate(_blocks(plan))
    )
    began = time.process_time()
    with building(root) as folder:
        parts = {name: folder / f"{name}.parquet" for name in TABLES}
        writers = {name: pq.ParquetWriter(path, TABLES[name]) for name, path in parts.items()}
        words = _Words(source, np.random.default_rng((seed, 2)))
        for number, block in enumerate(_blocks(plan)):
            rng = np.random.default_rng((seed, 3, number))
            for name, table in _block_tables(source, block, words, rng).items():
                writers[name].write_table(table)
        for writer in writers.values():
            writer.close()

        spent["rows_s"], spent["vectors_s"] = time.process_time() - began, 0.0
        began = time.process_time()

        def embed(texts: Sequence[str]) -> np.ndarray:
            # Rows are made in the order of the published file, so the next vectors are theirs.
            asked = time.process_time()
            made = np.stack(list(itertools.islice(vectors, len(texts))))
            spent["vectors_s"] += time.process_time() - asked
            return made

        version = publish(
            root,
            {name: [path] for name, path in parts.items()},
            embed=embed,
            pair=dataset.manifest.pair,
            corpus={"synthetic_from": dataset.version, "seed": seed, "n_prompts": len(plan)},
            settings={**dataset.manifest.settings, "synthetic": True},
        )
        spent["publish_s"] = time.process_time() - began - spent["vectors_s"]
    return version


def synthetic_vectors(dataset: Dataset, rows: int, seed: int = 0) -> Iterator[np.ndarray]:
    """The vectors that `make_million` would give at least ``rows`` readings, one after another."""
    source = _Source.of(dataset)
    return itertools.chain.from_iterable(
        _vectors(source, block, np.random.default_rng((seed, 1, number)))
        for number, block in enumerate(_blocks(_plan(source, rows, seed)))
    )


Plan = list[tuple[int, int, int]]
"""(number of the new transcript, its source, its partner)."""


def _plan(source: _Source, rows: int, seed: int) -> Plan:
    rng = np.random.default_rng((seed, 0))
    sizes = np.diff(source.reading_first.reshape(-1, 2)).ravel()
    plan: Plan = []
    while rows > 0:
        for chosen in rng.permutation(len(source.transcripts)):
            if rows > 0:
                plan.append((len(plan), int(chosen), int(rng.choice(source.peers[chosen]))))
                rows -= int(sizes[chosen])
    return plan


def _blocks(plan: Plan) -> Iterator[Plan]:
    return (plan[start : start + BLOCK] for start in range(0, len(plan), BLOCK))


def _first_rows(table: pa.Table, transcripts: list[dict[str, Any]]) -> np.ndarray:
    """[2 x transcript]: the first row of each transcript and the one after its last."""
    ids = np.asarray(table.column("transcript_id").to_pylist())
    wanted = np.array([row["transcript_id"] for row in transcripts])
    ends = [np.searchsorted(ids, wanted), np.searchsorted(ids, wanted, side="right")]
    return np.stack(ends, axis=1).ravel()


def _ranges(first: np.ndarray, chosen: Iterable[int]) -> list[np.ndarray]:
    return [np.arange(first[2 * one], first[2 * one + 1]) for one in chosen]


def _beside(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """For each of my rows the partner's row at the same place, going round where it is shorter."""
    return theirs[np.arange(len(mine)) % len(theirs)]


def _vectors(source: _Source, block: Plan, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for _, chosen, partner in block:
        mine, theirs = _ranges(source.reading_first, [chosen, partner])
        beside = _beside(mine, theirs)
        peers = np.concatenate(_ranges(source.reading_first, source.peers[chosen]))
        one, other = rng.choice(peers, size=(2, len(mine)))
        real = source.vectors
        noise = rng.normal(size=(len(mine), real.shape[1])) / np.sqrt(real.shape[1])
        made = real[mine] + TO_PARTNER * (real[beside] - real[mine])
        made += DIFFERENCE * (real[one] - real[other]) + NOISE * noise
        yield from made / np.linalg.norm(made, axis=1, keepdims=True)


class _Words:
    """Texts recombined word by word, with a tail of invented words."""

    def __init__(self, source: _Source, rng: np.random.Generator) -> None:
        self.explanations = [
            text.split(" ") for text in source.readings.column("explanation").to_pylist()
        ]
        real = sorted({word for words in self.explanations for word in words if word.isalpha()})
        heads, ends = rng.choice(len(real), size=(2, TAIL))
        self.tail = [
            real[a][: 1 + len(real[a]) // 2] + real[b][len(real[b]) // 2 :]
            for a, b in zip(heads, ends, strict=True)
        ]

    def invented(self, n: int, rng: np.random.Generator) -> Iterator[str]:
        return (self.tail[one] for one in rng.zipf(1.3, size=n) % TAIL)

    def mixed(self, mine: int, beside: int, draw: np.ndarray, new: Iterator[str]) -> str:
        own, other = self.explanations[mine], self.explanations[beside]
        return " ".join(
            next(new)
            if chance < INVENTED_WORDS
            else other[place]
            if chance < INVENTED_WORDS + PARTNER_WORDS and place < len(other)
            else word
            for place, (word, chance) in enumerate(zip(own, draw, strict=False))
        )


def _block_tables(
    source: _Source, block: Plan, words: _Words, rng: np.random.Generator
) -> dict[str, pa.Table]:
    tokens, readings, transcripts = [], [], []
    for number, chosen, partner in block:
        name = f"{number:012x}"
        mine, theirs = _ranges(source.token_first, [chosen, partner])
        made = _recombined_tokens(source.tokens.take(mine), source.tokens.take(theirs), rng)
        tokens.append(_named(made, name))
        mine, theirs = _ranges(source.reading_first, [chosen, partner])
        longest = max(len(words.explanations[row]) for row in mine)
        draws = rng.random((len(mine), longest))
        new = words.invented(draws.size, rng)
        texts = [
            words.mixed(row, other, draw, new)
            for row, other, draw in zip(mine, _beside(mine, theirs), draws, strict=True)
        ]
        table = _named(source.readings.take(mine), name)
        table = _with(table, "explanation", pa.array(texts, pa.string()))
        ids = [f"{name}-{place}" for place in range(len(mine))]
        readings.append(_with(table, "reading_id", pa.array(ids, pa.string())))
        transcripts.append(_transcript(source.transcripts[chosen], name, made))
    return {
        "tokens": pa.concat_tables(tokens),
        "readings": pa.concat_tables(readings),
        "transcripts": pa.Table.from_pylist(transcripts, TABLES["transcripts"]),
    }


def _recombined_tokens(mine: pa.Table, theirs: pa.Table, rng: np.random.Generator) -> pa.Table:
    """A quarter of the content tokens say what the partner's token at their place says."""
    text = mine.column("text").to_pylist()
    other = theirs.column("text").to_pylist()
    content = [one == Section.CONTENT for one in mine.column("section").to_pylist()]
    foreign = [one == Section.CONTENT for one in theirs.column("section").to_pylist()]
    draw = rng.random(len(text)) < PARTNER_WORDS
    for place in range(min(len(text), len(other))):
        if draw[place] and content[place] and foreign[place]:
            text[place] = other[place]
    return _with(mine, "text", pa.array(text, pa.string()))


def _transcript(row: dict[str, Any], name: str, tokens: pa.Table) -> dict[str, Any]:
    turns: dict[int, tuple[str, list[str]]] = {}
    columns = (tokens.column(key).to_pylist() for key in ("turn", "role", "section", "text"))
    for turn, role, section, text in zip(*columns, strict=True):
        if section == Section.CONTENT:
            turns.setdefault(turn, (role, []))[1].append(text)
    messages = [{"role": role, "content": "".join(parts)} for role, parts in turns.values()]
    return {
        **row,
        "transcript_id": name,
        "prompt_id": f"synthetic-{name}",
        "title": f"{row['title']} ({int(name, 16)})",
        "messages": json.dumps(messages, ensure_ascii=False),
    }


def _named(table: pa.Table, name: str) -> pa.Table:
    return _with(table, "transcript_id", pa.array([name] * len(table), pa.string()))


def _with(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    place = table.schema.get_field_index(column)
    return table.set_column(place, table.schema.field(column), values)
