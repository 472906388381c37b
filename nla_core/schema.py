"""What a published dataset holds: tables, closed sets, manifest. Shared by writers and readers.

Knows column names, types and meanings. Does not know how rows are computed, stored or shown. The
decision a reader would question: types are declared once as Arrow schemas, and DuckDB reads them
from Parquet, so that no second declaration can drift from the first.
"""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa

SCHEMA_VERSION = 1

EARLY_POSITIONS = 20
"""Positions below this are out of the AV's training distribution and are flagged ``early``."""

HIGH_NORM_FACTOR = 3.0
"""Norms above this multiple of the reference median mark attention-sink tokens."""

LOW_FIDELITY_FVE = 0.0
"""Readings below this FVE say less about the vector than its average over all texts does."""


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Section(StrEnum):
    """Where a token comes from: the conversation itself, or the markup the chat template adds."""

    CONTENT = "content"
    TEMPLATE = "template"


class Finish(StrEnum):
    """How an explanation ended: the AV closed its tag, or the length limit cut it."""

    CLOSED = "closed"
    CUT = "cut"


class Flag(StrEnum):
    EARLY = "early"
    HIGH_NORM = "high_norm"
    CUT = "cut"
    LOW_FIDELITY = "low_fidelity"


DISTRUSTED = frozenset({Flag.EARLY, Flag.HIGH_NORM, Flag.LOW_FIDELITY})
"""Readings with one of these are left out of rankings unless they are asked for."""


class Status(StrEnum):
    OK = "ok"
    ERROR = "error"


FLAG_TEXT: dict[Flag, str] = {
    Flag.EARLY: (
        f"One of the first {EARLY_POSITIONS} positions: the model has read too little, and "
        "readings here are fluent but often invented."
    ),
    Flag.HIGH_NORM: (
        "An attention-sink token: its vector is several times longer than usual and carries "
        "bookkeeping of the model more than meaning."
    ),
    Flag.CUT: "The text reached its length limit before the verbalizer closed it.",
    Flag.LOW_FIDELITY: (
        "Low fidelity: the vector rebuilt from this text is further from the real one than the "
        "average vector is. Do not rely on the text."
    ),
}

TRANSCRIPTS = pa.schema(
    [
        pa.field("transcript_id", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("tags", pa.list_(pa.string()), nullable=False),
        pa.field("messages", pa.string(), nullable=False),  # JSON [{role, content}], answer last
        pa.field("status", pa.string(), nullable=False),  # Status
        pa.field("error", pa.string()),  # one paragraph when status = error
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("n_answer_tokens", pa.int32(), nullable=False),
        pa.field("answer_finish", pa.string(), nullable=False),  # "stop" | "length" | "none"
        pa.field("n_readings", pa.int32(), nullable=False),
        pa.field("mean_fve", pa.float32()),
        pa.field("flagged_share", pa.float32()),  # share of readings with any flag
        pa.field("seed", pa.int64(), nullable=False),
    ]
)

TOKENS = pa.schema(
    [
        pa.field("transcript_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("token_id", pa.int32(), nullable=False),
        # Tokens that share a chip are bytes of one character; the chip's text stands at its
        # first token, the others hold "". Joining all texts gives the transcript back.
        pa.field("chip", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),  # Role
        pa.field("section", pa.string(), nullable=False),  # Section
        pa.field("turn", pa.int32(), nullable=False),  # index of the message, 0-based
        # L2 of h after block K; 0 where h cannot be read, since it holds NaN or infinite values.
        pa.field("norm", pa.float32(), nullable=False),
        pa.field("norm_pct", pa.float32(), nullable=False),  # 0-100 in the pair's reference set
        pa.field("surprisal", pa.float32()),  # nats, of this token given those before; null at 0
        pa.field("top_tokens", pa.list_(pa.string()), nullable=False),  # next-token predictions
        pa.field("top_probs", pa.list_(pa.float32()), nullable=False),
    ]
)

READINGS = pa.schema(
    [
        pa.field("reading_id", pa.string(), nullable=False),
        pa.field("transcript_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("explanation", pa.string(), nullable=False),
        pa.field("finish", pa.string(), nullable=False),  # Finish
        pa.field("n_tokens", pa.int32(), nullable=False),  # length of the explanation
        pa.field("mse_nrm", pa.float32(), nullable=False),  # [0, 4]
        pa.field("cosine", pa.float32(), nullable=False),
        pa.field("centred_cosine", pa.float32(), nullable=False),
        pa.field("fve", pa.float32(), nullable=False),  # 1 - mse_nrm / rawvar of the pair
        pa.field("flags", pa.list_(pa.string()), nullable=False),  # Flag
        pa.field("seed", pa.int64(), nullable=False),
    ]
)

TABLES: dict[str, pa.Schema] = {
    "transcripts": TRANSCRIPTS,
    "tokens": TOKENS,
    "readings": READINGS,
}

SORT_KEYS: dict[str, list[str]] = {
    "transcripts": ["transcript_id"],
    "tokens": ["transcript_id", "position"],
    "readings": ["transcript_id", "position", "sample"],
}
"""Row order inside the Parquet files; vectors/explanations.f16.npy follows that of readings."""
