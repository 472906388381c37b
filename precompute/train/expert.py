"""Expert iteration: sample explanations, keep those that the AR gets back from best, train on them.

Knows how samples become an examples folder that the ordinary supervised runs read. Knows nothing of
gradients: the learning is ``train av`` and ``train ar`` on what this writes. The decision a reader
would question: every sample is kept in chunks on disk and the choice is made afterwards, so that
keeping others (or more) costs seconds, and a killed run loses one chunk at most.
"""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import Tensor

from nla_core.analysis.claims import quotes, stands_in
from nla_core.data.files import write_json
from nla_core.errors import NLAError
from nla_core.metrics import rawvar
from nla_core.models.devices import fitting, pick_device, pick_dtype
from nla_core.models.reconstructor import Reconstructor
from nla_core.models.verbalizer import LocalVerbalizer
from nla_core.schema import Finish
from precompute.output import say
from precompute.progress import duration
from precompute.train.examples import Examples
from precompute.train.halves import Halves, load_reconstructor, load_verbalizer
from precompute.train.record import RECORD as DATA_RECORD
from precompute.train.sampling import Sampling, draw, errors

RECORD = "expert.json"


@dataclass(frozen=True, slots=True)
class Choice:
    """What is kept. ``margin``: by how much the best must beat its group's mean, in FVE as chosen.

    ``keep`` is what the AR's examples hold: the best sample a vector, or all distinct whole ones.
    The AV's are always the best. ``repetition`` is the FVE that a text loses when it is choosing,
    times the share of its words that it has said before: of texts that score alike, the one that
    says more is kept, and an AV that stammers does not teach itself to. ``unfound`` is what it
    loses times the share of its quotations that do not stand in the context.
    """

    keep: Literal["best", "all"] = "best"
    margin: float = 0.0
    repetition: float = 0.3
    unfound: float = 0.2


