"""What a page's queue and a worker on another machine say to each other: requests and lines.

Knows the paths, the JSON of requests and of streamed lines, and how vectors travel. Knows neither
sockets nor models. The decision a reader would question: vectors travel as base64 of safetensors
inside JSON, which costs a third more bytes than raw frames; a request is then one readable text,
nothing in it can run code, and 64 vectors are still less than a picture. Scores that are no numbers
are written as Python writes them (NaN), since both ends are this module.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from nla_core.errors import NLAError
from nla_core.prompts import Message, messages_of, text_of
from nla_core.readings import Reading, Token, Transcript
from nla_core.runs.queue import PairKey

if TYPE_CHECKING:
    from torch import Tensor

PROTOCOL: Final = 1
TOKEN_VARIABLE: Final = "NLA_WORKER_TOKEN"
IDENTITY: Final = "/v1/identity"
TRANSCRIBE: Final = "/v1/transcribe"
EXPLAIN: Final = "/v1/explain"
DROP: Final = "/v1/drop"
MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024
MAX_ROWS: Final = 4_096
MAX_TOKENS: Final = 65_536
ALIVE_SECONDS: Final = 2.0
"""A stream that has nothing else to say says so this often."""

T = TypeVar("T")


class Kind(StrEnum):
    """What a line of a stream is."""

    ALIVE = "alive"  # the server is there; nothing has moved
    STEP = "step"  # a token was written, or another's job before this one moved
    TRANSCRIPT = "transcript"
    TEXT = "text"
    READING = "reading"
    ERROR = "error"  # of the whole job; the last line
    END = "end"  # all went well; the last line


class Failing(StrEnum):
    """Why a job ended early: its caller tells these apart."""

    REFUSED = "refused"  # an NLAError
    MEMORY = "memory"  # fewer rows at a time may do
    BROKEN = "broken"  # anything else


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is. ``jobs`` wait or are at work; ``tokens_per_s`` is a first guess."""

    protocol: int
    pair_id: str
    revision: str
    d_model: int
    device: str
    dtype: str
    megabytes: int
    tokens_per_s: float
    jobs: int = 0

    @property
    def key(self) -> PairKey:
        return self.pair_id, self.revision

    @classmethod
    def from_json(cls, data: Any) -> Identity:
        """Raises NLAError for another protocol, or for what is no worker."""
        spoken = data.get("protocol") if isinstance(data, dict) else None
        if spoken != PROTOCOL:
            raise NLAError(
                "The worker cannot be talked to",
                why=f"it speaks version {spoken} of the protocol and this side {PROTOCOL}",
                fix="Run the same version of NLA Explorer on both machines",
            )
        return _checked(lambda: cls(**{field.name: data[field.name] for field in fields(cls)}))


@dataclass(frozen=True, slots=True)
class Row:
    """One reading to make: a sample at a position. ``norm`` is the raw vector's, for its flags."""

    position: int
    sample: int
    seed: int
    norm: float


@dataclass(frozen=True, slots=True)
class ExplainJob:
    """``vectors`` are ``[row, d_model]`` float32; ``job`` is the name by which rows are dropped."""

    job: str
    pair: PairKey
    rows: tuple[Row, ...]
    vectors: Tensor
    temperature: float
    max_new_tokens: int
    batch_size: int
    score_size: int

    def to_json(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"rows": [asdict(r) for r in self.rows], "vectors": packed(self.vectors)}

    @classmethod
    def from_json(cls, data: Any) -> ExplainJob:
        """Raises NLAError for what is no such job."""

        def read() -> ExplainJob:
            rows = tuple(Row(**row) for row in data["rows"])
            vectors = unpacked(data["vectors"])
            if not 0 < len(rows) <= MAX_ROWS or vectors.shape[:1] != (len(rows),):
                raise ValueError(f"{len(rows)} rows and vectors of shape {tuple(vectors.shape)}")
            if vectors.ndim != 2 or str(vectors.dtype) != "torch.float32":
                raise ValueError(f"vectors are {vectors.dtype} of shape {tuple(vectors.shape)}")
            return cls(
                job=_text(data["job"]),
                pair=_pair(data["pair"]),
                rows=rows,
                vectors=vectors,
                temperature=_between(data["temperature"], 0, 10),
                max_new_tokens=int(_between(data["max_new_tokens"], 1, MAX_TOKENS)),
                batch_size=int(_between(data["batch_size"], 1, MAX_ROWS)),
                score_size=int(_between(data["score_size"], 1, MAX_ROWS)),
            )

        return _checked(read)


