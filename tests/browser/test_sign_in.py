"""The gate in a real browser: signing in at a provider, and what a browser is known by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from scripts.screenshots import serving
from tests.browser.provider import Provider

Visit = Callable[..., Any]

PAGE = """
import streamlit as st

from nla_core.ui import gate

if gate.allowed():
    st.text("running")
    gate.account()
st.text("I am " + gate.visitor())
"""
ANN = {"sub": "1", "email": "ann@example.org", "email_verified": True}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider(**ANN) as started:
        yield started


@pytest.fixture(scope="module")
def gated(window: Any, provider: Provider, tmp_path_factory: Any) -> Iterator[str]:
    """A page with nothing but the gate, on a server where people sign in."""
    folder = tmp_path_factory.mktemp("gated")
    (folder / ".streamlit").mkdir()
    (folder / ".streamlit/secrets.toml").write_text(provider.secrets(), encoding="utf-8")
    script: Path = folder / "gated.py"
    script.write_text(PAGE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_RUN_ACCESS", "oidc")
        patch.setenv("NLA_RUN_USERS", "@example.org")
        with serving(app=script) as url:
            yield url


@pytest.fixture(scope="module")
def open_to_all(window: Any, tmp_path_factory: Any) -> Iterator[str]:
    script: Path = tmp_path_factory.mktemp("open") / "gated.py"
    script.write_text(PAGE, encoding="utf-8")
    with serving(app=script) as url:
        yield url


def test_people_sign_in_and_out(visit: Visit, gated: str, provider: Provider) -> None:
    page = visit("/", address=gated)
    expect(page.get_by_text("Running prompts needs you to sign in")).to_be_visible()
    expect(page.get_by_text("I am browser:")).to_be_visible()
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Signed in as ann@example.org")).to_be_visible()
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    name = page.get_by_text("I am user:").inner_text()
    page.reload()
    expect(page.get_by_text(name)).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    expect(page.get_by_text("running", exact=True)).to_have_count(0)


@pytest.mark.parametrize(
    "person", [{"email": "eve@evil.example"}, {"email_verified": False}, {"email": None}]
)
def test_others_are_told_that_they_may_not(
    visit: Visit,
    gated: str,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    person: dict[str, Any],
) -> None:
    monkeypatch.setattr(provider, "person", {**ANN, **person})
    page = visit("/", address=gated)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("may not run prompts here")).to_be_visible()
    expect(page.get_by_text("running", exact=True)).to_have_count(0)


def test_a_browser_is_one_visitor_in_all_of_its_tabs(visit: Visit, open_to_all: str) -> None:
    first = visit("/", address=open_to_all)
    name = first.get_by_text("I am browser:").inner_text()
    tab = first.context.new_page()
    tab.goto(open_to_all)
    expect(tab.get_by_text(name)).to_be_visible()
    other = visit("/", address=open_to_all)
    assert other.get_by_text("I am browser:").inner_text() != name
