"""The questions that are asked of a dataset, as SQL: filters, facets, order, pages.

Knows how filters become conditions and how a page follows the one before it. Does not know who
runs the query. The decision a reader would question: SQL is put together from constant pieces only,
whatever a person typed travels as a parameter; and a page begins after the *row* that ended the
last one, named by its id, so a cursor never holds a rounded number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict, get_args

from nla_core.errors import NLAError

TranscriptSort = Literal[
    "title",
    "category",
    "n_tokens",
    "n_readings",
    "mean_fve",
    "flagged_share",
    "max_surprisal",
]
Facet = Literal["category", "tag", "flag", "fidelity", "length"]

Query = tuple[str, dict[str, Any]]
"""SQL with named parameters, and their values."""


@dataclass(frozen=True, slots=True)
class Band:
    """A range of numbers with a name: low <= value < high, either end open where None.

    A name is written as in a URL; ``label`` is for people.
    """

    name: str
    low: float | None
    high: float | None
    label: str

    def condition(self, column: str) -> str:
        return " AND ".join(
            [f"{column} IS NOT NULL"]
            + ([f"{column} >= {self.low}"] if self.low is not None else [])
            + ([f"{column} < {self.high}"] if self.high is not None else [])
        )


FIDELITY_BANDS: Final = (
    Band("high", 0.6, None, "mean FVE 0.6 and above"),
    Band("good", 0.4, 0.6, "mean FVE 0.4 to 0.6"),
    Band("fair", 0.2, 0.4, "mean FVE 0.2 to 0.4"),
    Band("poor", 0.0, 0.2, "mean FVE 0 to 0.2"),
    Band("negative", None, 0.0, "mean FVE below 0"),
)
LENGTH_BANDS: Final = (
    Band("tiny", None, 64, "under 64 tokens"),
    Band("short", 64, 256, "64 to 255 tokens"),
    Band("medium", 256, 1024, "256 to 1,023 tokens"),
    Band("long", 1024, None, "1,024 tokens and more"),
)
BANDS: Final[dict[str, tuple[Band, ...]]] = {"fidelity": FIDELITY_BANDS, "length": LENGTH_BANDS}
_BANDED: Final = {"fidelity": "mean_fve", "length": "n_tokens"}


class TranscriptFilters(TypedDict, total=False):
    """Which transcripts; a filter that is None or left out keeps all.

    ``contains`` looks for literal text, whatever its case, in title, prompt id, tags and messages.
    ``flag`` keeps transcripts with at least one reading so flagged. ``fidelity`` and ``length``
    are names of ``FIDELITY_BANDS`` (by mean FVE) and ``LENGTH_BANDS`` (by tokens).
    """

    category: str | None
    contains: str | None
    tag: str | None
    flag: str | None
    fidelity: str | None
    length: str | None


class ReadingFilters(TypedDict, total=False):
    """Which readings; a filter that is None or left out keeps all.

    ``fve_min`` <= FVE < ``fve_max``. ``category`` is that of the transcript, ``role`` and
    ``section`` those of the token.
    """

    transcript_id: str | None
    category: str | None
    flag: str | None
    role: str | None
    section: str | None
    fve_min: float | None
    fve_max: float | None
    position: int | None


_TRANSCRIPT_CONDITIONS: Final = {
    "category": "category = $category",
    "contains": "contains(search_text, lower($contains))",
    "tag": "list_contains(tags, $tag)",
    "flag": "list_contains(flags, $flag)",
}
_READING_CONDITIONS: Final = {
    "transcript_id": "transcript_id = $transcript_id",
    "category": "transcript_id IN "
    "(SELECT transcript_id FROM transcripts WHERE category = $category)",
    "flag": "list_contains(flags, $flag)",
    "role": "role = $role",
    "section": "section = $section",
    "fve_min": "fve >= $fve_min",
    "fve_max": "fve < $fve_max",
    "position": "position = $position",
}

CATEGORIES: Final = """
    SELECT category, count(*)::INTEGER AS n_transcripts,
           sum(n_readings)::INTEGER AS n_readings
    FROM transcripts GROUP BY category ORDER BY category"""

TRANSCRIPT: Final = """
    SELECT * EXCLUDE (search_text) FROM transcripts WHERE transcript_id = $id"""

TOKENS: Final = "SELECT * FROM tokens WHERE transcript_id = $id ORDER BY position"

READINGS: Final = """
    SELECT * EXCLUDE ("row", role, section, token) FROM readings WHERE transcript_id = $id
    ORDER BY position, sample"""

READING: Final = """
    SELECT r.*, t.category, t.title FROM readings r JOIN transcripts t USING (transcript_id)
    WHERE reading_id = $id"""

# Row numbers instead of names: a million readings are 17 MB of these. Not in order, which would
# have to be made in memory: each row says where it belongs.
READING_COLUMNS: Final = """
    SELECT r."row", t.row::INTEGER AS transcript, position, sample::SMALLINT AS sample,
        ($roles).list_position(r.role)::TINYINT - 1 AS role, fve,
        coalesce(list_sum([1 << (($flags).list_position(f) - 1)::INTEGER FOR f IN r.flags]), 0
            )::UTINYINT AS flags
    FROM readings r JOIN (SELECT transcript_id, row_number() OVER (ORDER BY transcript_id) - 1
            AS row FROM transcripts) t USING (transcript_id)"""

TRANSCRIPT_COLUMNS: Final = """
    SELECT transcript_id, title, category, tags FROM transcripts ORDER BY transcript_id"""

SOME_EXPLANATIONS: Final = """
    SELECT explanation FROM readings WHERE "row" % $step = 0 ORDER BY "row" LIMIT $n"""

NEAREST: Final = """
    SELECT transcript_id, prompt_id, category, title, min(distance) AS distance FROM (
        SELECT transcript_id, prompt_id, category, title, lower(unnest([
            transcript_id, prompt_id, title])) AS name,
            CASE WHEN starts_with(name, $text) OR starts_with($text, name) THEN 0
            ELSE levenshtein(name, $text) / greatest(len(name), len($text)) END AS distance
        FROM transcripts) WHERE name <> ''
    GROUP BY ALL ORDER BY distance, title, transcript_id LIMIT $n"""


def transcripts(
    filters: Mapping[str, Any],
    *,
    sort: str,
    descending: bool,
    limit: int | None,
    after: str | None,
) -> Query:
    """One page of transcripts. Raises NLAError for a sort, filter or band that does not exist.

    The page is found with the columns it is ordered by; only its rows are then read whole.
    """
    if sort not in get_args(TranscriptSort):
        raise NLAError(
            f"Transcripts cannot be sorted by {str(sort)[:40]!r}",
            why="it is none of the columns made for that",
            fix=f"Sort by one of {', '.join(get_args(TranscriptSort))}",
        )
    conditions, values = _transcript_conditions(filters)
    key = f"lower({sort})" if sort in ("title", "category") else sort
    source = "transcripts"
    if after is not None:
        source += f""", (SELECT {key} AS at_key, title AS at_title, transcript_id AS at_id
            FROM transcripts WHERE transcript_id = $after)"""
        beyond = ">" if not descending else "<"
        tie = "(title, transcript_id) > (at_title, at_id)"
        conditions.append(
            f"(({key} {beyond} at_key) OR ({key} IS NULL AND at_key IS NOT NULL)"
            f" OR ({key} IS NOT DISTINCT FROM at_key AND {tie}))"
        )
        values["after"] = after
    order = f"sort_key {'DESC' if descending else 'ASC'} NULLS LAST, title, transcript_id"
    return (
        f"""
        WITH page AS (
            SELECT transcript_id, title, {key} AS sort_key FROM {source}{_where(conditions)}
            ORDER BY {order}{_limit(limit, values)})
        SELECT t.* EXCLUDE (messages, search_text)
        FROM page JOIN transcripts t USING (transcript_id)
        ORDER BY {order.replace("title", "t.title")}""",
        values,
    )


def count_transcripts(filters: Mapping[str, Any]) -> Query:
    conditions, values = _transcript_conditions(filters)
    return f"SELECT count(*) AS n FROM transcripts{_where(conditions)}", values


def facets(filters: Mapping[str, Any]) -> Query:
    """Values and counts of every facet, each under all filters but its own."""
    groups: dict[str, str] = {
        "category": "category",
        "tag": "unnest(tags)",
        "flag": "unnest(flags)",
        **{name: _band_case(name) for name in BANDS},
    }
    # `contains` reads every message, so it decides once; the facets share what is left.
    shared, values = _transcript_conditions({"contains": filters.get("contains")})
    own: dict[str, list[str]] = {}
    for name in groups:
        found, more = _transcript_conditions({name: filters.get(name)})
        own[name] = found
        values |= more
    _transcript_conditions(filters)  # refuses a filter that does not exist
    parts = []
    for rank, (name, expression) in enumerate(groups.items()):
        others = [c for other, found in own.items() if other != name for c in found]
        parts.append(
            f"""SELECT {rank} AS rank, '{name}' AS facet, {expression} AS value, n_readings
            FROM kept{_where(others)}"""
        )
    bands = [band.name for name in BANDS for band in BANDS[name]]
    return (
        f"""
        WITH kept AS MATERIALIZED (
            SELECT category, tags, flags, mean_fve, n_tokens, n_readings
            FROM transcripts{_where(shared)}),
        every AS ({" UNION ALL ".join(parts)})
        SELECT facet, value, count(*)::INTEGER AS n_transcripts,
               sum(n_readings)::BIGINT AS n_readings
        FROM every WHERE value IS NOT NULL GROUP BY rank, facet, value
        ORDER BY rank, CASE WHEN facet IN ('fidelity', 'length')
            THEN list_position({bands}, value) END, n_transcripts DESC, value""",
        values,
    )


def readings(filters: Mapping[str, Any], *, limit: int | None, after: int | None) -> Query:
    """One page of readings over all transcripts, in the order of the vectors."""
    conditions, values = _conditions(filters, _READING_CONDITIONS, "Readings")
    if after is not None:
        conditions.append('"row" > $after')
        values["after"] = after
    return (
        f"""
        WITH page AS (SELECT * FROM readings{_where(conditions)}
            ORDER BY "row"{_limit(limit, values)})
        SELECT page.*, t.category, t.title FROM page LEFT JOIN transcripts t USING (transcript_id)
        ORDER BY "row" """,
        values,
    )


def _transcript_conditions(filters: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    plain = {name: value for name, value in filters.items() if name not in BANDS}
    conditions, values = _conditions(plain, _TRANSCRIPT_CONDITIONS, "Transcripts")
    for name, bands in BANDS.items():
        if (wanted := filters.get(name)) is not None:
            found = next((band for band in bands if band.name == wanted), None)
            if found is None:
                raise NLAError(
                    f"There is no {name} band {str(wanted)[:40]!r}",
                    why="transcripts are grouped by a few fixed ranges",
                    fix=f"Use one of {', '.join(band.name for band in bands)}",
                )
            conditions.append(found.condition(_BANDED[name]))
    return conditions, values


def _conditions(
    filters: Mapping[str, Any], known: Mapping[str, str], what: str
) -> tuple[list[str], dict[str, Any]]:
    if unknown := sorted(set(filters) - set(known)):
        raise NLAError(
            f"{what} cannot be filtered by {unknown[0][:40]!r}",
            why="it is none of the filters made for that",
            fix=f"Filter by {', '.join(known)}",
        )
    values = {name: value for name, value in filters.items() if value not in (None, "")}
    return [known[name] for name in values], values


def _band_case(name: str) -> str:
    cases = " ".join(
        f"WHEN {band.condition(_BANDED[name])} THEN '{band.name}'" for band in BANDS[name]
    )
    return f"CASE {cases} END"


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _limit(limit: int | None, values: dict[str, Any]) -> str:
    if limit is None:
        return ""
    values["limit"] = limit
    return " LIMIT $limit"
