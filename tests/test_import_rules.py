"""The rules of ARCHITECTURE.md that keep the halves apart, read off the source text.

Knows which folder may import what. Does not run any project code:
a rule must hold for the branch nobody executes, too. The decision a reader would question: the
start-up rule follows only imports that run when a module is loaded, so a page may still reach the
models from inside a function, after it has painted.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("nla_core", "pages", "precompute", "scripts", "tests")
MODULES = sorted(
    [ROOT / "app.py", *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
)
MODELS = frozenset({"torch", "transformers"})


@dataclass(frozen=True, slots=True)
class Rule:
    """Files for which ``applies`` holds (paths relative to the root) import none of ``banned``."""

    name: str
    applies: Callable[[str], bool]
    banned: frozenset[str]


def _knows_streamlit(path: str) -> bool:
    # Beside what draws: what stands in front of the pages, and what opens sessions to time them.
    others = ("nla_core/api/asgi.py", "precompute/benches/sessions.py")
    return path.startswith("nla_core/ui/") or path in others


RULES = (
    Rule(
        "pages only draw",
        lambda path: path.startswith("pages/") or path == "app.py",
        MODELS | {"duckdb"},
    ),
    Rule(
        "the core and precompute know no Streamlit",
        lambda path: path.startswith(("nla_core/", "precompute/")) and not _knows_streamlit(path),
        frozenset({"streamlit"}),
    ),
    Rule(
        "reading and drawing need no model",
        lambda path: (
            path in {"nla_core/schema.py", "nla_core/refs.py", "nla_core/errors.py"}
            or path.startswith(("nla_core/store/", "nla_core/ui/"))
        ),
        MODELS,
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


def broken(rule: Rule, path: str, source: str) -> set[str]:
    """What ``source``, standing at ``path``, imports against ``rule``."""
    if not rule.applies(path):
        return set()
    return {name.partition(".")[0] for name in imports(source)} & rule.banned


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _local_file(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@pytest.mark.parametrize("path", MODULES, ids=_relative)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_no_module_imports_what_its_place_forbids(rule: Rule, path: Path) -> None:
    found = broken(rule, _relative(path), path.read_text(encoding="utf-8"))
    assert not found, f"{_relative(path)} imports {sorted(found)}: {rule.name}"


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


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_every_module_says_what_it_is(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if path.name == "__init__.py" and not source.strip():
        return  # an empty package marker says everything it knows
    assert ast.get_docstring(ast.parse(source)), f"{_relative(path)} has no module docstring"


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
        ("nla_core/api/routes.py", "import streamlit", {"streamlit"}),
        ("nla_core/store/dataset.py", "import duckdb", set()),
        ("precompute/run.py", "import streamlit", {"streamlit"}),
        (
            "nla_core/refs.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor",
            set(),
        ),
    ],
)
def test_the_rules_catch_what_they_forbid(path: str, source: str, found: set[str]) -> None:
    assert set().union(*(broken(rule, path, source) for rule in RULES)) == found


def test_imports_inside_functions_do_not_run_at_load() -> None:
    source = "import a\ndef f():\n    import b\nclass C:\n    import c\n"
    assert imports(source, at_load_only=True) == {"a", "c"}
    assert imports(source) == {"a", "b", "c"}
