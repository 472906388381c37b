"""``train all``: a whole training from one config file, one command after another.

Knows the form of a config (a list of this program's own commands) and which of them are done.
Knows nothing of what a command does. The decision a reader would question: each step runs in a
process of its own, so that its memory is given back before the next one starts, and the line that
is printed before it can be typed by hand to the same effect.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nla_core.data.files import write_json
from nla_core.errors import NLAError

CONFIGS = Path(__file__).parent / "configs"
TRAIN_STEPS = frozenset({"data", "ar", "av", "expert", "grpo", "assemble"})
VERBS = frozenset({"testset", "eval", "export"})
RECORD = "steps.json"
_KEYS = {"about", "target", "layer", "steps"}


@dataclass(frozen=True, slots=True)
class Step:
    """One command; ``argv`` is what follows ``python -m precompute``."""

    argv: tuple[str, ...]

    @property
    def line(self) -> str:
        return "python -m precompute " + shlex.join(self.argv)


def known_configs() -> list[str]:
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def load_config(name: str) -> tuple[Path, Mapping[str, Any]]:
    """A config by its name in ``configs/`` or its path; NLAError names the field that is wrong."""
    path = CONFIGS / f"{name}.yaml" if name in known_configs() else Path(name)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise NLAError(
            f"No usable config '{name}'",
            why=str(error),
            fix=f"Give a YAML file or one of: {', '.join(known_configs())}",
        ) from None
    if not isinstance(raw, Mapping) or not isinstance(raw.get("steps"), list):
        raise _bad(path, "steps", "missing or not a list", "a list of steps such as `- data: {}`")
    if unknown := set(raw) - _KEYS:
        raise _bad(path, sorted(unknown)[0], "unknown", f"one of {', '.join(sorted(_KEYS))}")
    return path, raw


def plan(name: str, *, out: Path, corpus: str, prompts: Sequence[str]) -> list[Step]:
    """The commands of a config. Words such as ``{out}/ar`` in it are paths below ``out``.

    ``{corpus}`` stands for the training text, ``{prompts}`` for the held-out prompt files.
    """
    path, raw = load_config(name)
    common = {key: raw[key] for key in ("target", "layer") if key in raw}
    lists = {"{corpus}": [corpus], "{prompts}": list(prompts)}
    steps: list[Step] = []
    for number, entry in enumerate(raw["steps"], 1):
        field = f"steps[{number}]"
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise _bad(path, field, repr(entry), "one step, such as `av: {steps: 500}`")
        verb, flags = next(iter(entry.items()))
        if verb not in TRAIN_STEPS | VERBS:
            raise _bad(path, field, verb, f"one of {', '.join(sorted(TRAIN_STEPS | VERBS))}")
        if not isinstance(flags, Mapping):
            raise _bad(path, f"{field}.{verb}", repr(flags), "flags and their values")
        argv = ["train", verb] if verb in TRAIN_STEPS else [verb]
        both = dict(common if verb in {"data", "ar", "av"} else {}) | dict(flags)
        for flag, value in both.items():
            argv += _words(flag, value, out, lists)
        steps.append(Step(tuple(argv)))
    return steps


def _words(flag: str, value: Any, out: Path, lists: Mapping[str, list[str]]) -> list[str]:
    name = "--" + flag.replace("_", "-")
    if value is True:
        return [name]
    if value is False or value is None:
        return []
    values = value if isinstance(value, list) else lists.get(value, [value])
    return [name, *(str(v).replace("{out}", str(out)) for v in values)]


def run_all(steps: Sequence[Step], out: Path) -> None:
    """Run what is not done yet; NLAError where a step fails, with what is done recorded."""
    out.mkdir(parents=True, exist_ok=True)
    record = out / RECORD
    done: list[str] = json.loads(record.read_text()) if record.is_file() else []
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] {step.line}"
        if number <= len(done) and done[number - 1] == step.line:
            print(f"{head}\n    done before", flush=True)
            continue
        print(head, flush=True)
        code = subprocess.run([sys.executable, "-m", "precompute", *step.argv], check=False)
        if code.returncode:
            raise NLAError(
                f"Step {number} of {len(steps)} stopped",
                why=f"`{step.line}` ended with exit code {code.returncode}; its message is above",
                fix="Mend what it says and run the same command again: finished steps are kept",
            )
        done = [*done[: number - 1], step.line]
        write_json(record, done)


def _bad(path: Path, field: str, found: str, expected: str) -> NLAError:
    return NLAError(
        f"The config {path} cannot be used", why=f"{field} is {found}", fix=f"Expected {expected}"
    )
