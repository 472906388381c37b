"""The gate before a run: who asks, whether they may, and what to do where they may not.

A visitor is the random cookie that Streamlit sets against cross-site requests, and the address only
where there is none: people behind one router then do not share a queue limit, and nobody has to
sign in. Whoever deletes cookies counts as somebody new; the limits in total hold all the same.
"""

from __future__ import annotations

from typing import Final

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.web.server.starlette.starlette_app_utils import decode_xsrf_token_string
from streamlit.web.server.starlette.starlette_server_config import XSRF_COOKIE_NAME

from nla_core.access import Access, Policy, visitor_id
from nla_core.errors import NLAError
from nla_core.ui import notices
from nla_core.ui.html import hint

TOKEN_FIELD: Final = "nla_run_token_field"
_TOKEN: Final = "_nla_run_token"
_REFUSED: Final = "_nla_run_token_refused"


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
        if found.access is Access.TOKEN:
            return found.accepts(st.session_state.get(_TOKEN)) or _ask_for_token()
        found.check()
    except NLAError as error:
        notices.problem(error)
        return False
    return True


def visitor() -> str:
    """Who asks, by a name that stays the same over sessions where that can be had."""
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
        if policy().access is Access.TOKEN:
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
