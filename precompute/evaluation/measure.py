"""All figures of a pair on its recorded test set, in one JSON-able dict.

Knows which figures there are, what each is called and what it needs. Knows nothing of how texts
were made or how figures are shown. The decision a reader would question: a figure that cannot be
measured is absent, and ``left_out`` says why; it is never zero, and documents cannot quote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from nla_core import metrics
from nla_core.analysis.claims import split
from nla_core.models.pair import Pair, Reference
from nla_core.models.reconstructor import Reconstructor
from nla_core.models.verbalizer import Verbalization
from nla_core.schema import Finish
from precompute.evaluation import fidelity
from precompute.evaluation.controls import control_lanes, others
from precompute.evaluation.texts import (
    NextWords,
    Quotations,
    distinct,
    duplicate_rate,
    quote_found,
)
from precompute.testset import TestSet
from precompute.train.labels import label_parts

RECORD_AGAIN = "the recorded test set is of an older version; record it again with `testset`"


@dataclass(frozen=True, slots=True)
class Measured:
    """``figures`` as in eval.json; ``readings`` has a row an item, for calibration."""

    figures: dict[str, Any]
    readings: pd.DataFrame


def evaluate(
    pair: Pair,
    tests: TestSet,
    texts: Sequence[Verbalization],
    reconstructor: Reconstructor,
    second: Reconstructor | None = None,
) -> Measured:
    """All figures of ``texts`` (one a test vector, in order); rebuilt vectors against true ones."""
    reference, true = pair.reference, tests.hidden
    written = [t.text for t in texts]
    labels = tests.rows["label"].tolist()
    documents = tests.rows["prompt_id"].tolist()
    rebuilt, gold = reconstructor.reconstruct(written), reconstructor.reconstruct(labels)
    errors = {"fve": metrics.mse_nrm(rebuilt, true), "fve_gold": metrics.mse_nrm(gold, true)}
    left_out: dict[str, str] = {}
    figures: dict[str, Any] = {
        "pair_id": pair.pair_id,
        "revision": pair.revision,
        "target": _name_of(pair.target),
        "layer": pair.layer,
        "n": len(true),
        "documents": len(set(documents)),
        "rawvar": reference.rawvar,
        "reference_n": reference.n,
        **_fidelity(rebuilt, errors, tests, reference, left_out),
        **_tail(errors, tests, reference, left_out),
        **_texts(texts, tests, left_out),
    }
    figures["controls"] = {
        name: _fve(reconstructor.reconstruct(lane), true, reference)
        for name, lane in (control_lanes(written, documents) | _parts(written)).items()
    }
    figures["shuffled"] = figures["controls"]["another_explanation"]
    figures["empty"] = figures["controls"]["empty"]
    if second is None:
        left_out["second_ar_fve"] = "no second AR was given (`--second-ar`)"
    else:
        figures |= _second(figures, second, written, labels, true, reference)
    figures["left_out"] = left_out
    return Measured(figures, _readings(texts, tests, reference, rebuilt, errors))


def _parts(written: Sequence[str]) -> dict[str, list[str]]:
    """Lanes of texts in natural language: the note alone, and the running text alone.

    Empty where fewer than half of the texts are of that form.
    """
    if sum(split(text).form == "note" for text in written) * 2 < len(written):
        return {}
    parts = [label_parts(text) for text in written]
    return {
        "note_alone": [p.note for p in parts],
        "text_alone": [f"Text: {p.text}" for p in parts],
    }


def _name_of(target: str) -> str:
    """The target without the folders of this machine."""
    path = Path(target)
    return path.name if path.is_absolute() else target


def _fve(predicted: Tensor, true: Tensor, reference: Reference) -> float:
    return fidelity.fve_of(metrics.mse_nrm(predicted, true), reference.rawvar)


def _fidelity(
    rebuilt: Tensor,
    errors: dict[str, Tensor],
    tests: TestSet,
    reference: Reference,
    left_out: dict[str, str],
) -> dict[str, Any]:
    true, rows = tests.hidden, tests.rows
    documents = rows["prompt_id"].tolist()
    ranks = metrics.rank_of_own(rebuilt, true, reference.mean)
    among = fidelity.rank_among(rebuilt, true, reference.mean)
    same = fidelity.rank_same_document(rebuilt, true, reference.mean, documents)
    result: dict[str, Any] = {
        name: fidelity.fve_of(values, reference.rawvar) for name, values in errors.items()
    }
    result |= {
        f"{name}_ci": fidelity.interval(values, documents, reference.rawvar)
        for name, values in errors.items()
    }
    result |= {
        "mse_nrm": float(errors["fve"].mean()),
        "centred_cosine": float(metrics.centred_cosine(rebuilt, true, reference.mean).mean()),
        "rank_at_1": float((ranks == 0).float().mean()),
        "rank_median": int(ranks.median()) + 1,
        "mean": _fve(reference.mean.expand_as(true), true, reference),
        "bank_n": tests.bank_n,
        "by_position": fidelity.by_position(rows["position"].tolist(), errors, reference.rawvar),
        "by_category": fidelity.by_group(rows["category"].tolist(), errors, reference.rawvar),
        "histogram": fidelity.histogram(metrics.fve(errors["fve"], reference.rawvar)),
    }
    if among:
        result |= {"rank_at_1_500": among["at_1"], "rank_median_500": among["median"]}
    else:
        left_out["rank_at_1_500"] = f"it needs {fidelity.RANK_AMONG} vectors, there are {len(true)}"
    if same:
        result |= {
            "rank_same_document": same["at_1"],
            "rank_same_document_chance": same["chance"],
        }
    else:
        left_out["rank_same_document"] = "no document has two vectors"
    if "role" in rows:
        result["by_role"] = fidelity.by_group(rows["role"].tolist(), errors, reference.rawvar)
    else:
        left_out["by_role"] = RECORD_AGAIN
    for name in ("last_token", "nearest_1", "nearest_8"):
        if name in tests.floors:
            result[name] = fidelity.fve_of(tests.floors[name], reference.rawvar)
        else:
            left_out[name] = RECORD_AGAIN if tests.bank_n else "recorded without a bank (`--bank`)"
    return result


def _tail(
    errors: dict[str, Tensor], tests: TestSet, reference: Reference, left_out: dict[str, str]
) -> dict[str, Any]:
    if not tests.tails:
        left_out["tail_k"] = left_out["worth_k_tokens"] = RECORD_AGAIN
        return {}
    curve = {k: fidelity.fve_of(e, reference.rawvar) for k, e in sorted(tests.tails.items())}
    nothing = _fve(reference.mean.expand_as(tests.hidden), tests.hidden, reference)
    worth = {
        name: fidelity.worth_k_tokens(fidelity.fve_of(values, reference.rawvar), curve, nothing)
        for name, values in errors.items()
    }
    return {
        "tail_k": {str(k): value for k, value in curve.items()},
        "worth_k_tokens": worth["fve"],
        "worth_k_tokens_gold": worth["fve_gold"],
    }


def _texts(
    texts: Sequence[Verbalization], tests: TestSet, left_out: dict[str, str]
) -> dict[str, Any]:
    rows = tests.rows
    written, contexts = [t.text for t in texts], rows["context"].tolist()
    elsewhere = [written[i] for i in others(rows["prompt_id"].tolist())]
    result: dict[str, Any] = {
        "cut_rate": sum(t.finish is Finish.CUT for t in texts) / len(texts),
        "distinct_3": distinct([text.split() for text in written], 3),
        "duplicate_rate": duplicate_rate(written),
        "mean_tokens": sum(t.n_tokens for t in texts) / len(texts),
        "mean_characters": sum(map(len, written)) / len(texts),
    }
    top, came = [list(tokens) for tokens in rows["top_tokens"]], _came(rows)
    optional: dict[str, float | None] = {}
    for suffix, some in (
        ("", written),
        ("_gold", rows["label"].tolist()),
        ("_another", elsewhere),
    ):
        found, words = Quotations.of(some, contexts), NextWords.of(some, top, came)
        if not suffix:
            result |= {"quotes_n": found.long_total, "quotes_all_n": found.total}
        result[f"next_named{suffix}"] = words.named
        optional |= {
            f"quote_precision{suffix}": found.precision,
            f"quote_precision_all{suffix}": found.precision_all,
            f"next_hit_top1{suffix}": words.top_1,
            f"next_hit_top5{suffix}": words.top_5,
            f"next_hit_real{suffix}": words.real,
        }
    for name, value in optional.items():
        if value is not None:
            result[name] = value
        elif name.startswith("next_hit_real") and came is None:
            left_out[name] = RECORD_AGAIN
        else:
            left_out[name] = "no text holds anything of the kind"
    return result


def _came(rows: pd.DataFrame) -> list[str | None] | None:
    if "next_token" not in rows:
        return None
    return [token if isinstance(token, str) else None for token in rows["next_token"]]


def _second(
    figures: dict[str, Any],
    second: Reconstructor,
    written: Sequence[str],
    labels: Sequence[str],
    true: Tensor,
    reference: Reference,
) -> dict[str, float]:
    fve = _fve(second.reconstruct(written), true, reference)
    gold = _fve(second.reconstruct(labels), true, reference)
    return {
        "second_ar_fve": fve,
        "second_ar_difference": figures["fve"] - fve,
        "second_ar_fve_gold": gold,
        "second_ar_difference_gold": figures["fve_gold"] - gold,
    }


def _readings(
    texts: Sequence[Verbalization],
    tests: TestSet,
    reference: Reference,
    rebuilt: Tensor,
    errors: dict[str, Tensor],
) -> pd.DataFrame:
    rows, true = tests.rows, tests.hidden
    norms = true.norm(dim=-1)
    contexts, top, came = rows["context"].tolist(), rows["top_tokens"].tolist(), _came(rows)
    words = [
        NextWords.of([t.text], [list(top[i])], [came[i]] if came else None)
        for i, t in enumerate(texts)
    ]
    frame = pd.DataFrame(
        {
            "prompt_id": rows["prompt_id"].tolist(),
            "category": rows["category"].tolist(),
            "position": rows["position"].tolist(),
            "explanation": [t.text for t in texts],
            "finish": [str(t.finish) for t in texts],
            "n_tokens": [t.n_tokens for t in texts],
            "n_characters": [len(t.text) for t in texts],
            "mse_nrm": errors["fve"].tolist(),
            "fve": metrics.fve(errors["fve"], reference.rawvar).tolist(),
            "fve_gold": metrics.fve(errors["fve_gold"], reference.rawvar).tolist(),
            "centred_cosine": metrics.centred_cosine(rebuilt, true, reference.mean).tolist(),
            "rank": (metrics.rank_of_own(rebuilt, true, reference.mean) + 1).tolist(),
            "norm": norms.tolist(),
            "norm_pct": reference.norm_percentile(norms).tolist(),
            # Null where the text quotes, or names, nothing.
            "quotes_found": pd.array(
                [quote_found(t.text, c) for t, c in zip(texts, contexts, strict=True)],
                dtype="boolean",
            ),
            "next_hit_top1": pd.array(
                [None if w.top_1 is None else bool(w.top_1) for w in words], dtype="boolean"
            ),
            "next_hit_real": pd.array(
                [None if w.real is None else bool(w.real) for w in words], dtype="boolean"
            ),
        }
    )
    if "role" in rows:
        frame.insert(3, "role", rows["role"].tolist())
    return frame
