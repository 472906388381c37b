"""The watchlist of the Audit page: exported, imported, edited concept by concept.

Knows the form of one concept. Does not know how a concept is checked or kept (watchlist.py). The
decision a reader would question: a list that is refused leaves the one before it in place, and the
refusal names the line and the field.
"""

from __future__ import annotations

import re
from typing import Any

import streamlit as st

from nla_core.analysis import concepts as watchlist
from nla_core.analysis.concepts import Concept, dump_concepts
from nla_core.errors import NLAError
from nla_core.ui import notices
from nla_core.ui.html import hint


def editor(concepts: tuple[Concept, ...], own: bool) -> None:
    """The watchlist: exported, imported, edited concept by concept."""
    with st.popover("Watchlist", icon=":material/checklist:", key="watchlist_popover"):
        hint(
            "Your own list, kept on this server."
            if own
            else "The list that ships. Edit it, and yours is used instead."
        )
        st.download_button(
            "Export as JSON",
            data=lambda: dump_concepts(concepts).encode(),
            file_name="concepts.json",
            mime="application/json",
            key="export_concepts",
            type="tertiary",
            on_click="ignore",
        )
        st.file_uploader("Import a list", type="json", key="import_concepts", on_change=_import)
        if own:
            st.button(
                "Back to the list that ships", key="forget_concepts", on_click=watchlist.forget
            )
        st.selectbox(
            "Concept to edit",
            ["", *(concept.id for concept in concepts)],
            key="edit_concept",
            format_func=lambda key: next((c.name for c in concepts if c.id == key), "a new one"),
        )
        chosen = next((c for c in concepts if c.id == st.session_state["edit_concept"]), None)
        with st.form("concept_form", border=False):
            st.text_input("Name", value=chosen.name if chosen else "", key=_key("name", chosen))
            st.text_input(
                "Description",
                value=chosen.description if chosen else "",
                key=_key("description", chosen),
            )
            for field, label in (
                ("positives", "Phrases that say it, one a line"),
                ("negatives", "Look-alikes that do not, one a line"),
            ):
                st.text_area(
                    label,
                    value="\n".join(getattr(chosen, field)) if chosen else "",
                    key=_key(field, chosen),
                    height=110,
                )
            st.number_input(
                "Threshold",
                value=chosen.threshold if chosen else 0.2,
                step=0.01,
                format="%.3f",
                key=_key("threshold", chosen),
                help="The score from which on a text holds the concept: its likeness to the "
                "two nearest phrases that say it, less half of that to the two look-alikes.",
            )
            st.text_input(
                "Pattern (a regular expression that decides by itself; may stay empty)",
                value=(chosen.pattern or "") if chosen else "",
                key=_key("pattern", chosen),
            )
            st.form_submit_button("Keep", on_click=_keep, args=(concepts, chosen))
    problem = st.session_state.pop("watchlist_problem", None)
    if problem is not None:
        notices.problem(problem)


def _key(field: str, concept: Concept | None) -> str:
    """A field of the form, anew for each concept: the form shows what that one holds."""
    return f"concept_{field}_{'' if concept is None else concept.id}"


def _import() -> None:
    uploaded = st.session_state["import_concepts"]
    if uploaded is None:
        return
    try:
        watchlist.keep(uploaded.getvalue().decode("utf-8"))
    except UnicodeDecodeError as error:
        st.session_state["watchlist_problem"] = NLAError(
            "The watchlist is no text", why=str(error), fix="Save it as UTF-8 and import it again"
        )
    except NLAError as error:
        st.session_state["watchlist_problem"] = error


def _keep(concepts: tuple[Concept, ...], chosen: Concept | None) -> None:
    """Put the form's concept into the list; what was kept before stays if it is refused."""

    def field(name: str) -> Any:
        return st.session_state[_key(name, chosen)]

    def lines(name: str) -> tuple[str, ...]:
        return tuple(line.strip() for line in field(name).splitlines() if line.strip())

    name = field("name").strip()
    edited = Concept(
        id=chosen.id if chosen else re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40],
        name=name,
        description=field("description").strip(),
        positives=lines("positives"),
        negatives=lines("negatives"),
        threshold=float(field("threshold")),
        pattern=field("pattern").strip() or None,
    )
    kept = [edited if c.id == edited.id else c for c in concepts]
    if chosen is None:
        kept.append(edited)
    try:
        watchlist.keep(dump_concepts(kept))
    except NLAError as error:
        st.session_state["watchlist_problem"] = error
