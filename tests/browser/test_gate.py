"""The gate in a real browser: what a browser is known by, and what a token opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from scripts.screenshots import serving

Visit = Callable[..., Any]

TOKEN = "a-token-that-nobody-guesses"
PAGE = """
import streamlit as st

from nla_core.ui import gate

if gate.allowed():
    st.text("running")
    gate.account()
st.text("I am " + gate.visitor())
"""


@pytest.fixture(scope="module")
def gated(window: Any, tmp_path_factory: Any) -> Iterator[str]:
    """A page with nothing but the gate, on a server with a token."""
    script: Path = tmp_path_factory.mktemp("gated") / "gated.py"
    script.write_text(PAGE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_RUN_TOKEN", TOKEN)
        with serving(app=script) as url:
            yield url


def test_a_browser_is_one_visitor_in_all_of_its_tabs(visit: Visit, gated: str) -> None:
    first = visit("/", address=gated)
    name = first.get_by_text("I am browser:").inner_text()
    tab = first.context.new_page()
    tab.goto(gated)
    expect(tab.get_by_text(name)).to_be_visible()
    other = visit("/", address=gated)
    assert other.get_by_text("I am browser:").inner_text() != name


def test_what_a_proxy_says_of_a_person_opens_nothing(visit: Visit, gated: str) -> None:
    page = visit("/", address=gated)
    page.set_extra_http_headers(
        {"X-Forwarded-User": "ann", "X-Auth-Request-Email": "ann@example.org", "Remote-User": "ann"}
    )
    page.reload()
    expect(page.get_by_text("I am browser:")).to_be_visible()
    expect(page.get_by_text("running", exact=True)).to_have_count(0)
    page.locator("input[aria-label='Token of this server']").fill(TOKEN)
    page.get_by_role("button", name="Unlock running").click()
    expect(page.get_by_text("running", exact=True)).to_be_visible()
