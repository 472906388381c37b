"""The gate on a page: what is drawn and what is let through, in each mode."""

from __future__ import annotations

from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from streamlit.web.server.starlette.starlette_app_utils import generate_xsrf_token_string

from nla_core import access
from nla_core.ui import gate

TOKEN = "a-token-that-nobody-guesses"


class Context:
    """What a browser sends along."""

    def __init__(self, cookie: str = "", address: str | None = None) -> None:
        self.cookies = {"_streamlit_xsrf": cookie} if cookie else {}
        self.ip_address = address


def page() -> None:
    import streamlit as st

    from nla_core.ui import gate

    if gate.allowed():
        st.text("running")
        gate.account()
    st.text(gate.visitor())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in (access.ACCESS_VARIABLE, access.TOKEN_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(access, "TRIES", access.Tries())
    monkeypatch.setattr(st, "context", Context())  # AppTest has a mock for what a browser sends

    def start(**env: str) -> AppTest:
        for name, value in env.items():
            monkeypatch.setenv(f"NLA_RUN_{name}", value)
        app = AppTest.from_function(page, default_timeout=20)
        app.run()
        assert not app.exception
        return app

    return start


def said(app: AppTest) -> str:
    return " ".join(element.proto.body for element in app.get("html")) + " ".join(
        element.value for element in [*app.markdown, *app.caption]
    )


def runs(app: AppTest) -> bool:
    return "running" in [text.value for text in app.text]


def test_on_this_machine_nothing_stands_in_the_way(run: Any) -> None:
    app = run()
    assert runs(app)
    assert not app.text_input
    assert "open on this machine" in said(app)


def test_open_to_all_says_so(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "get_option", lambda name: None)
    assert "everybody" in said(run(ACCESS="open"))


def test_beyond_this_machine_it_is_off_and_says_how_to_switch_it_on(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(st, "get_option", lambda name: None)
    app = run()
    assert not runs(app)
    assert "switched off" in said(app)
    assert "NLA_RUN_TOKEN" in said(app)


def test_settings_that_mean_nothing_let_nobody_through(run: Any) -> None:
    app = run(ACCESS="everyone")
    assert not runs(app)
    assert "NLA_RUN_ACCESS cannot be" in said(app)


def test_a_token_opens_this_session_and_can_be_taken_back(run: Any) -> None:
    app = run(TOKEN=TOKEN)
    assert not runs(app)
    field = app.text_input[0]
    assert field.proto.type == field.proto.PASSWORD
    field.set_value("wrong")
    app.button[0].click().run()
    assert not runs(app)
    assert "This is not the token" in said(app)
    assert app.text_input[0].value == ""
    app.text_input[0].set_value(f" {TOKEN} ")
    app.button[0].click().run()
    assert runs(app)
    assert not app.text_input
    app.run()
    assert runs(app)
    app.button[0].click().run()
    assert not runs(app)
    assert app.text_input


def test_wrong_tokens_have_to_wait(run: Any) -> None:
    app = run(TOKEN=TOKEN)
    for _ in range(access.WRONG_TRIES - 1):
        access.TRIES.wrong("")
    app.text_input[0].set_value("x" * 20)
    app.button[0].click().run()
    assert "This is not the token" in said(app)
    app.text_input[0].set_value(TOKEN)
    app.button[0].click().run()
    assert not runs(app)
    assert "Too many wrong tokens" in said(app)


def test_an_open_session_is_not_locked_by_the_tries_of_others(run: Any) -> None:
    app = run(TOKEN=TOKEN)
    app.text_input[0].set_value(TOKEN)
    app.button[0].click().run()
    for _ in range(access.WRONG_TRIES):
        access.TRIES.wrong("")
    assert runs(app.run())


# ---- who asks ------------------------------------------------------------------------------------


def test_a_browser_keeps_its_name_over_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cookie is masked anew with every page; what it stands for stays."""

    def name(cookie: str, address: str | None = None) -> str:
        monkeypatch.setattr(st, "context", Context(cookie, address))
        return gate.visitor()

    mine = [generate_xsrf_token_string(b"m" * 16, 1) for _ in range(2)]
    assert mine[0] != mine[1]
    assert name(mine[0]) == name(mine[1], "10.0.0.1")
    assert name(mine[0]).startswith("browser:")
    assert name(mine[0]) != name(generate_xsrf_token_string(b"o" * 16, 1))
    for broken in ("", "2|x", "nonsense"):
        assert name(broken, "10.0.0.1") == name("", "10.0.0.1")
        assert name(broken, "10.0.0.1").startswith("address:")
        assert "10.0" not in name(broken, "10.0.0.1")


def test_without_cookie_and_address_each_session_is_a_visitor(run: Any) -> None:
    assert run().text[-1].value.startswith("session:")
