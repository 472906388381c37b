"""The default tier: a test that claims no other is a unit test.

Knows the markers of pyproject.toml. Does not know what a tier needs; the conftest.py of its folder
does, and marks its tests.
"""

from __future__ import annotations

import pytest

TIERS = {"unit", "app", "browser", "ray", "gpu"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # pytest asks the conftest files of the folders first, then this one, then applies `-m`.
    for item in items:
        if not TIERS & {mark.name for mark in item.iter_markers()}:
            item.add_marker("unit")
