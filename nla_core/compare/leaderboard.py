"""The claims that recur and are never spoken, over a corpus: deduplicated, counted, with examples.

Knows rows of claims with their standing and key. Does not know files or pages. The decision a
reader would question: a claim that recurs in many transcripts ranks no higher for it, but shows how
many they are. A verbalizer has habits (a name it always invents), and a claim found in every
second transcript says more about the verbalizer than about the model it reads.
"""

from __future__ import annotations

import pandas as pd

from nla_core.compare.recurrence import RECURRING

COLUMNS = [
    "key", "kind", "standing", "category", "trusted", "n_readings", "n_recurring", "n_transcripts",
    "best_recurrence", "text", "transcript_id", "position", "sample", "start", "end",
]  # fmt: skip
"""``n_recurring`` counts readings whose neighbours make the same claim, ``best_recurrence`` the
most neighbours that do; the last five are the reading where that is, an example to link to."""

RANKED = ("unspoken", "foreseen")
SORTED_BY = ["n_recurring", "best_recurrence", "n_readings", "key"]


def claim_key(stems: frozenset[str]) -> str:
    """What two claims share that are the same one: their content words, sorted; "" without any."""
    return " ".join(sorted(stems))


def summarise(claims: pd.DataFrame) -> pd.DataFrame:
    """Counts of every (key, standing, category, trusted) that recurs or occurs more than once.

    ``claims`` has key, kind, standing, category, trusted (bool), transcript_id, position, sample,
    start, end, text and recurrence. Quotations and words without content have no key and no rank.
    """
    kept = claims[
        (claims["key"] != "")
        & claims["standing"].isin(RANKED)
        & ~claims["kind"].isin(("quote", "text", "place"))
    ]
    if kept.empty:
        return pd.DataFrame(columns=COLUMNS)
    kept = kept.sort_values(
        ["recurrence", "transcript_id", "position"], ascending=[False, True, True]
    )
    kept = kept.assign(recurs=kept["recurrence"] >= RECURRING)
    groups = kept.groupby(["key", "standing", "category", "trusted"], sort=False, observed=True)
    summary = groups.agg(
        kind=("kind", "first"),
        n_readings=("key", "size"),
        n_recurring=("recurs", "sum"),
        n_transcripts=("transcript_id", "nunique"),
        best_recurrence=("recurrence", "max"),
        **{name: (name, "first") for name in COLUMNS[-6:]},
    ).reset_index()
    summary = summary[(summary["n_readings"] > 1) | (summary["n_recurring"] > 0)]
    return ranked(summary)[COLUMNS]


def ranked(summary: pd.DataFrame) -> pd.DataFrame:
    """Rows with the most recurring readings first; a fixed order among equals."""
    return summary.sort_values(
        SORTED_BY, ascending=[False, False, False, True], kind="stable", ignore_index=True
    )


def merged(
    summary: pd.DataFrame,
    *,
    standing: str = "unspoken",
    category: str | None = None,
    kind: str | None = None,
    trusted_only: bool = True,
    limit: int | None = 50,
) -> pd.DataFrame:
    """A leaderboard out of `summarise`: one row a key, counts added up over what was asked for.

    ``trusted_only`` leaves out readings with flags (low fidelity, early, high norm).
    """
    kept = summary[summary["standing"] == standing]
    if category is not None:
        kept = kept[kept["category"] == category]
    if kind is not None:
        kept = kept[kept["kind"] == kind]
    if trusted_only:
        kept = kept[kept["trusted"]]
    kept = kept.sort_values("best_recurrence", ascending=False, kind="stable")
    rows = kept.groupby("key", sort=False, observed=True).agg(
        kind=("kind", "first"),
        n_readings=("n_readings", "sum"),
        n_recurring=("n_recurring", "sum"),
        n_transcripts=("n_transcripts", "sum"),
        n_categories=("category", "nunique"),
        best_recurrence=("best_recurrence", "max"),
        **{name: (name, "first") for name in COLUMNS[-6:]},
    )
    rows = ranked(rows.reset_index())
    return rows if limit is None else rows.head(limit)
