"""The whole app through AppTest, always from app.py, on a dataset of the real form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from nla_core.links import SearchView, ViewState
from tests.helpers import make_dataset

APP = Path(__file__).resolve().parents[2] / "app.py"

Open = Callable[..., AppTest]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("app")


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("app") / "dataset"
    make_dataset(root, samples=2)
    return root


@pytest.fixture
def open_app(dataset_root: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Run the app as a browser with this view, or these raw query parameters, would."""

    def run(
        view: ViewState | SearchView | None = None,
        *,
        root: Path | str | None = None,
        page: str | None = None,
        **params: str,
    ) -> AppTest:
        monkeypatch.setenv("NLA_DATA", str(root or dataset_root))
        app = AppTest.from_file(str(APP), default_timeout=60)
        if page is not None:
            app.switch_page(page)
        for name, value in (params or (view or ViewState()).params()).items():
            app.query_params[name] = value
        return app.run()

    return run
