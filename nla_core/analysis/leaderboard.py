"""The claims that recur and are never spoken, over a corpus: deduplicated, counted, with examples.

Knows rows of claims with their standing and key. Does not know files or pages. The decision a
reader would question: a claim that recurs in many transcripts ranks no higher for it, but shows how
many they are. A verbalizer has habits (a name it always invents), and a claim found in every
second transcript says more about the verbalizer than about the model it reads.
"""

from __future__ import annotations

import pandas as pd

from nla_core.analysis.transcript import RECURRING

COLUMNS = [
    "key", "kind", "standing", "category", "scope", "n_readings", "n_recurring", "n_transcripts",
    "best_recurrence", "text", "transcript_id", "position", "sample", "start", "end",
]  # fmt: skip
"""``scope`` is "trusted" or "all" readings, ``n_recurring`` counts readings whose neighbours make
the same claim, ``best_recurrence`` the most neighbours that do; the last six are the reading where
that is, an example to link to."""

HABIT_SHARE = 0.1
"""A claim made in more than this share of all transcripts is a habit of the verbalizer."""

UNRANKED = ("quote", "text", "place")
"""Kinds that are no theme: a quotation is found or not."""

RANKED = ("unspoken", "foreseen")
SORTED_BY = ["n_recurring", "best_recurrence", "n_readings", "key"]


def claim_key(stems: frozenset[str]) -> str:
    """What two claims share that are the same one: their content words, sorted; "" without any."""
    return " ".join(sorted(stems))


def summarise(claims: pd.DataFrame) -> pd.DataFrame:
    """Counts of every (key, standing, category) that recurs or occurs more than once, twice: over
    all readings and over trusted ones.

    ``claims`` has key, kind, standing, category, trusted (bool), transcript_id, position, sample,
    start, end, text and recurrence. Quotations and words without content have no key and no rank.
    """
    kept = claims[
        (claims["key"] != "") & claims["standing"].isin(RANKED) & ~claims["kind"].isin(UNRANKED)
    ]
    kept = kept.assign(recurs=kept["recurrence"] >= RECURRING).sort_values(
        ["recurrence", "transcript_id", "position"], ascending=[False, True, True]
    )
    scopes = {"all": kept, "trusted": kept[kept["trusted"].astype(bool)]}
    parts = [_counted(part, scope) for scope, part in scopes.items() if len(part)]
    return ranked(pd.concat(parts))[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def _counted(kept: pd.DataFrame, scope: str) -> pd.DataFrame:
    groups = kept.groupby(["key", "standing", "category"], sort=False, observed=True)
    summary = groups.agg(
        kind=("kind", "first"),
        n_readings=("key", "size"),
        n_recurring=("recurs", "sum"),
        n_transcripts=("transcript_id", "nunique"),
        best_recurrence=("recurrence", "max"),
        **{name: (name, "first") for name in COLUMNS[-6:]},
    ).reset_index()
    summary = summary[(summary["n_readings"] > 1) | (summary["n_recurring"] > 0)]
    return summary.assign(scope=scope)


def ranked(summary: pd.DataFrame) -> pd.DataFrame:
    """Rows with the most recurring readings first; a fixed order among equals."""
    return summary.sort_values(
        SORTED_BY, ascending=[False, False, False, True], kind="stable", ignore_index=True
    )


def merged(
    summary: pd.DataFrame,
    total: int,
    *,
    standing: str = "unspoken",
    category: str | None = None,
    kind: str | None = None,
    trusted_only: bool = True,
    habits: bool = False,
    limit: int | None = 50,
) -> pd.DataFrame:
    """A leaderboard out of `summarise`: one row a key, counts added up over what was asked for.

    ``total`` is the number of transcripts of the corpus. ``trusted_only`` leaves out readings with
    flags (low fidelity, early, high norm). ``habits`` keeps claims made in more than
    ``HABIT_SHARE`` of all transcripts, whatever the category asked for; ``share`` says of how many.
    """
    kept = summary[summary["scope"] == ("trusted" if trusted_only else "all")]
    kept = kept[kept["standing"] == standing]
    share = kept.groupby("key", observed=True)["n_transcripts"].sum() / max(1, total)
    if category is not None:
        kept = kept[kept["category"] == category]
    if kind is not None:
        kept = kept[kept["kind"] == kind]
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
    rows["share"] = share.reindex(rows.index).astype(float)
    if not habits:
        rows = rows[rows["share"] <= HABIT_SHARE]
    rows = ranked(rows.reset_index())
    return rows if limit is None else rows.head(limit)
