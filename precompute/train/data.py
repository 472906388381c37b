"""``train data``: text in, examples out: the target's vectors with their labels, in split files.

Knows which splits are built and how many windows each gets. Knows nothing of training. The
decision a reader would question: everything is prepared once and kept, because labels and vectors
cost as much as a tenth of the training that reads them again and again.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nla_core.nla.target import Target
from precompute.train.corpus import SPLITS, load_documents, split_of, windows
from precompute.train.examples import build_examples
from precompute.train.labels import Idf


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


def prepare(corpus: Path, target: Target, out: Path, settings: DataSettings) -> dict[str, int]:
    """Write ``out/<split>.parquet|.safetensors`` for every split with windows; returns counts."""
    documents = load_documents(corpus)
    idf = Idf.fit(d.text for d in documents)
    out.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for number, split in enumerate(SPLITS):
        wanted = getattr(settings, f"{split}_windows")
        if not wanted:
            continue
        cut = windows(
            [d for d in documents if split_of(d.doc_id) == split],
            target.tokenizer,
            count=wanted,
            max_tokens=settings.max_tokens,
            seed=settings.seed + number,
        )
        start = time.monotonic()

        def report(done: int, total: int, split: str = split, start: float = start) -> None:
            rate = done / (time.monotonic() - start)
            sys.stderr.write(f"{split}: {done}/{total} windows, {rate:.1f}/s\n")

        examples = build_examples(
            target, cut, idf, per_window=settings.per_window, seed=settings.seed, progress=report
        )
        examples.save(out / split)
        counts[split] = len(examples.rows)
    (out / "data.json").write_text(json.dumps({**asdict(settings), "counts": counts}, indent=1))
    return counts
