"""What both halves share; ``from nla_core import Dataset`` reads a published dataset in a notebook.

Knows the one name that it lends. Does not load anything before that name is used: every program of
the project imports this package, and few of them read a dataset. The decision a reader would
question: a module ``__getattr__`` instead of an import, for the same reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nla_core.store.dataset import Dataset as Dataset

__all__ = ["Dataset"]


def __getattr__(name: str) -> Any:
    if name == "Dataset":
        from nla_core.store.dataset import Dataset

        return Dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
