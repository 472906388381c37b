"""Presets: experiments that were looked for with the shipped pair, and what they measured.

Knows the two files under ``data/steering``: what each preset asks for, and what was measured on
seeds that had no part in choosing it. Runs nothing. The decision a reader would question: what was
tried and did not work is in both files, too; effects that were picked from many are worth less, and
a reader can only see that if the others are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nla_core.errors import NLAError
from nla_core.paths import PROJECT
from nla_core.steering.experiment import Edit, Experiment
from nla_core.steering.outcome import Contrast, Rate

FOLDER: Final = PROJECT / "data" / "steering"
PRESETS: Final = FOLDER / "presets.json"
MEASURED: Final = FOLDER / "presets-measured.json"


@dataclass(frozen=True, slots=True)
class Measured:
    """At the preset's α, on held-out seeds. ``over_random`` is steered minus random."""

    revision: str
    steered: Rate
    random: Rate
    baseline: Rate
    over_random: Contrast
    over_baseline: Contrast

    @property
    def works(self) -> bool:
        return self.over_random.beats


@dataclass(frozen=True, slots=True)
class Preset:
    """``alpha`` is the value of the sweep that was chosen; ``about`` says what is to change."""

    id: str
    name: str
    about: str
    alpha: float
    experiment: Experiment
    measured: Measured | None = None

    def stale(self, revision: str) -> bool:
        """Whether it was measured with another revision of the pair than this one."""
        return self.measured is not None and self.measured.revision != revision


def presets(path: Path = PRESETS, measured: Path = MEASURED) -> tuple[Preset, ...]:
    """All of them, also those that did not work; none where there is no file.

    Raises NLAError for a file that cannot be read.
    """
    if not path.is_file():
        return ()
    found = {row["id"]: row for row in _read(measured)["presets"]} if measured.is_file() else {}
    given = _read(path)
    try:
        return tuple(_preset(given["pair"], row, found.get(row["id"])) for row in given["presets"])
    except (KeyError, TypeError) as error:
        raise NLAError(
            f"{path.name} cannot be read",
            why=f"{type(error).__name__}: {error}",
            fix="Restore it, or remove it to do without presets",
        ) from None


def _preset(pair: str, row: Mapping[str, Any], measured: Mapping[str, Any] | None) -> Preset:
    experiment = Experiment(
        pair=pair,
        edits=(Edit(row["original"], row["edited"]),),
        prompt=row["prompt"],
        place=row["place"],
        every=row["every"],
        alphas=tuple(row["alphas"]),
        words=tuple(row["words"]),
        new_tokens=row["new_tokens"],
        temperature=row["temperature"],
    )
    found = None if measured is None else _measured(measured, row["alpha"], experiment)
    return Preset(row["id"], row["name"], row["about"], row["alpha"], experiment, found)


def _measured(row: Mapping[str, Any], alpha: float, asked: Experiment) -> Measured | None:
    """What was measured, unless it was measured of something else than is asked for now."""
    if row["alpha"] != alpha or row["asks"] != asked.key:
        return None
    return Measured(
        revision=row["revision"],
        steered=_rate(row["steered"]),
        random=_rate(row["random"]),
        baseline=_rate(row["baseline"]),
        over_random=_contrast(row["over_random"]),
        over_baseline=_contrast(row["over_baseline"]),
    )


def _rate(row: Mapping[str, Any]) -> Rate:
    return Rate(row["hits"], row["n"], row["low"], row["high"])


def _contrast(row: Mapping[str, Any]) -> Contrast:
    return Contrast(row["difference"], row["low"], row["high"])


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NLAError(
            f"{path.name} cannot be read",
            why=f"{type(error).__name__}: {error}",
            fix="Restore it, or remove it to do without presets",
        ) from None
    return found
