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
ANN = {"is_logged_in": True, "email": "ann@example.org", "sub": "1"}
AUTH = {
    "redirect_uri": "http://localhost:8501/oauth2callback",
    "cookie_secret": "a-secret-that-signs-the-cookies-of-this-test",
    "client_id": "nla",
    "client_secret": "secret",
    "server_metadata_url": "http://localhost:1/.well-known/openid-configuration",
}


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
    for name in (access.ACCESS_VARIABLE, access.TOKEN_VARIABLE, access.USERS_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(access, "TRIES", access.Tries())
    monkeypatch.setattr(st, "context", Context())  # AppTest has a mock for what a browser sends

    def start(user: dict[str, Any] | None = None, secrets: Any = None, **env: str) -> AppTest:
        for name, value in env.items():
            monkeypatch.setenv(f"NLA_RUN_{name}", value)
        app = AppTest.from_function(page, default_timeout=20)
        app.user = user or {}
        for name, value in (secrets or {}).items():
            app.secrets[name] = value
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


# ---- signing in ----------------------------------------------------------------------------------


def test_signing_in_that_is_not_set_up_says_what_is_missing(run: Any) -> None:
    app = run(ACCESS="oidc")
    assert not runs(app)
    assert "no section [auth]" in said(app)
    assert not app.button
    assert "no client_id" in said(run(ACCESS="oidc", secrets={"auth": {"cookie_secret": "x"}}))


def test_signing_in_without_authlib_says_what_to_install(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate.importlib.util, "find_spec", lambda name: None)
    assert "requirements-oidc.txt" in said(run(ACCESS="oidc"))


def test_who_is_not_signed_in_is_sent_to_a_provider(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(st, "login", asked.append)
    both = {"auth": {**AUTH, "google": {"client_id": "x"}}}
    app = run(ACCESS="oidc", secrets=both)
    assert not runs(app)
    assert [button.label for button in app.button] == ["Sign in", "Sign in with google"]
    app.button[0].click().run()
    app.button[1].click().run()
    assert asked == [None, "google"]


def test_a_provider_that_lacks_a_setting_is_no_traceback(run: Any) -> None:
    app = run(ACCESS="oidc", secrets={"auth": {"client_id": "nla"}})
    app.button[0].click().run()
    assert not app.exception
    assert "not set up" in said(app)
    assert "secrets.toml" in said(app)


@pytest.mark.parametrize(
    ("user", "welcome"),
    [
        (ANN, True),
        ({**ANN, "email": "bob@lab.example"}, True),
        ({**ANN, "email_verified": True}, True),
        ({**ANN, "email_verified": False}, False),
        ({**ANN, "email": "eve@example.org"}, False),
        ({"is_logged_in": True, "sub": "ann@example.org"}, False),
        ({"is_logged_in": True, "email": "eve@evil.example", "sub": "ann@example.org"}, False),
        ({**ANN, "is_logged_in": False}, False),
        ({"email": "ann@example.org"}, False),
    ],
)
def test_people_on_the_list_may(run: Any, user: dict[str, Any], welcome: bool) -> None:
    listed = "ann@example.org,@lab.example"
    app = run(user, {"auth": AUTH}, ACCESS="oidc", USERS=listed)
    assert runs(app) is welcome
    assert not welcome or f"Signed in as {user['email']}" in said(app).replace("\\", "")


def test_signing_out_is_one_click(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out: list[bool] = []
    monkeypatch.setattr(st, "logout", lambda: out.append(True))
    run(ANN, {"auth": AUTH}, ACCESS="oidc").button[0].click().run()
    assert out == [True]


# ---- who asks ------------------------------------------------------------------------------------


def test_a_browser_keeps_its_name_over_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cookie is masked anew with every page; what it stands for stays."""
    monkeypatch.setattr(gate, "_person", lambda: None)

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


def test_who_signs_in_has_one_name_everywhere(run: Any) -> None:
    names = {
        run({**ANN, "email": mail}, {"auth": AUTH}, ACCESS="oidc").text[-1].value
        for mail in ("ann@example.org", "Ann@Example.org")
    }
    assert len(names) == 1
    assert names.pop().startswith("user:")
    assert run().text[-1].value.startswith("session:")
