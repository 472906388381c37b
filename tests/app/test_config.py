"""The shipped configuration is safe by default, and both themes can be read."""

from __future__ import annotations

import http.client
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from nla_core.ui.palette import contrast
from scripts.screenshots import serving
from tests.app.conftest import APP

CONFIG: dict[str, Any] = tomllib.loads(
    (APP.parent / ".streamlit/config.toml").read_text(encoding="utf-8")
)


def test_the_app_keeps_to_this_machine_and_says_nothing_to_anyone() -> None:
    assert CONFIG["server"]["address"] == "127.0.0.1"
    assert CONFIG["server"]["enableCORS"] is True  # in Streamlit: the protection is on
    assert CONFIG["server"]["enableXsrfProtection"] is True
    assert CONFIG["browser"]["gatherUsageStats"] is False
    assert CONFIG["client"]["showErrorDetails"] == "none"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_links_and_accents_stand_out_from_the_page(theme: str) -> None:
    colours = CONFIG["theme"][theme]
    for paper in (colours["backgroundColor"], colours["sidebar"]["backgroundColor"]):
        assert contrast(colours["textColor"], paper) >= 7
        assert contrast(colours["linkColor"], paper) >= 4.5
        assert contrast(colours["primaryColor"], paper) >= 3


@pytest.fixture(scope="module")
def address(dataset_root: Path) -> Iterator[str]:
    with serving(dataset_root) as url:
        yield url


@pytest.mark.parametrize(
    ("host", "origin", "welcome"),
    [
        (None, None, True),
        ("localhost", "http://localhost", True),
        ("rebound.example", "http://rebound.example", False),
        (None, "http://elsewhere.example", False),
    ],
)
def test_only_its_own_pages_may_open_the_socket(
    address: str, host: str | None, origin: str | None, welcome: bool
) -> None:
    netloc = urlsplit(address).netloc
    port = netloc.rsplit(":", 1)[1]
    connection = http.client.HTTPConnection(netloc, timeout=20)
    connection.putrequest("GET", "/_stcore/stream", skip_host=True)
    connection.putheader("Host", f"{host}:{port}" if host else netloc)
    connection.putheader("Origin", f"{origin}:{port}" if origin else address)
    connection.putheader("Connection", "Upgrade")
    connection.putheader("Upgrade", "websocket")
    connection.putheader("Sec-WebSocket-Version", "13")
    connection.putheader("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    assert (status == 101) is welcome