@dataclass(frozen=True, slots=True)
class TranscribeJob:
    """Prompts are conversations or plain texts, as in `nla_core.explain.Explainer.transcribe`."""

    job: str
    pair: PairKey
    prompts: tuple[tuple[Message, ...] | str, ...]
    seeds: tuple[int, ...]
    temperature: float
    max_new_tokens: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> TranscribeJob:
        """Raises NLAError for what is no such job."""

        def read() -> TranscribeJob:
            prompts, seeds = data["prompts"], tuple(int(seed) for seed in data["seeds"])
            if not 0 < len(prompts) == len(seeds) <= MAX_ROWS:
                raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds")
            return cls(
                job=_text(data["job"]),
                pair=_pair(data["pair"]),
                prompts=tuple(_prompt(value) for value in prompts),
                seeds=seeds,
                temperature=_between(data["temperature"], 0, 10),
                max_new_tokens=int(_between(data["max_new_tokens"], 0, MAX_TOKENS)),
            )

        return _checked(read)


def packed(values: Tensor) -> str:
    """A tensor as text, bit for bit."""
    from safetensors.torch import save

    return base64.b64encode(save({"values": values.contiguous()})).decode()


def unpacked(text: str) -> Tensor:
    """The reverse. Raises ValueError for anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(base64.b64decode(text, validate=True))["values"]
    except (binascii.Error, SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"no tensor: {type(error).__name__}") from None


def line_of(kind: Kind, **content: Any) -> bytes:
    return json.dumps({"kind": kind, **content}, ensure_ascii=False).encode() + b"\n"


def transcript_json(transcript: Transcript) -> dict[str, Any]:
    return {
        "transcript_id": transcript.transcript_id,
        "messages": list(transcript.messages),
        "tokens": [asdict(token) for token in transcript.tokens],
        "n_answer_tokens": transcript.n_answer_tokens,
        "answer_finish": transcript.answer_finish,
        "hidden": packed(transcript.hidden),
    }


def transcript_of(data: Mapping[str, Any]) -> Transcript:
    tokens = [
        Token(**{**t, "top_tokens": tuple(t["top_tokens"]), "top_probs": tuple(t["top_probs"])})
        for t in data["tokens"]
    ]
    return Transcript(
        **{
            **data,
            "messages": tuple(data["messages"]),
            "tokens": tuple(tokens),
            "hidden": unpacked(data["hidden"]),
        }
    )


def reading_of(data: Mapping[str, Any]) -> Reading:
    return Reading(**{**data, "flags": tuple(data["flags"])})


def error_line(error: BaseException) -> bytes:
    """The last line of a job that ended early."""
    from nla_core.memory import is_out_of_memory

    if isinstance(error, NLAError):
        told = {"what": error.what, "why": error.why, "fix": error.fix}
        return line_of(Kind.ERROR, failing=Failing.REFUSED, **told)
    failing = Failing.MEMORY if is_out_of_memory(error) else Failing.BROKEN
    return line_of(Kind.ERROR, failing=failing, why=_reason(error))


def error_of(data: Mapping[str, Any]) -> Exception:
    """What the line of `error_line` stands for on this side."""
    match data.get("failing"):
        case Failing.REFUSED:
            return NLAError(data["what"], why=data["why"], fix=data["fix"])
        case Failing.MEMORY:
            import torch

            return torch.OutOfMemoryError(f"on the worker: {data['why']}")
    return RuntimeError(f"on the worker: {data.get('why')}")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _checked(read: Callable[[], T]) -> T:
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NLAError(
            "The worker was asked for something it does not understand",
            why=_reason(error),
            fix="Run the same version of NLA Explorer on both machines",
        ) from None


def _prompt(value: Any) -> tuple[Message, ...] | str:
    if isinstance(value, str):
        return text_of(value, "prompts", MAX_REQUEST_BYTES)
    return messages_of(value, may_answer=True)


def _pair(value: Sequence[str]) -> PairKey:
    pair_id, revision = value
    return _text(pair_id), _text(revision)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise ValueError(f"expected a short text, found {str(value)[:60]!r}")
    return value


def _between(value: Any, low: float, high: float) -> float:
    if not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"expected {low} to {high}, found {str(value)[:60]!r}")
    return value
