"""Settings of on-demand runs: what visitors may ask for, and what the worker may use.

``NLA_RUN_LIMITS`` and ``NLA_RUN_WORKER`` hold ``name=value`` pairs, separated by commas: two
variables for some twenty settings, so that a deployment reads as two lines and a wrong name is
refused with the list of right ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, TypeVar

from nla_core.errors import NLAError

LIMITS_VARIABLE: Final = "NLA_RUN_LIMITS"
WORKER_VARIABLE: Final = "NLA_RUN_WORKER"

S = TypeVar("S", "Limits", "WorkerSettings")


@dataclass(frozen=True, slots=True)
class Limits:
    """Checked before a run is queued; a refusal names the limit, its value, and what would fit."""

    queue_total: int = 64  # runs waiting or at work, of all visitors
    queue_per_visitor: int = 5
    prompts: int = 200  # of one run
    prompt_characters: int = 100_000  # of one prompt, before it is tokenised
    prompt_tokens: int = 1_024
    new_tokens: int = 256  # the target's answer
    explanation_tokens: int = 200
    samples: int = 8  # of one position
    readings: int = 5_000  # of one run: positions times samples, at most
    upload_bytes: int = 10_000_000
    upload_rows: int = 10_000  # lines or rows of an uploaded file that are looked at
    stored_runs: int = 500  # runs on the disk, whatever became of them

    @classmethod
    def from_environment(cls) -> Limits:
        """The defaults, changed by ``NLA_RUN_LIMITS``. Raises NLAError for anything else."""
        return _read(cls(), LIMITS_VARIABLE)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Seconds are of wall time; 0 means: as the machine has it, or no limit."""

    devices: str = "auto"  # one worker each, separated by +: cuda:0+cuda:1
    dtype: str = "auto"
    batch_size: int = 0  # positions decoded together; 0: 48 on a CPU, else by its memory
    first_batch: int = 2  # the first positions of a run, so that something shows soon
    transcribe: int = 4  # prompts answered together
    niceness: int = 5  # the lower priority of the worker's threads
    memory_mb: int = 0  # models held at most
    idle_unload_s: float = 1_800.0
    pair_turn_s: float = 60.0  # how long a loaded pair is kept while another is asked for
    stall_s: float = 300.0  # without a sign of life, the worker is replaced
    load_s: float = 1_800.0  # the same while models are loaded or fetched

    @classmethod
    def from_environment(cls) -> WorkerSettings:
        """The defaults, changed by ``NLA_RUN_WORKER``. Raises NLAError for anything else."""
        return _read(cls(), WORKER_VARIABLE)

    @property
    def device_names(self) -> tuple[str, ...]:
        return tuple(self.devices.split("+"))


def _read(defaults: S, variable: str) -> S:
    return changed(defaults, os.environ.get(variable, ""), variable)


def changed(defaults: S, text: str, variable: str) -> S:
    """``defaults`` with what ``text`` says, as in ``queue_total=10,prompts=20``."""
    known = {field.name: type(getattr(defaults, field.name)) for field in fields(defaults)}
    values: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, given = part.partition("=")
        if not equals or name not in known:
            raise NLAError(
                f"{variable} has no setting “{name[:60]}”",
                why=f"the settings are {', '.join(known)}",
                fix=f"Write it as {variable}={next(iter(known))}=…, separated by commas",
            )
        values[name] = _value(variable, name, given, known)
    return type(defaults)(**{**{name: getattr(defaults, name) for name in known}, **values})


def _value(variable: str, name: str, given: str, known: Mapping[str, type]) -> object:
    kind = known[name]
    try:
        value = kind(given)
        if kind is not str and not 0 <= value < 10**12:
            raise ValueError
    except ValueError:
        raise NLAError(
            f"{variable}: {name} cannot be “{given[:40]}”",
            why="it is a number of 0 or more",
            fix="Correct it, or leave it out for the default",
        ) from None
    return value