def expert_iteration(
    halves: Halves,
    data: Path,
    out: Path,
    how: Sampling,
    choice: Choice,
    *,
    split: str = "rl",
    limit: int | None = None,
    batch_size: int = 128,
    device: str = "auto",
    dtype: str = "auto",
    minutes: float = math.inf,
) -> dict[str, Any]:
    """Sample ``data/<split>``, then write ``out/av``, ``out/ar`` and a copy of ``data/val``.

    Goes on where an earlier call stopped; what is sampled so far is written even when ``minutes``
    ran out. Returns the figures that it also writes to ``out/expert.json``. Raises NLAError where
    ``out`` holds samples of other settings or another pair, or nothing usable was sampled.
    """
    examples = Examples.load(data / split)
    total = min(len(examples.rows), limit or len(examples.rows))
    # Neighbours share a document: any part of the split shall hold as many documents as it can.
    order = random.Random(how.seed).sample(range(len(examples.rows)), total)
    settings = asdict(how) | {"split": split, "pair": halves.fingerprint()}
    chunks = list(_chunks(total, _claim(out, settings, max(1, batch_size // how.group))))
    todo = [c for c in chunks if not _chunk_file(out, c).is_file()]
    if todo:
        where = pick_device(device)
        kind = pick_dtype(where, dtype)
        verbalizer = load_verbalizer(halves, device=where, dtype=kind)
        reconstructor = load_reconstructor(halves, device=where, dtype=kind)
        began, drawn = time.monotonic(), 0
        for done, chunk in enumerate(todo, 1):
            sample = partial(
                _sample,
                verbalizer,
                reconstructor,
                examples.hidden,
                order[chunk.start : chunk.stop],
                how,
            )
            table, batch_size = fitting(sample, batch_size)
            _write_table(table, _chunk_file(out, chunk))
            spent = time.monotonic() - began
            drawn += len(table)
            left = duration(spent / done * (len(todo) - done))
            say(
                f"{min(chunk.stop, total)}/{total} vectors, {drawn / spent:.1f} samples/s, "
                f"mean mse_nrm {table['mse_nrm'].mean():.3f}, {left} left"
            )
            if spent > minutes * 60:
                break
    return _assemble(examples, _read(out, chunks), data, out, choice)


def _sample(
    verbalizer: LocalVerbalizer,
    reconstructor: Reconstructor,
    hidden: Tensor,
    rows: Sequence[int],
    how: Sampling,
    batch_size: int,
) -> pd.DataFrame:
    """One line a sample: where it belongs, its text and how it ended, its mse_nrm."""
    samples = draw(verbalizer, hidden, rows, how, batch_size=batch_size)
    table = pd.DataFrame([asdict(s) for s in samples])
    table["n_tokens"] = table.pop("token_ids").map(len)
    table["mse_nrm"] = errors(reconstructor, hidden, samples, batch_size=batch_size).numpy()
    return table


def select(samples: pd.DataFrame, choice: Choice, denominator: float) -> pd.DataFrame:
    """The best sample a vector, in the order of vectors: closed, not empty, beyond the margin.

    ``samples`` has columns row, sample, text, context, finish, mse_nrm. What counts is FVE less
    the prices of repetition and of quotations that are made up; the mean of a group is that of its
    usable samples.
    """
    usable = _usable(samples)
    said_again = usable["text"].map(repetition)
    made_up = [unfound(t, c) for t, c in zip(usable["text"], usable["context"], strict=True)]
    prices = choice.repetition * said_again + choice.unfound * np.array(made_up)
    usable = usable.assign(cost=usable["mse_nrm"] / denominator + prices)
    usable["gain"] = usable.groupby("row")["cost"].transform("mean") - usable["cost"]
    best = usable.sort_values(["row", "cost", "sample"]).drop_duplicates("row")
    return best[best["gain"] >= choice.margin].reset_index(drop=True)


def repetition(text: str) -> float:
    """Share of a text's words that stood in it before, 0 for a text without words."""
    words = re.findall(r"\w+", text.lower())
    return 1.0 - len(set(words)) / len(words) if words else 0.0


def unfound(text: str, context: str) -> float:
    """Share of a text's quotations that do not stand in the context, 0 for a text without any."""
    found = [stands_in(quote, context) for quote in quotes(text)]
    return 1.0 - sum(found) / len(found) if found else 0.0


def _unfound(samples: pd.DataFrame) -> float:
    return math.fsum(map(unfound, samples["text"], samples["context"])) / max(1, len(samples))


def _usable(samples: pd.DataFrame) -> pd.DataFrame:
    return samples[(samples["finish"] == Finish.CLOSED) & (samples["text"] != "")]


def _assemble(
    examples: Examples,
    samples: pd.DataFrame,
    data: Path,
    out: Path,
    choice: Choice,
) -> dict[str, Any]:
    denominator = rawvar(examples.hidden)
    samples = samples.assign(context=examples.rows["context"].iloc[samples["row"]].to_list())
    usable, best = _usable(samples), select(samples, choice, denominator)
    if best.empty:
        raise NLAError(
            "No sample is worth keeping",
            why=f"{len(usable)} of {len(samples)} samples are whole; none passes the margin",
            fix="Lower --margin, raise --explanation-tokens, or train the AV further first",
        )
    distinct = usable.drop_duplicates(["row", "text"])
    _labelled(examples, best).save(out / "av")
    _labelled(examples, distinct if choice.keep == "all" else best).save(out / "ar")
    shutil.copytree(data / "val", out / "val", dirs_exist_ok=True)
    shutil.copyfile(data / DATA_RECORD, out / DATA_RECORD)
    figures = {
        "vectors": int(samples["row"].nunique()),
        "samples": len(samples),
        "cut_rate": float((samples["finish"] != Finish.CLOSED).mean()),
        "duplicates_in_groups": 1.0 - len(distinct) / max(1, len(usable)),
        "fve_samples": 1.0 - float(samples["mse_nrm"].mean()) / denominator,
        "fve_best": 1.0 - float(best["mse_nrm"].mean()) / denominator,
        "unfound_samples": _unfound(usable),
        "unfound_best": _unfound(best),
        "rawvar": denominator,
        "kept_av": len(best),
        "kept_ar": len(distinct) if choice.keep == "all" else len(best),
    }
    record = json.loads((out / RECORD).read_text())
    write_json(out / RECORD, record | {"choice": asdict(choice), "figures": figures})
    return figures


def _labelled(examples: Examples, chosen: pd.DataFrame) -> Examples:
    """Examples whose label is the chosen text; the teacher's label is kept beside it."""
    places = chosen["row"].tolist()
    rows = examples.rows.iloc[places].reset_index(drop=True)
    if "teacher_label" not in rows:
        rows["teacher_label"] = rows["label"]
    for name, column in (("label", "text"), ("mse_nrm", "mse_nrm"), ("sample", "sample")):
        rows[name] = chosen[column].tolist()
    return Examples(rows, examples.hidden[places])


def _chunks(total: int, size: int) -> Iterator[range]:
    for start in range(0, total, size):
        yield range(start, min(start + size, total))


def _chunk_file(out: Path, chunk: range) -> Path:
    return out / "chunks" / f"{chunk.start:07d}-{chunk.stop:07d}.parquet"


def _read(out: Path, chunks: list[range]) -> pd.DataFrame:
    found = [_chunk_file(out, chunk) for chunk in chunks]
    return pd.concat([pd.read_parquet(f) for f in found if f.is_file()], ignore_index=True)


def _write_table(table: pd.DataFrame, path: Path) -> None:
    """Whole or not at all."""
    staging = path.with_name(f".tmp-{path.name}")
    table.to_parquet(staging)
    staging.replace(path)


def _claim(out: Path, settings: dict[str, Any], chunk: int) -> int:
    """Make ``out`` this run's folder, or see that it already is; vectors a chunk, as first set."""
    (out / "chunks").mkdir(parents=True, exist_ok=True)
    record = out / RECORD
    if not record.is_file():
        write_json(record, {"settings": settings, "chunk_vectors": chunk})
        return chunk
    found = json.loads(record.read_text())
    differ = sorted(k for k in settings if found["settings"].get(k) != settings[k])
    if differ:
        raise NLAError(
            f"{out} holds samples of another run",
            why=f"It differs in {', '.join(differ)}: {[found['settings'].get(k) for k in differ]}",
            fix="Use the same settings and pair, or another --out",
        )
    return int(found["chunk_vectors"])


def describe(figures: dict[str, Any]) -> str:
    """The figures in one sentence."""
    return (
        f"{figures['vectors']} vectors, {figures['samples']} samples: "
        f"FVE {figures['fve_samples']:.3f} on average, {figures['fve_best']:.3f} of those kept "
        f"({figures['kept_av']} for the AV, {figures['kept_ar']} for the AR); "
        f"{figures['cut_rate']:.1%} cut"
    )
