"""A real Chromium on the real server. Without a Chromium these tests skip; on CI they fail."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.screenshots import NO_CHROMIUM, browser, chromium, serving
from tests.helpers import PROMPTS, make_dataset

LONG = (
    "long-002",
    "long text",
    "A long answer",
    [],
    [
        ("user", "Say it again and again."),
        ("assistant", "The capital of France is Paris, and Paris is its largest city. "),
    ],
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="package")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prompts of the other tests, their answers five times over, and one of 500 tokens."""
    root = tmp_path_factory.mktemp("browser") / "dataset"
    long = (*LONG[:4], [LONG[4][0], ("assistant", LONG[4][1][1] * 6)])
    make_dataset(root, [*PROMPTS, long], answer_repeats=5)
    return root


@pytest.fixture(scope="package")
def window() -> Iterator[Any]:
    if chromium() is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(NO_CHROMIUM)
        pytest.skip(NO_CHROMIUM)
    with browser() as opened:
        yield opened


@pytest.fixture(scope="package")
def address(window: Any, dataset_root: Path) -> Iterator[str]:
    with serving(dataset_root) as url:
        yield url


@pytest.fixture
def visit(window: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Open an address of the app in a browser of its own; what its console says must be clean."""
    complaints: list[str] = []
    contexts = []

    def hear(said: Any) -> None:
        # Below a path such as /about, Streamlit first looks there for its own endpoints.
        probe = "/_stcore/" in said.location["url"] and "404" in said.text
        if said.type == "error" and not probe:
            complaints.append(f"{said.text} ({said.location['url']})")

    own = address

    def open_page(
        path: str, *, address: str = own, width: int = 1280, height: int = 860, **options: Any
    ) -> Any:
        context = window.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", hear)
        page.goto(address + path)
        page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
