"""An embedder for tests: a text is the sum of its words, so shared words make texts near."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from nla_core.analysis.visible import content_stems, words

DIMENSION = 64


class BagOfWords:
    """Counts calls and texts; texts without content words get a direction of their own."""

    name = "bag-of-words"
    dimension = DIMENSION

    def __init__(self) -> None:
        self.texts = 0

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += len(texts)
        if not texts:
            return np.zeros((0, DIMENSION), np.float32)
        rows = np.stack([self._row(text) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def _row(self, text: str) -> np.ndarray:
        stems = content_stems(words(text)) or {"(nothing) " + text}
        return np.sum([self._direction(stem) for stem in sorted(stems)], axis=0)

    @staticmethod
    def _direction(stem: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8], "big")
        return np.random.default_rng(seed).standard_normal(DIMENSION)
