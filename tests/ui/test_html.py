"""Text of users and models is never markup."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nla_core.ui.html import Piece, fill, join
from nla_core.ui.shell import as_label

UI = Path(__file__).resolve().parents[2] / "nla_core/ui"


@given(st.text())
def test_values_cannot_become_markup(text: str) -> None:
    made = fill('<p title="{text}">{text}</p>', text=text)
    inner = made.removeprefix('<p title="').removesuffix("</p>")
    assert "<" not in inner
    assert inner.count('"') == 1
    assert inner.count(">") == 1


def test_pieces_are_not_escaped_twice_and_braces_are_text() -> None:
    piece = fill("<b>{x}</b>", x="a & {b}")
    assert piece == "<b>a &amp; {b}</b>"
    assert fill("<p>{y}</p>", y=join([piece, piece])) == f"<p>{piece}{piece}</p>"
    assert fill("<p>{y}</p>", y=str(piece)) != f"<p>{piece}</p>"
    assert isinstance(piece, Piece)


def test_labels_of_widgets_are_text_too() -> None:
    assert as_label("**a** $x$ [l](u)\n:red[b]") == (r"\*\*a\*\* \$x\$ \[l\]\(u\) \:red\[b\]")


def test_components_write_text_only_as_text() -> None:
    scripts = [*UI.glob("*.js"), UI / "copy_link.py"]
    assert len(scripts) >= 3
    for script in scripts:
        source = script.read_text(encoding="utf-8")
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in source, f"{script.name} uses {way}"
