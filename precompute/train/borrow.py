"""Notes for texts that nobody annotated: the written note that agrees best with each vector.

A linear map from the vector to the embedding of its note (``evaluation.notes.NoteMap``) finds a
note of another text that says much the same. Labels chosen so are consistent: like vectors get like
notes, which is what an AV with few written notes lacks. Details of a borrowed note belong to the
other text, so only the share that agrees best is kept.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from nla_core.data.files import write_json
from nla_core.embed import Embedder
from nla_core.errors import NLAError
from precompute.evaluation.notes import load_map
from precompute.train.examples import Examples
from precompute.train.labels import label_parts
from precompute.train.record import RECORD

BORROWED = "borrowed"


def borrow_notes(
    annotated: Path, fresh: Path, out: Path, *, split: str, share: float, embedder: Embedder
) -> dict[str, Any]:
    """Write ``out/notes``: the annotated examples and the best ``share`` of the borrowed ones.

    ``fresh`` is data of ``train data`` on plain text; its labels give next tokens and running text.
    Returns the counts and the agreement (cosine) of the worst that is kept. Raises NLAError for
    a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise NLAError(
            f"--share {share} makes no sense",
            why="It is the part of the borrowed notes that is kept",
            fix="Give a number above 0 and up to 1",
        )
    fitted = load_map(annotated, embedder)
    written, plain = Examples.load(annotated / "notes"), Examples.load(fresh / split)
    notes, agreement = fitted.best_written(plain.hidden)
    kept = agreement.argsort(descending=True)[: max(1, int(share * len(notes)))].sort().values
    rows = plain.rows.iloc[kept.tolist()].reset_index(drop=True)
    rows["label"] = [
        _relabelled(notes[i], label) for i, label in zip(kept.tolist(), rows["label"], strict=True)
    ]
    rows["labelled_by"] = BORROWED
    both = pd.concat([written.rows, rows], ignore_index=True)
    hidden = torch.cat([written.hidden, plain.hidden[kept].to(written.hidden.dtype)])
    Examples(both, hidden).save(out / "notes")
    shutil.copytree(annotated / "val", out / "val", dirs_exist_ok=True)
    shutil.copyfile(annotated / RECORD, out / RECORD)
    figures = {
        "annotated": len(written.rows),
        "borrowed": len(rows),
        "least_agreement": float(agreement[kept].min()),
    }
    write_json(out / "borrowed.json", figures | {"share": share})
    return figures


def _relabelled(note: str, label: str) -> str:
    """``note`` with the next tokens and the running text of a structured label."""
    parts = label_parts(label)
    following = parts.following.split(". About: ")[0]
    fields = [note, f"Next: {following}." if following else "", f"Text: {parts.text}"]
    return " ".join(field for field in fields if field)
