"""The entry point: what a browser tab is called, and then whatever page was asked for.

Run it with `streamlit run app.py` (or `make app`, which sets everything up first).
"""

from __future__ import annotations

import streamlit as st

from nla_core.ui import shell

st.set_page_config(
    page_title="NLA Explorer",
    page_icon=str(shell.ICON),
    layout="wide",
    initial_sidebar_state="auto",
    menu_items={"About": "Read, in English, what a language model represents at each token."},
)
shell.run()
