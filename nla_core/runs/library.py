"""Runs on the disk: listed, read back, exported, deleted.

Knows the folder of all runs and how a run is put together again from its record, its transcripts
and its journal. Knows no thread. The decision a reader would question: there is no index of runs; a
folder with a readable record is a run, so a copied or restored folder needs no import, and a
damaged one costs nobody else anything.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nla_core.errors import NLAError
from nla_core.readings import content_positions
from nla_core.runs.journal import RECORD, RunFolder
from nla_core.runs.request import RUN_PREFIX, RunRequest
from nla_core.runs.state import Event, Run, RunState, Unit
from nla_core.store.manifest import MANIFEST as MANIFEST_FILE
from nla_core.store.manifest import current_version, read_manifest


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One line of the list of runs; times are seconds since 1970."""

    run_id: str
    name: str
    note: str
    state: RunState
    pair: str
    created: float
    finished: float | None
    version: str | None
    n_prompts: int
    done: int
    failed: int
    total: int
    error: str | None


def folders(home: Path) -> Iterator[RunFolder]:
    """Every folder that is named like a run."""
    for path in sorted(home.glob(f"{RUN_PREFIX}*")):
        if path.is_dir():
            yield RunFolder(path)


def stored(home: Path) -> list[StoredRun]:
    """All runs with a readable record, the newest first."""
    found = []
    for folder in folders(home):
        data = folder.read_record()
        try:
            if data is not None:
                found.append(_stored(data))
        except (KeyError, TypeError, ValueError):
            continue
    return sorted(found, key=lambda run: -run.created)


def _stored(data: Mapping[str, Any]) -> StoredRun:
    request, counts = data["request"], data["counts"]
    return StoredRun(
        run_id=data["run_id"],
        name=request["name"],
        note=request["note"],
        state=RunState(data["state"]),
        pair=data["pair"]["pair_id"],
        created=data["created"],
        finished=data["finished"],
        version=data["version"],
        n_prompts=len(request["prompts"]),
        done=counts["done"],
        failed=counts["failed"],
        total=counts["total"],
        error=data["error"],
    )


def load_run(folder: RunFolder) -> Run | None:
    """The run as it was when its process ended; None where there is no record to read.

    What was finished is there, what was under way is to be done again.
    """
    data = folder.read_record()
    try:
        if data is None or data["run_id"] != folder.path.name:
            return None
        run = Run(
            run_id=data["run_id"],
            request=RunRequest.from_json(data["request"]),
            pair=data["pair"],
            visitors=list(data["visitors"]),
            created=data["created"],
            prompt_tokens=tuple(data["prompt_tokens"]),
            state=RunState(data["state"]),
            error=data["error"],
            version=data["version"],
            n_published=data["n_published"],
            started=data["started"],
            finished=data["finished"],
        )
    except (KeyError, TypeError, ValueError, NLAError):
        return None
    kept = folder.read_journal()
    run.prompt_failures = kept.prompt_failures
    for index in range(len(run.request.prompts)):
        _put_back(run, folder, index, kept.readings, kept.failures)
    if run.state is RunState.RUNNING:
        run.state = RunState.QUEUED
    return run


def _put_back(
    run: Run,
    folder: RunFolder,
    index: int,
    readings: Mapping[Unit, Any],
    failures: Mapping[Unit, str],
) -> None:
    if index in run.prompt_failures:
        run.events.append(Event("failure", index, reason=run.prompt_failures[index]))
        return
    said = folder.read_said(index)
    if said is None:
        run.untranscribed.append(index)
        return
    chosen = run.request.positions.choose(said, content_positions(said))
    samples = range(run.request.samples)
    units = tuple(Unit(index, position, sample) for position in chosen for sample in samples)
    run.readings.update({unit: readings[unit] for unit in units if unit in readings})
    run.failures.update({unit: failures[unit] for unit in units if unit in failures})
    run.add_transcript(index, said, units)
    for unit in units:
        if unit in run.readings:
            run.events.append(Event("reading", *unit, reading=run.readings[unit]))
        elif unit in failures:
            run.events.append(Event("failure", *unit, reason=failures[unit]))


def export(folder: RunFolder, to: IO[bytes]) -> None:
    """A zip of the run's record and its current version. Raises NLAError if none is published.

    The record says nothing of who asked, not even as a hash.
    """
    version = folder.path / current_version(folder.path)
    record = {**(folder.read_record() or {}), "visitors": []}
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{folder.path.name}/{RECORD}", json.dumps(record, ensure_ascii=False))
        for name in (MANIFEST_FILE, *read_manifest(version).files):
            archive.write(version / name, f"{folder.path.name}/{version.name}/{name}")
        archive.writestr(f"{folder.path.name}/CURRENT", version.name + "\n")
