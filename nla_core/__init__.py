"""NLA Explorer as a library: load a pair and explain, or read a published dataset.

``Explainer`` and ``Dataset`` are loaded when they are first used: every program of the project
imports this package, and few of them need torch or DuckDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nla_core.data.dataset import Dataset as Dataset
    from nla_core.explain import Explainer as Explainer

__all__ = ["Dataset", "Explainer"]


def __getattr__(name: str) -> Any:
    if name == "Dataset":
        from nla_core.data.dataset import Dataset

        return Dataset
    if name == "Explainer":
        from nla_core.explain import Explainer

        return Explainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
