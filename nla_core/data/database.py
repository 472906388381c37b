"""The DuckDB file of a version: built from its Parquet files, opened read-only.

Knows which columns are worked out once so that a page of fifty transcripts needs no second query,
and how the file is built beside other processes doing the same. Does not know the questions that
are asked of it. The decision a reader would question: the file's name carries the number of its
form, so that a program that derives more columns builds its own file instead of meeting an old one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import duckdb

from nla_core.errors import NLAError
from nla_core.data.files import explained, fsync_path
from nla_core.data.manifest import DATABASE, PARQUET, Manifest

SPARKLINE_BINS: Final = 24
"""Most values of a sparkline; a transcript with fewer explained positions has one for each."""

# Rows keep the order of the Parquet files: `row` is also the row of vectors/explanations.f16.npy.
# A token that is part of a character carries the text of the whole chip.
_READINGS = """
    CREATE TABLE readings AS
    SELECT r.* EXCLUDE (file_row_number), file_row_number AS "row", k.role, k.section,
           coalesce(c.text, k.text) AS token
    FROM read_parquet(?, file_row_number = true) r
    LEFT JOIN tokens k USING (transcript_id, position)
    LEFT JOIN (SELECT transcript_id, chip, string_agg(text, '' ORDER BY position) AS text
               FROM tokens GROUP BY ALL HAVING count(*) > 1) c
           ON c.transcript_id = k.transcript_id AND c.chip = k.chip
    ORDER BY "row"
"""

# The searched text is made once: title, prompt id, tags and the content of every message.
_TRANSCRIPTS = f"""
    CREATE TABLE transcripts AS
    WITH surprises AS (
        SELECT transcript_id, max(surprisal) AS max_surprisal FROM tokens
        WHERE section = 'content' GROUP BY transcript_id
    ), flagged AS (
        SELECT transcript_id, list_sort(list(DISTINCT flag)) AS flags
        FROM (SELECT transcript_id, unnest(flags) AS flag FROM readings) GROUP BY transcript_id
    ), along AS (
        SELECT transcript_id, avg(fve) AS fve,
               row_number() OVER (PARTITION BY transcript_id ORDER BY position) - 1 AS nth,
               count(*) OVER (PARTITION BY transcript_id) AS n
        FROM readings GROUP BY transcript_id, position
    ), binned AS (
        SELECT transcript_id, nth * least(n, {SPARKLINE_BINS}) // n AS bin, avg(fve)::FLOAT AS fve
        FROM along GROUP BY ALL
    ), lines AS (
        SELECT transcript_id, list(fve ORDER BY bin) AS sparkline FROM binned
        GROUP BY transcript_id
    )
    SELECT t.*, max_surprisal, coalesce(flags, []) AS flags, coalesce(sparkline, []) AS sparkline,
        lower(concat_ws(chr(10), title, prompt_id, array_to_string(tags, ' '),
            array_to_string(messages ->> '$[*].content', chr(10)))) AS search_text
    FROM read_parquet(?) t
    LEFT JOIN surprises USING (transcript_id)
    LEFT JOIN flagged USING (transcript_id)
    LEFT JOIN lines USING (transcript_id)
    ORDER BY transcript_id
"""

_BUILD: Final = {
    "tokens": "CREATE TABLE tokens AS SELECT * FROM read_parquet(?)",
    "readings": _READINGS,
    "transcripts": _TRANSCRIPTS,
}


def build(directory: Path) -> None:
    """Make the DuckDB file of the version in ``directory`` under another name and move it there.

    Two processes may do so at once: both files hold the same rows, and a process that has opened
    the first keeps it when the second takes its name. Raises NLAError where that fails.
    """
    database = directory / DATABASE
    with explained(database), tempfile.TemporaryDirectory(prefix=".tmp-", dir=directory) as folder:
        temporary = Path(folder) / DATABASE
        # Older readers in the supported range can open it whatever duckdb wrote it.
        config: dict[str, Any] = {"storage_compatibility_version": "v1.5.0", "memory_limit": "1GB"}
        try:
            with duckdb.connect(str(temporary), config=config) as connection:
                for name, statement in _BUILD.items():
                    connection.execute(statement, [str(directory / PARQUET[name])])
        except duckdb.Error as error:
            raise NLAError(
                f"The DuckDB file {database} cannot be built",
                why=f"duckdb {duckdb.__version__} says: {str(error).splitlines()[0]}",
                fix="Free some disk space if that is what is missing, and start again",
            ) from error
        fsync_path(temporary)
        temporary.replace(database)


def connect(directory: Path, manifest: Manifest) -> duckdb.DuckDBPyConnection:
    """A read-only connection that reaches nothing but this file.

    Raises NLAError where the installed duckdb cannot read it or it holds other rows than the
    manifest says.
    """
    database = directory / DATABASE
    config: dict[str, Any] = {
        "enable_external_access": "false",
        "lock_configuration": "true",
        "memory_limit": "256MB",
        "threads": "2",
    }
    try:
        connection = duckdb.connect(str(database), read_only=True, config=config)
        for name, rows in manifest.counts.items():
            ((found,),) = connection.table(name).count("*").fetchall()
            if found != rows:
                raise duckdb.DataError(f"table {name} has {found} rows instead of {rows}")
    except duckdb.Error as error:
        raise NLAError(
            f"The DuckDB file {database} cannot be used",
            why=f"duckdb {duckdb.__version__} says: {str(error).splitlines()[0]}",
            fix="It is derived from the Parquet files beside it: delete it and start again, and "
            "it is built anew",
        ) from error
    return connection
