"""Put the gate of a test into the server that it starts; see `tests.gate`.

Python imports this module by its name when it starts. The gate is put in place once the server
imports the models: loading them here would change when a page paints.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


class _Loader(importlib.abc.Loader):
    def __init__(self, real: Any) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        from tests.gate import VARIABLE, Gate

        self.real.exec_module(module)
        gate = Gate(Path(os.environ[VARIABLE]))
        module.Explainer.explain_each = gate.in_front_of(module.Explainer.explain_each)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "nla_core.explain":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(name)
        if found is not None:
            found.loader = _Loader(found.loader)
        return found


sys.meta_path.insert(0, _Finder())
