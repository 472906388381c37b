"""Charts that wait for the first token, and numbers as people write them.

Knows when Plotly may be asked for. Does not know what a chart shows. The decision a reader would
question: a chart is a place of its height until the strip is on the screen, so that nothing moves
when it comes.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from nla_core.ui import charts
from nla_core.ui.html import draw
from nla_core.ui.token_strip import was_painted


def chart(figure: charts.Figure, **settings: Any) -> None:
    """A chart, or the place for it as long as the strip has not been painted.

    Plotly's script has megabytes: fetched along with the strip, it would keep the first token from
    the screen for as long as it takes to compile.
    """
    if was_painted():
        st.plotly_chart(figure, **settings)
    else:
        draw(
            '<div class="nla-later" style="height: {height}px"></div>',
            height=str(figure["layout"]["height"]),
        )


def signed(value: float) -> str:
    """Two decimals and a real minus sign; never −0.00."""
    text = f"{value:.2f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def ordinal(percentile: float) -> str:
    """61.4 as 61st."""
    n = min(max(round(percentile), 0), 100)
    suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"
