"""About: what the explorer shows, how to read it honestly, and what was measured.

Knows the wording. Every fact about the pair and the dataset is read from the manifest; a number
that is typed in here would be wrong for the next pair.
"""

from __future__ import annotations

import streamlit as st

from nla_core.schema import EARLY_POSITIONS, HIGH_NORM_FACTOR
from nla_core.ui import about, shell

shell.ensure()

with st.container(key="about"):
    dataset = shell.dataset()
    pair = dataset.manifest.pair
    st.title("What you see here, and how far to trust it", anchor=False)
    st.markdown(about.WHAT_IT_IS)

    st.header("How it works", anchor="method")
    st.markdown(about.HOW_IT_WORKS.format(layer=pair.get("layer", "?")))

    st.header("How to read an explanation honestly", anchor="reading")
    st.markdown(about.HOW_TO_READ)

    st.header("Reading is not steering", anchor="steering")
    st.markdown(about.STEERING)

    st.header("What it can say about what a model knows", anchor="knowledge")
    st.markdown(about.KNOWLEDGE)

    st.header("Could the text be a code?", anchor="steganography")
    st.markdown(about.STEGANOGRAPHY)
    about.trust(pair)

    st.header("When a score becomes a goal", anchor="goodhart")
    st.markdown(about.GOODHART)

    st.header("What the numbers mean", anchor="numbers")
    st.markdown(about.numbers(pair))

    st.header("What the flags mean", anchor="flags")
    about.flags()
    st.markdown(about.FLAG_LIMITS.format(early=EARLY_POSITIONS, factor=f"{HIGH_NORM_FACTOR:g}"))

    st.header("The pair and the dataset shown here", anchor="dataset")
    about.facts(dataset)
