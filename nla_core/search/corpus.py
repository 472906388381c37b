"""One dataset version opened for search: columns, full text, vectors, and the encoder of phrases.

Knows what is loaded when, and how filters, minus words and "unspoken" become one mask over
readings. Does not know modes, ranks or pages. The decision a reader would question: the encoder and
the index of vectors are opened by the first search by meaning and not before, so that searching for
words never waits for a model library.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from nla_core.errors import NLAError
from nla_core.search.facets import ROLES, Facets
from nla_core.search.query import Query
from nla_core.store.dataset import Dataset
from nla_core.store.fts import FullText, Table
from nla_core.store.vectors import VectorIndex, open_index
from nla_core.store.words import Words, read_words

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts to [text, d] unit vectors, by the encoder that made the dataset's vectors."""

UNLIKE = 0.6
"""Weight of what is pushed away, against 1 for what is looked for."""

KEPT_PHRASES = 512
TELLING_SHARE = 0.1


class Corpus:
    """Safe to share between threads; the derived files are built where they are missing."""

    def __init__(self, dataset: Dataset, embed: Embed, encoder: str | None = None) -> None:
        self.dataset = dataset
        self.facets = Facets(dataset)
        self.text = FullText(dataset)
        transcripts, roles = self.text.turn_columns()
        self.turn_transcripts = transcripts
        self._turn_roles = np.array([ROLES.index(role) for role in roles], dtype=np.int8)
        self._embed, self._encoder = embed, encoder
        self._index: VectorIndex | None = None
        self._phrases: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self.vectors = dataset.explanation_vectors()

    @property
    def index(self) -> VectorIndex:
        with self._opening:
            if self._index is None:
                self._index = open_index(self.dataset)
            return self._index

    def words(self, query: Query) -> Words:
        """How the text of ``query`` is read. What must be unspoken is matched in whole words, for
        a word that is half typed says nothing about what was said."""
        return read_words(query.text, typing=not query.unspoken)

    def telling(self, words: Words) -> Words:
        """``words`` without those wanted terms that stand in a tenth of all explanations."""
        most = TELLING_SHARE * len(self.facets)
        wanted = (term for term in words.wanted if self.text.documents(term.text)[0] <= most)
        return replace(words, wanted=tuple(wanted))

    # ---- masks -----------------------------------------------------------------------------------

    def mask(self, query: Query, words: Words) -> np.ndarray | None:
        """[reading] bool of what filters, minus words and "unspoken" leave; None for all."""
        mask = self.facets.mask(query.filters)
        unspoken = query.unspoken and bool(words.wanted)
        if not words.unwanted and not unspoken:
            return mask
        mask = np.ones(len(self.facets), dtype=bool) if mask is None else mask.copy()
        if words.unwanted:
            rows = self.text.matches(Table.EXPLANATIONS, words.unwanted_match, len(mask))
            mask[rows] = False
        if unspoken:
            mask &= ~self.spoken(words)[self.facets.transcript]
        return mask

    def spoken(self, words: Words) -> np.ndarray:
        """[transcript] bool: every wanted word and phrase stands somewhere in its visible text."""
        spoken = np.ones(len(self.facets.ids), dtype=bool)
        for term in words.wanted:
            rows = self.text.matches(Table.VISIBLE, term.fts, len(self.turn_transcripts))
            here = np.zeros(len(spoken), dtype=bool)
            here[self.turn_transcripts[rows]] = True
            spoken &= here
        return spoken

    def turn_mask(self, query: Query, words: Words) -> np.ndarray | None:
        """[turn] bool of what roles, categories, tags and minus words leave; None for all."""
        filters = query.filters
        if not (filters.active or words.unwanted):
            return None
        mask = self.facets.transcripts(filters)[self.turn_transcripts]
        if filters.roles:
            mask &= np.isin(self._turn_roles, [ROLES.index(role) for role in filters.roles])
        rows = self.text.matches(Table.VISIBLE, words.unwanted_match, len(mask))
        mask[rows] = False
        return mask

    # ---- directions ------------------------------------------------------------------------------

    def direction(self, query: Query, words: Words) -> np.ndarray | None:
        """[d] float32 to rank readings by; None where there is nothing to be like.

        Raises NLAError for an unknown reading, or where phrases cannot be embedded.
        """
        parts = []
        if query.like is not None:
            parts.append(self.vectors[self.liked(query.like)].astype(np.float32))
        if words.plain.strip():
            parts.append(self.phrase(words.plain))
        if not parts:
            return None
        towards = np.sum(parts, axis=0)
        towards /= max(float(np.linalg.norm(towards)), 1e-6)
        if unlike := read_words(query.unlike, typing=False).plain.strip():
            towards = towards - UNLIKE * self.phrase(unlike)
        return np.asarray(towards, dtype=np.float32)

    def liked(self, reading_id: str) -> int:
        """The row of a reading that others are to be like. Raises NLAError if there is none."""
        row = self.text.row_of(reading_id)
        if row is None:
            raise NLAError(
                f"There is no reading {reading_id[:40]!r} to find others like",
                why="this version of the dataset has none of that id",
                fix="Open a reading and ask for more like it there",
            )
        return row

    def phrase(self, text: str) -> np.ndarray:
        """[d] float32 unit vector of a phrase; remembered, for people page and type."""
        with self._lock:
            if (known := self._phrases.get(text)) is not None:
                self._phrases.move_to_end(text)
                return known
        made = self.dataset.manifest.settings.get("embedder")
        if self._encoder is not None and made is not None and made != self._encoder:
            raise NLAError(
                "This dataset cannot be searched by meaning here",
                why=f"its vectors were made by {made}, and the encoder at hand is {self._encoder}",
                fix="Search for words, or publish the dataset again with this encoder",
            )
        vector = np.asarray(self._embed([text]), dtype=np.float32)[0]
        if vector.shape != self.vectors.shape[1:]:
            raise NLAError(
                "This dataset cannot be searched by meaning here",
                why=f"its vectors have {self.vectors.shape[1]} dimensions, and the encoder at hand "
                f"makes {len(vector)}",
                fix="Search for words, or publish the dataset again with this encoder",
            )
        with self._lock:
            self._phrases[text] = vector
            while len(self._phrases) > KEPT_PHRASES:
                self._phrases.popitem(last=False)
        return vector
