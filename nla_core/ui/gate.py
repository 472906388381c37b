"""The gate before a run: who asks, whether they may, and what to do where they may not.

Knows Streamlit's session, cookies and sign-in. Does not know what a run is. The decision a reader
would question: a visitor is told apart by the random cookie that Streamlit sets against cross-site
requests, and by the address only where there is none. People behind one router then do not share a
queue limit, and nobody is asked to sign in for it. Whoever deletes cookies counts as somebody new;
the limits in total hold all the same.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Final

import streamlit as st
from streamlit.errors import StreamlitAuthError
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.web.server.starlette.starlette_app_utils import decode_xsrf_token_string
from streamlit.web.server.starlette.starlette_server_config import XSRF_COOKIE_NAME

from nla_core.access import Access, Denied, Policy, visitor_id
from nla_core.errors import NLAError
from nla_core.ui import notices, shell
from nla_core.ui.html import hint

TOKEN_FIELD: Final = "nla_run_token_field"
_TOKEN: Final = "_nla_run_token"
_REFUSED: Final = "_nla_run_token_refused"
_DEFAULT: Final = "default"
"""What Streamlit calls a provider whose settings stand in [auth] itself."""


def policy() -> Policy:
    """Who may run, by the environment and the address of this server. Raises NLAError."""
    return Policy.from_environment(
        st.get_option("server.address"), st.get_option("server.allowedHosts") or ()
    )


def allowed() -> bool:
    """Whether this session may run prompts; where not, draws what can be done about it.

    Where it may, nothing is drawn. At most once a page.
    """
    try:
        found = policy()
        if found.access is Access.OIDC:
            return _signed_in(found)
        if found.access is Access.TOKEN:
            return found.accepts(st.session_state.get(_TOKEN)) or _ask_for_token()
        found.check()
    except NLAError as error:
        notices.problem(error)
        return False
    return True


def visitor() -> str:
    """Who asks, by a name that stays the same over sessions where that can be had."""
    if person := _person():
        return visitor_id("user", person.casefold())
    secret, _ = decode_xsrf_token_string(st.context.cookies.get(XSRF_COOKIE_NAME, ""))
    if secret:
        return visitor_id("browser", secret.hex())
    if address := st.context.ip_address:
        return visitor_id("address", address)
    context = get_script_run_ctx()
    return visitor_id("session", context.session_id if context else "")


def who() -> str:
    """One sentence about why running is possible here, for a session that is allowed to."""
    found = policy()
    match found.access:
        case Access.OIDC:
            return f"Signed in as {_person()}."
        case Access.TOKEN:
            return "Unlocked with the token of this server."
        case _ if found.local:
            return "Running is open on this machine."
        case _:
            return "Running is open to everybody who can reach this server."


def account() -> None:
    """``who()`` in small print, with the way out where there is one."""
    with st.container(horizontal=True, vertical_alignment="center", key="run_account"):
        hint(who())
        match policy().access:
            case Access.OIDC:
                st.button("Sign out", type="tertiary", on_click=st.logout)
            case Access.TOKEN:
                st.button("Lock again", type="tertiary", on_click=_forget)


# ---- a token -------------------------------------------------------------------------------------


def _ask_for_token() -> bool:
    refused = st.session_state.pop(_REFUSED, None)
    if refused is not None:
        notices.problem(refused)
    with st.form("nla_run_token_form"):
        st.text_input(
            "Token of this server",
            type="password",
            key=TOKEN_FIELD,
            autocomplete="off",
            help="Whoever runs this server has it. It is kept for this tab alone.",
        )
        st.form_submit_button("Unlock running", on_click=_try)
    return False


def _try() -> None:
    given = str(st.session_state.get(TOKEN_FIELD) or "").strip()
    st.session_state[TOKEN_FIELD] = ""
    try:
        policy().check(token=given, address=st.context.ip_address or "")
    except NLAError as error:
        st.session_state[_REFUSED] = error
    else:
        st.session_state[_TOKEN] = given


def _forget() -> None:
    st.session_state.pop(_TOKEN, None)


# ---- signing in ----------------------------------------------------------------------------------


def _signed_in(found: Policy) -> bool:
    try:
        found.check(user=_person())
    except Denied as refusal:
        providers = _providers()
        notices.problem(refusal)
        for provider in providers:
            label = "Sign in" if provider == _DEFAULT else f"Sign in with {provider}"
            if st.button(shell.as_label(label), key=f"sign_in_{provider}", type="primary"):
                _log_in(provider)
        return False
    return True


def _log_in(provider: str) -> None:
    try:
        st.login(None if provider == _DEFAULT else provider)
    except StreamlitAuthError as error:
        raise _not_set_up(" ".join(str(error).split())) from None


def _person() -> str | None:
    """The e-mail of who signed in, or the subject where a provider gives no address.

    An address that the provider says is not verified counts for nothing, and a subject never looks
    like an address: it must not pass for one on the list of people.
    """
    user = st.user.to_dict()
    if user.get("is_logged_in") is not True:
        return None
    mail, subject = user.get("email"), user.get("sub")
    if mail and user.get("email_verified") is not False:
        return str(mail)
    return str(subject).replace("@", " at ") if subject else None


def _providers() -> list[str]:
    """Names of what one can sign in with. Raises NLAError where that is nothing."""
    if importlib.util.find_spec("authlib") is None:
        raise NLAError(
            "Signing in is not possible here",
            why="the package Authlib is not installed",
            fix="Whoever runs this server installs it: pip install -r requirements-oidc.txt",
        )
    found: Any = st.secrets.get("auth") if st.secrets.load_if_toml_exists() else None
    if not isinstance(found, Mapping):
        raise _not_set_up("there is no section [auth] in .streamlit/secrets.toml")
    named = [name for name, section in found.items() if _is_provider(section)]
    providers = [_DEFAULT, *named] if _is_provider(found) else named
    if not providers:
        raise _not_set_up("[auth] in .streamlit/secrets.toml names no client_id")
    return providers


def _is_provider(section: object) -> bool:
    return isinstance(section, Mapping) and "client_id" in section


def _not_set_up(why: str) -> NLAError:
    return NLAError(
        "Signing in is not set up on this server",
        why=why,
        fix="Whoever runs it fills in [auth] as SECURITY.md describes, and starts it again",
    )
