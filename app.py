"""The entry point: the server with its JSON API, and what a browser tab runs.

`streamlit run app.py` (or `make app`, which sets everything up first) imports this file to find the
server; every visit then runs it as a script. So it has two halves, and only one is executed.
"""

from __future__ import annotations

import streamlit as st

from nla_core.ui import shell

if __name__ == "__main__":
    st.set_page_config(
        page_title="NLA Explorer",
        page_icon=str(shell.ICON),
        layout="wide",
        initial_sidebar_state="auto",
        menu_items={"About": "Read, in English, what a language model represents at each token."},
    )
    shell.run()
else:
    from nla_core.api.asgi import middleware
    from nla_core.opened import resume_runs

    resume_runs()
    app = st.App(__file__, middleware=middleware())
