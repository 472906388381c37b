"""How much of the project one task touches: what a reader has to know, counted.

One typed prompt is run as the Run page runs it, from the request to the published dataset, under a
profiler that sees every thread; modules and functions of this project are counted. Beside it stands
what the command line loads before it does anything.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, cast

from benchmarks import harness
from benchmarks.harness import ROOT, Figure
from nla_core.errors import NLAError

NAME = "imports"
PACKAGES = ("nla_core", "precompute")
WAIT_S = 600.0
STARTS = {
    "cli": "import precompute.cli",
    "plan_help": "import precompute.cli, precompute.cost",
    "page": "import nla_core.ui.shell",
}


@dataclass(slots=True)
class Touched:
    """Functions of this project that were called, by file and line, and the deepest own stack."""

    functions: set[tuple[str, int]] = field(default_factory=set)
    deepest: int = 0

    @property
    def modules(self) -> set[str]:
        return {file for file, _ in self.functions}

    def seen(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not _is_own(frame.f_code.co_filename):
            return
        key = (frame.f_code.co_filename, frame.f_code.co_firstlineno)
        if key in self.functions:
            return  # the depth of a function's first call; walking every stack takes minutes
        self.functions.add(key)
        depth, at = 0, cast("FrameType | None", frame)
        while at is not None:
            depth += _is_own(at.f_code.co_filename)
            at = at.f_back
        self.deepest = max(self.deepest, depth)


def _is_own(file: str) -> bool:
    return any(file.startswith(f"{ROOT / package}{os.sep}") for package in PACKAGES)


@contextmanager
def profiling() -> Iterator[Touched]:
    """Count what is called inside, in this thread and in those that it starts."""
    touched = Touched()
    threading.setprofile(touched.seen)
    sys.setprofile(touched.seen)
    try:
        yield touched
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def one_prompt(pair: Path, text: str, embedder: Any, device: str) -> Touched:
    """Run ``text`` with ``pair``, read its last token, publish. Raises NLAError where it fails."""
    from nla_core.jobs.models import Pairs
    from nla_core.jobs.request import Positions, RunPrompt, RunRequest, Sampling, Which
    from nla_core.jobs.runner import JobRunner
    from nla_core.jobs.settings import WorkerSettings

    with tempfile.TemporaryDirectory(prefix="nla-bench-") as home, profiling() as touched:
        runner = JobRunner(
            Path(home),
            pairs=Pairs(lambda: {NAME: pair}),
            embedder=embedder,
            settings=WorkerSettings(devices=device, niceness=0),
        )
        request = RunRequest(
            NAME, (RunPrompt(text=text),), Positions(Which.LAST, 1), target=Sampling(0)
        )
        with runner:
            run_id = runner.submit(request, NAME).run_id
            until = time.monotonic() + WAIT_S
            while not (found := runner.snapshot(run_id)).version:
                if found.error or found.failed or time.monotonic() > until:
                    raise NLAError(
                        "The run of the benchmark failed",
                        why=str(found.error or "it was not published"),
                        fix="Check the pair with `python -m precompute doctor`",
                    )
                time.sleep(0.05)
    return touched


def loaded_by(statement: str) -> tuple[int, int]:
    """Modules of this project, and all modules, after ``statement`` in a new process."""
    program = f"import sys\n{statement}\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = done.stdout.split()
    return sum(name.partition(".")[0] in PACKAGES for name in names), len(names)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = harness.parser(NAME, __doc__)
    parser.add_argument("--nla", type=Path, default=harness.PAIR, metavar="DIR")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--text", default="The tide came in.")
    args = parser.parse_args(argv)
    load_before = os.getloadavg()[0]
    from nla_core.embed import MiniLM

    touched = one_prompt(args.nla, args.text, MiniLM(), args.device)
    figures = {
        "prompt_modules": Figure(
            len(touched.modules), "modules that one typed prompt goes through", "", "lower"
        ),
        "prompt_functions": Figure(
            len(touched.functions), "functions that it goes through", "", "lower"
        ),
        "prompt_depth": Figure(touched.deepest, "own frames in the deepest stack", "", "lower"),
    }
    for name, statement in STARTS.items():
        own, every = loaded_by(statement)
        figures[f"{name}_own"] = Figure(
            own, f"modules of the project after `{statement}`", "", "lower"
        )
        figures[f"{name}_all"] = Figure(every, f"all modules after `{statement}`")
    return harness.finish(
        args, NAME, "all", figures, load_before=load_before, settings={"text": args.text}
    )


if __name__ == "__main__":
    main()
