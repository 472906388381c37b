"""An explainer and an embedder without models, for tests of everything around them.

What it returns follows from its arguments alone, like the real one's greedy texts. Prompts that
contain BROKEN fail to transcribe; those with FATAL fail the whole call, as a NaN does; those with
UNREADABLE fail to be explained; those with DEADLY kill the process, as the kernel would.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nla_core.errors import NLAError
from nla_core.schema import Finish, Flag, Role, Section
from precompute.plan import Plan, Settings, make_plan
from precompute.run import execute
from precompute.workspace import WORK
from tests.helpers import hash_vectors

PAIR = {"pair_id": "fake-L2", "revision": "0" * 12, "target": "fake", "layer": 2, "d_model": 4,
        "injection_scale": 1.0, "rawvar": 0.5}  # fmt: skip
BROKEN, FATAL, UNREADABLE, DEADLY = "BROKEN", "FATAL", "UNREADABLE", "DEADLY"
NO_DIRECTION = "<zero>"  # a word whose vector is zero


@dataclass(frozen=True, slots=True)
class Token:
    position: int
    token_id: int
    chip: int
    text: str
    role: str
    section: str
    turn: int
    norm: float
    norm_pct: float
    surprisal: float | None
    top_tokens: tuple[str, ...]
    top_probs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Transcript:
    transcript_id: str
    messages: tuple[dict[str, str], ...]
    tokens: tuple[Token, ...]
    n_answer_tokens: int
    answer_finish: str


@dataclass(frozen=True, slots=True)
class Reading:
    position: int
    sample: int
    explanation: str
    finish: str
    n_tokens: int
    mse_nrm: float
    cosine: float
    centred_cosine: float
    fve: float
    flags: tuple[str, ...]
    seed: int


class FakeExplainer:
    def __init__(self, before_shard: Callable[[], None] = lambda: None) -> None:
        self.before_shard = before_shard
        self.n_transcribed = 0

    def transcribe(
        self,
        prompts: Sequence[Sequence[dict[str, str]]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
    ) -> list[Transcript | NLAError]:
        self.before_shard()
        if any(DEADLY in messages[-1]["content"] for messages in prompts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(FATAL in messages[-1]["content"] for messages in prompts):
            raise NLAError("1 activation cannot be used", why="It is NaN", fix="Use float32")
        self.n_transcribed += len(prompts)
        made: list[Transcript | NLAError] = []
        for messages, seed in zip(prompts, seeds, strict=True):
            if BROKEN in messages[-1]["content"]:
                made.append(NLAError("The text is too long", why="It is", fix="Shorten it"))
                continue
            answer = {"role": "assistant", "content": f"answer {_number(messages, seed) % 97}"}
            texts = [
                (turn, m["role"], word)
                for turn, m in enumerate([*messages, answer])
                for word in m["content"].split(" ")
            ]
            tokens = [self._token(i, *where) for i, where in enumerate(texts)]
            tokens.insert(0, Token(0, 0, 0, "<s>", Role.USER, Section.TEMPLATE, 0, 9.0, 99.0, None,
                                   (), ()))  # fmt: skip
            made.append(
                Transcript(
                    _hex(messages, seed, max_new_tokens, temperature),
                    (*messages, answer),
                    tuple(tokens),
                    2,
                    "stop",
                )
            )
        return made

    def _token(self, index: int, turn: int, role: str, word: str) -> Token:
        norm = 0.0 if word == NO_DIRECTION else 2.0
        return Token(
            index + 1, len(word), index + 1, f" {word}", role, Section.CONTENT, turn, norm, 50.0,
            1.5, (word, "the"), (0.75, 0.125),
        )  # fmt: skip

    def content_positions(self, transcript: Transcript) -> list[int]:
        return [t.position for t in transcript.tokens if t.section == Section.CONTENT]

    def explain(
        self,
        transcripts: Sequence[Transcript],
        positions: Sequence[Sequence[int]],
        *,
        samples: int,
        temperature: float,
        seed: int,
        max_new_tokens: int,
        batch_size: int,
        on_progress: Callable[[int, int], None],
    ) -> Iterator[tuple[int, Reading]]:
        """Texts finish from the last to the first, as short ones overtake long ones."""
        todo = [
            (i, position, sample)
            for i, wanted in enumerate(positions)
            for position in wanted
            for sample in range(samples)
        ]
        for done, (i, position, sample) in enumerate(reversed(todo), start=1):
            transcript = transcripts[i]
            if UNREADABLE in transcript.messages[-2]["content"] and position == 2:
                raise NLAError("1 vector cannot be used", why="It is NaN", fix="Leave it out")
            number = _number(transcript.transcript_id, position, sample, seed, max_new_tokens)
            mse = number % 1000 / 1000
            yield (
                i,
                Reading(
                    position,
                    sample,
                    f"topic {number % 13}: {transcript.tokens[position].text}",
                    Finish.CUT if number % 5 == 0 else Finish.CLOSED,
                    number % 40,
                    mse,
                    1 - mse / 2,
                    0.5,
                    1 - mse / 0.5,
                    (Flag.EARLY,) if position < 3 else (),
                    seed,
                ),
            )
            on_progress(done, len(todo))

    def reading_id(self, transcript_id: str, reading: Reading) -> str:
        return _hex(transcript_id, reading.position, reading.sample, reading.seed)


class HashEmbedder:
    name = "hash-16"
    dimension = 16
    embed = staticmethod(hash_vectors)


def run_fake(
    plan: Plan, out: Path, explainer: FakeExplainer | None = None, **options: object
) -> str:
    """Run and publish; the version."""
    made = explainer or FakeExplainer()
    return execute(plan, out, lambda: made, embedder=HashEmbedder(), **options)["version"]  # type: ignore[arg-type]


def published(out: Path) -> dict[str, bytes]:
    """The files of a dataset by path, without the workspace and the derived database."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and WORK not in path.parts and path.suffix != ".duckdb"
    }


def fake_plan(corpus: Any, *, limit: int | None = None, **settings: Any) -> Plan:
    return make_plan(corpus, pair=PAIR, settings=Settings(**settings), name="test", limit=limit)


def _hex(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _number(*values: Any) -> int:
    return int(_hex(*values)[:8], 16)
