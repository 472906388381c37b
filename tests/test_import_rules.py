"""The import rules of ARCHITECTURE.md, read off the source text: one test a rule.

No project code is run, since a rule must hold for the branch nobody executes, too. A failing rule
lists all that break it.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("nla_core", "pages", "precompute", "scripts", "benchmarks", "tests")
MODULES = sorted(
    [ROOT / "app.py", *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
)
MODELS = frozenset({"torch", "transformers"})

# From the ground up. A module imports from its own floor and those below; a folder ends with "/".
FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "nla_core/access.py",
        "nla_core/conversations.py",
        "nla_core/errors.py",
        "nla_core/intervals.py",
        "nla_core/metrics.py",
        "nla_core/paths.py",
        "nla_core/prompts.py",
        "nla_core/readings.py",
        "nla_core/schema.py",
    ),
    (
        "nla_core/models/",
        "nla_core/data/",
        "nla_core/embed.py",
        "nla_core/exports.py",
        "nla_core/rows.py",
    ),
    ("nla_core/__init__.py", "nla_core/difference.py", "nla_core/explain.py"),
    ("nla_core/analysis/", "nla_core/links.py", "nla_core/steering/"),
    ("nla_core/opened.py", "nla_core/jobs/"),
    ("nla_core/api/", "nla_core/ui/"),
    ("app.py", "pages/", "precompute/"),
    ("scripts/", "benchmarks/"),
    ("tests/",),
)
# Broken today. An entry that no longer holds fails its test, so that it is removed.
KNOWN_UPWARD: set[tuple[str, str]] = set()
KNOWN_IN_CIRCLES = {("nla_core/jobs/publish.py", "nla_core/opened.py")}


@dataclass(frozen=True, slots=True)
class Rule:
    """Files for which ``applies`` holds (paths relative to the root) import none of ``banned``."""

    name: str
    applies: Callable[[str], bool]
    banned: frozenset[str]  # dotted names; what lies below one is banned with it


def _knows_streamlit(path: str) -> bool:
    # Beside what draws: what stands in front of the pages, and what opens sessions to time them.
    others = ("nla_core/api/asgi.py", "benchmarks/app.py")
    return path.startswith("nla_core/ui/") or path in others


RULES = (
    Rule(
        "pages only draw",
        lambda path: path.startswith("pages/") or path == "app.py",
        MODELS | {"duckdb"},
    ),
    Rule(
        "only the UI layer knows Streamlit",
        lambda path: path.startswith(("nla_core/", "precompute/")) and not _knows_streamlit(path),
        frozenset({"streamlit"}),
    ),
    Rule(
        "reading and drawing need no model",
        lambda path: (
            path in {"nla_core/schema.py", "nla_core/links.py", "nla_core/errors.py"}
            or path.startswith(("nla_core/data/", "nla_core/ui/"))
        ),
        MODELS,
    ),
    Rule(
        "the command line does not know the app",
        lambda path: path.startswith("precompute/"),
        frozenset({"nla_core.api", "nla_core.ui", "pages"}),
    ),
    Rule(
        "the app does not know the command line",
        lambda path: path.startswith("pages/") or path == "app.py",
        frozenset({"precompute"}),
    ),
    Rule(
        "nothing imports benchmarks",
        lambda path: not path.startswith(("benchmarks/", "tests/")),
        frozenset({"benchmarks"}),
    ),
)


def _is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def imports(source: str, *, at_load_only: bool = False) -> set[str]:
    """Dotted names that ``source`` imports; imports for type checkers only are left out.

    ``from a.b import c`` gives ``a.b`` and ``a.b.c``, since c may be a module. With
    ``at_load_only``, imports inside functions are left out, too.
    """
    return set(_imports(ast.parse(source), at_load_only))


def _imports(node: ast.AST, at_load_only: bool) -> Iterator[str]:
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        children: list[ast.AST] = list(node.orelse)
    elif at_load_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        children = []
    else:
        children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
        yield from (str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))
    for child in children:
        yield from _imports(child, at_load_only)


def broken(rule: Rule, path: str, names: set[str]) -> set[str]:
    """Which of the imported ``names`` a file at ``path`` may not import."""
    if not rule.applies(path):
        return set()
    return {
        banned
        for banned in rule.banned
        if any(name == banned or name.startswith(banned + ".") for name in names)
    }


def floor(path: str) -> int | None:
    """The number of the floor of ``path``; the longest entry of the table counts."""
    found = [
        (len(entry), number)
        for number, entries in enumerate(FLOORS)
        for entry in entries
        if path == entry or (entry.endswith("/") and path.startswith(entry))
    ]
    return max(found)[1] if found else None


def upward(graph: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """Imports of a module on a higher floor; those of modules without a floor are left out."""
    return {
        (path, other)
        for path, others in graph.items()
        for other in others
        if (low := floor(path)) is not None and (high := floor(other)) is not None and low < high
    }


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end, or none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _local_file(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def _imports_of(path: Path) -> set[str]:
    return imports(path.read_text(encoding="utf-8"))


@functools.cache
def _graph() -> dict[str, set[str]]:
    """Which module of the project imports which, also inside functions."""
    return {
        _relative(path): {
            _relative(found)
            for name in _imports_of(path)
            if (found := _local_file(name)) and found not in (path, path.parent / "__init__.py")
        }
        for path in MODULES
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_no_module_imports_what_its_place_forbids(rule: Rule) -> None:
    found = {
        _relative(path): sorted(names)
        for path in MODULES
        if (names := broken(rule, _relative(path), _imports_of(path)))
    }
    assert not found, f"{rule.name}: {found}"


def test_every_module_has_a_floor() -> None:
    homeless = [path for path in map(_relative, MODULES) if floor(path) is None]
    assert not homeless, f"give these a floor in FLOORS: {homeless}"


def test_no_module_imports_from_a_higher_floor() -> None:
    found = upward(_graph())
    assert found - KNOWN_UPWARD == set(), "a module imports from a higher floor"
    assert KNOWN_UPWARD - found == set(), "mended: remove these from KNOWN_UPWARD"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = _graph()
    mended = {(a, b) for a, b in KNOWN_IN_CIRCLES if b not in graph.get(a, set())}
    assert not mended, "mended: remove these from KNOWN_IN_CIRCLES"
    without = {
        path: {other for other in others if (path, other) not in KNOWN_IN_CIRCLES}
        for path, others in graph.items()
    }
    found = circle(without)
    assert not found, " -> ".join(found)


def test_the_command_line_starts_without_models() -> None:
    code = (
        "import sys, precompute.cli\n"
        "sys.exit(', '.join({'torch', 'peft'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"importing precompute.cli loads {done.stderr}"


def test_the_app_loads_without_the_model_libraries() -> None:
    todo = [ROOT / "app.py", *(ROOT / "pages").glob("*.py")]
    reached_from: dict[Path, Path | None] = dict.fromkeys(todo)
    while todo:
        path = todo.pop()
        names = imports(path.read_text(encoding="utf-8"), at_load_only=True)
        heavy = {name for name in names if name.partition(".")[0] in MODELS}
        via = reached_from[path]
        assert not heavy, f"{_relative(path)} loads {heavy} (reached from {via})"
        for found in filter(None, map(_local_file, sorted(names))):
            if found not in reached_from:
                reached_from[found] = path
                todo.append(found)
    assert len(reached_from) > 5, "the walk did not get past app.py"


def test_every_module_says_what_it_is() -> None:
    silent = [
        _relative(path)
        for path in MODULES
        if (source := path.read_text(encoding="utf-8")).strip()  # an empty package marker may be
        and not ast.get_docstring(ast.parse(source))
    ]
    assert not silent, f"these have no module docstring: {silent}"


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        ("pages/x.py", "import torch", {"torch"}),
        ("pages/x.py", "def f():\n    from duckdb.typing import X", {"duckdb"}),
        ("pages/x.py", "import importlib\nimportlib.import_module('torch.nn')", {"torch"}),
        ("pages/x.py", "import streamlit as st", set()),
        ("app.py", "from transformers import AutoModel", {"transformers"}),
        (
            "nla_core/explain.py",
            "try:\n    import streamlit\nexcept ImportError: ...",
            {"streamlit"},
        ),
        ("nla_core/ui/panels.py", "import streamlit", set()),
        ("nla_core/ui/panels.py", "import torch.nn.functional as F", {"torch"}),
        ("nla_core/api/asgi.py", "import streamlit", set()),
        ("nla_core/api/runs.py", "import streamlit", {"streamlit"}),
        ("nla_core/data/dataset.py", "import duckdb", set()),
        ("precompute/run.py", "import streamlit", {"streamlit"}),
        ("precompute/run.py", "from nla_core import ui", {"nla_core.ui"}),
        ("pages/x.py", "from precompute.cli import main", {"precompute"}),
        ("nla_core/explain.py", "from benchmarks import explain", {"benchmarks"}),
        ("precompute/run.py", "def f():\n    import benchmarks.explain", {"benchmarks"}),
        (
            "nla_core/links.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor",
            set(),
        ),
    ],
)
def test_the_rules_catch_what_they_forbid(path: str, source: str, found: set[str]) -> None:
    assert set().union(*(broken(rule, path, imports(source)) for rule in RULES)) == found


def test_imports_inside_functions_do_not_run_at_load() -> None:
    source = "import a\ndef f():\n    import b\nclass C:\n    import c\n"
    assert imports(source, at_load_only=True) == {"a", "c"}
    assert imports(source) == {"a", "b", "c"}


def test_upward_arrows_and_circles_are_found() -> None:
    graph = {
        "nla_core/schema.py": {"nla_core/errors.py", "nla_core/data/files.py"},
        "nla_core/data/files.py": {"nla_core/schema.py"},
        "pages/explore.py": {"nla_core/schema.py"},
    }
    assert upward(graph) == {("nla_core/schema.py", "nla_core/data/files.py")}
    assert set(circle(graph)) == {"nla_core/schema.py", "nla_core/data/files.py"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert floor("nla_core/unknown.py") is None
