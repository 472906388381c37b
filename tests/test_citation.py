"""Citations say what is needed to check them, and nothing in them acts."""

from __future__ import annotations

import json

from nla_core.exports import LINK, Provenance, Reading, as_json, bibtex, markdown

SOURCE = Provenance("demo", "v-0123456789ab", "tiny-L2", "abc", "tests/tiny", 2)


def reading(**changes: object) -> Reading:
    values = {
        "reading_id": "8fc486c431a3",
        "transcript_id": "02bd1338b98c",
        "title": "Capital of France",
        "position": 24,
        "token": " Paris",
        "sample": 0,
        "explanation": "A city.\nThe answer.",
        "fve": 0.5312,
        "flags": ["cut short"],
    }
    return Reading(**(values | changes))  # type: ignore[arg-type]


def test_markdown_quotes_and_names_its_source() -> None:
    text = markdown(reading(), SOURCE)
    assert text.startswith("> A city.\n> The answer.\n\n")
    for part in ("token 24 ` Paris`", "FVE 0.53", "cut short", "tiny-L2", "v-0123456789ab", LINK):
        assert part in text


def test_markdown_of_a_text_full_of_markup_is_text() -> None:
    text = markdown(
        reading(explanation="<script>x</script> [a](javascript:b) `c`", token="a``b`"), SOURCE
    )
    assert "<script>" not in text.replace("\\<", "")
    assert r"\[a\](javascript:b)" in text
    assert "``` a``b` ```" in text


def test_json_is_json_and_holds_the_reading() -> None:
    found = json.loads(as_json(reading(), SOURCE))
    assert found["explanation"] == "A city.\nThe answer."
    assert found["source"]["version"] == SOURCE.version
    assert found["link"] == LINK


def test_bibtex_escapes_what_tex_acts_on() -> None:
    entry = bibtex(reading(title=r"50% of \x & {y}_z"), SOURCE, 2026)
    assert r"50\% of \textbackslash{}x \& \{y\}\_z" in entry
    assert entry.startswith("@misc{nla-8fc486c431a3,")
    assert entry.count("{") - entry.count(r"\{") == entry.count("}") - entry.count(r"\}")
