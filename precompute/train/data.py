"""``train data``: text in, examples out: the target's vectors with their labels, in split folders.

Knows which splits are built, how many windows each gets, and what is done already. Knows nothing of
training. The decision a reader would question: the RL split is always labelled without a language
model; reinforcement reads no labels, so nobody should pay for them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nla_core.data.files import explained, sha256_json
from nla_core.errors import NLAError
from nla_core.models.checkpoints import Resolved
from nla_core.models.target import Target
from precompute.output import say
from precompute.train import notes, record
from precompute.train.choose_teacher import make_teacher
from precompute.train.corpus import SPLITS, Document, Window, split_of, windows
from precompute.train.examples import build_examples, labelable
from precompute.train.labels import Idf
from precompute.train.notes import AnnotatedDocument
from precompute.train.parts import drop_parts_from, part_is_done, read_rows, write_part
from precompute.train.sources import digest_of
from precompute.train.teachers import (
    StructuredTeacher,
    Teacher,
    TeacherSettings,
)

CHUNK_WINDOWS = 64
LEDGER = "answers.jsonl"
UNLABELLED = frozenset({"rl"})


@dataclass(frozen=True, slots=True)
class DataSettings:
    """How many windows a split gets, how long they are, and how many positions each gives."""

    ar_windows: int = 450
    av_windows: int = 1000
    rl_windows: int = 300
    val_windows: int = 60
    max_tokens: int = 256
    per_window: int = 16
    seed: int = 0

    def wanted(self) -> dict[str, int]:
        """Windows a split."""
        return {name: getattr(self, f"{name}_windows") for name in SPLITS}


@dataclass(frozen=True, slots=True)
class Chunk:
    """What becomes one part: a pure function of its windows and the configuration."""

    split: str
    index: int
    windows: tuple[Window, ...]

    def key(self, config: dict[str, Any]) -> dict[str, str]:
        ids = hashlib.sha256(repr([w.ids for w in self.windows]).encode()).hexdigest()
        return {"config": sha256_json(config), "windows": ids}


def prepare(
    documents: Sequence[Document] | Sequence[AnnotatedDocument],
    base: Resolved,
    target: Target,
    out: Path,
    settings: DataSettings,
    *,
    teacher: TeacherSettings | None = None,
    confirm: Callable[[str], None] = lambda _: None,
    told: Callable[[str, int], None] = lambda split, index: None,
) -> dict[str, int]:
    """Write ``out/<split>/part-*`` for every split with windows, and ``out/data.json``.

    Parts that are there already are kept, so a killed run goes on where it was, with the same
    bytes in the end. ``confirm`` is asked with the teacher's forecast and raises to stop; ``told``
    hears of every part written. Returns examples a split. Raises NLAError for data of another
    configuration in ``out``, and where another process is writing there.
    """
    idf = Idf.fit(d.text for d in documents if isinstance(d, Document))
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            writer = make_teacher(teacher or TeacherSettings(), idf, out / LEDGER)
            config = _config(documents, base, target, settings, writer)
            record.begin(out, config)
            chunks = _chunks(documents, target, settings)
            todo = _unfinished(chunks, out, config)
            paid = [chunk for chunk in todo if chunk.split not in UNLABELLED]
            if forecast := writer.forecast(_prefix_lengths(paid, settings.per_window)):
                confirm(forecast)
            began = time.monotonic()
            for done, chunk in enumerate(todo, 1):
                by = StructuredTeacher(idf) if chunk.split in UNLABELLED else writer
                _write(chunk, target, by, out, settings, config)
                told(chunk.split, chunk.index)
                rate = sum(len(c.windows) for c in todo[:done]) / (time.monotonic() - began)
                of = len(chunks[chunk.split])
                say(f"{chunk.split}: part {chunk.index + 1} of {of}, {rate:.1f} windows/s")
            results = _results(chunks, out)
            record.finish(out, config, results)
    except Timeout:
        raise NLAError(
            f"Another process is writing training data to {out}",
            why=f"it holds {out / '.lock'}",
            fix="Wait for it, or choose another --out",
        ) from None
    if used := writer.report():
        say(used)
    for split, by_name in results["labelled_by"].items():
        replaced = sum(by_name.values()) - by_name.get(writer.name, 0)
        if replaced and split not in UNLABELLED:
            say(
                f"{split}: {replaced} of {sum(by_name.values())} answers of the {writer.name} "
                "teacher were unusable, and structured labels stand in for them"
            )
    return dict(results["counts"])


def _config(
    documents: Sequence[Document] | Sequence[AnnotatedDocument],
    base: Resolved,
    target: Target,
    settings: DataSettings,
    teacher: Teacher,
) -> dict[str, Any]:
    """All that the examples follow from."""
    return {
        "target": {"spec": base.spec, "sha256": record.target_sha256(base)},
        "layer": target.layer,
        "d_model": target.parts.d_model,
        "compute_dtype": str(target.parts.dtype).removeprefix("torch."),
        "corpus": {"documents": len(documents), "sha256": _digest(documents)},
        "settings": asdict(settings),
        "teacher": teacher.config(),
    }


def _digest(documents: Sequence[Document] | Sequence[AnnotatedDocument]) -> str:
    annotated = [d for d in documents if isinstance(d, AnnotatedDocument)]
    plain = [d for d in documents if isinstance(d, Document)]
    return notes.digest_of(annotated) if annotated else digest_of(plain)


def _chunks(
    documents: Sequence[Document] | Sequence[AnnotatedDocument],
    target: Target,
    settings: DataSettings,
) -> dict[str, list[Chunk]]:
    """The windows of each split, cut and gathered; NLAError where no document is long enough."""
    annotated = [d for d in documents if isinstance(d, AnnotatedDocument)]
    documents = [d for d in documents if isinstance(d, Document)]
    if annotated:
        by_split = {
            split: [one for one in annotated if notes.split_of(one.doc_id) == split]
            for split in notes.SPLITS
        }
        if not all(by_split.values()):
            raise NLAError(
                "The annotated corpus is too small for its splits",
                why=", ".join(f"{split} got {len(got)} texts" for split, got in by_split.items()),
                fix="Give at least a few dozen texts",
            )
        return {
            split: _gathered(
                split,
                [notes.window_of(one, target.tokenizer, settings.max_tokens) for one in got],
            )
            for split, got in by_split.items()
        }
    chunks: dict[str, list[Chunk]] = {}
    for number, (split, wanted) in enumerate(settings.wanted().items()):
        if not wanted:
            continue
        cut = windows(
            [d for d in documents if split_of(d.doc_id) == split],
            target.tokenizer,
            count=wanted,
            max_tokens=settings.max_tokens,
            seed=settings.seed + number,
        )
        if len(cut) < wanted:
            say(f"{split}: only {len(cut)} of {wanted} windows; many documents are too short")
        if not cut:
            raise NLAError(
                f"No window could be cut for the split '{split}'",
                why="All of its documents are too short",
                fix="Give longer documents",
            )
        chunks[split] = _gathered(split, cut)
    return chunks


def _gathered(split: str, cut: Sequence[Window]) -> list[Chunk]:
    starts = range(0, len(cut), CHUNK_WINDOWS)
    return [
        Chunk(split, index, tuple(cut[start : start + CHUNK_WINDOWS]))
        for index, start in enumerate(starts)
    ]


def _unfinished(chunks: dict[str, list[Chunk]], out: Path, config: dict[str, Any]) -> list[Chunk]:
    """The chunks whose parts are missing or damaged; parts of no chunk are removed."""
    for split, of_split in chunks.items():
        drop_parts_from(out / split, len(of_split))
    every = [chunk for of_split in chunks.values() for chunk in of_split]
    todo = [c for c in every if not part_is_done(out / c.split, c.index, c.key(config))]
    if len(todo) < len(every):
        say(f"{len(every) - len(todo)} of {len(every)} parts are there already")
    return todo


def _write(
    chunk: Chunk,
    target: Target,
    teacher: Teacher,
    out: Path,
    settings: DataSettings,
    config: dict[str, Any],
) -> None:
    examples = build_examples(
        target,
        chunk.windows,
        teacher,
        per_window=settings.per_window,
        seed=f"{settings.seed}/{chunk.split}/{chunk.index}",
    )
    write_part(out / chunk.split, chunk.index, examples.rows, examples.hidden, chunk.key(config))


def _results(chunks: dict[str, list[Chunk]], out: Path) -> dict[str, Any]:
    """What data.json says of the outcome; the same for a run that was interrupted."""
    rows = {split: read_rows(out / split) for split in chunks}
    for split, frame in rows.items():
        if frame.empty:
            raise NLAError(
                f"The split '{split}' has no example",
                why="No position of its windows is usable",
                fix="Give longer documents of plain text",
            )
    return {
        "counts": {split: len(frame) for split, frame in rows.items()},
        "windows": {
            split: sum(len(c.windows) for c in of_split) for split, of_split in chunks.items()
        },
        "labelled_by": {
            split: frame["labelled_by"].value_counts().to_dict() for split, frame in rows.items()
        },
    }


def _prefix_lengths(chunks: Sequence[Chunk], per_window: int) -> list[int]:
    """Characters before the positions to be labelled, about: half of each window's text."""
    lengths: list[int] = []
    for chunk in chunks:
        for window in chunk.windows:
            half = sum(len(p.text) for p in window.pieces) // 2
            open_end = window.wants_answer  # the answer, not written yet, has enough of them
            n = per_window if open_end else min(per_window, len(labelable(window)))
            lengths += [half] * n
    return lengths
