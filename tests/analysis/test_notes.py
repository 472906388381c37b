"""Explanations in the form of notes, beside the two other forms: parts, claims, standings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nla_core.analysis.claims import Claim, Kind, next_words, note_clauses, split, split_claims
from nla_core.analysis.standing import Standing, Thresholds, content_words, judge
from nla_core.analysis.visible import Visible
from nla_core.schema import Role, Section

pytestmark = pytest.mark.unit

# (explanation, clauses of its note, words named as next, running text or None)
NOTES: list[tuple[str, list[str], list[str], str | None]] = [
    (
        "Gentle advice on a lost passport; asks if the child is in touch with the mother, advice "
        "due. Next: [end] / You / I. Text: and if she's in touch with you.",
        [
            "Gentle advice on a lost passport",
            "asks if the child is in touch with the mother, advice due",
        ],
        ["[end]", "you", "i"],
        "and if she's in touch with you.",
    ),
    (
        "Customer complaint about a delivered laptop; naming what is broken, annoyed. "
        "Next: screen / display / hinge. Text: [user] The laptop you sent me has a cracked",
        ["Customer complaint about a delivered laptop", "naming what is broken, annoyed"],
        ["screen", "display", "hinge"],
        "[user] The laptop you sent me has a cracked",
    ),
    (
        "Multiplication of boxes and eggs worked in parts; second partial product due, 74. "
        "Next: 7 / 74 / 1. Text: = 370, and 37 × 2 =",
        ["Multiplication of boxes and eggs worked in parts", "second partial product due, 74"],
        ["7", "74", "1"],
        "= 370, and 37 × 2 =",
    ),
    (  # no semicolon
        "System prompt for a tutor. Next: . / , / and. Text: no more than 40 minutes",
        ["System prompt for a tutor"],
        [".", ",", "and"],
        "no more than 40 minutes",
    ),
    (  # no next tokens
        "Strange story of the hungry ocean; smell of the river. Text: and breathed in",
        ["Strange story of the hungry ocean", "smell of the river"],
        [],
        "and breathed in",
    ),
    (  # no running text
        "Reply on the measles vaccine; claims it is safe. Next: and / . / for.",
        ["Reply on the measles vaccine", "claims it is safe"],
        ["and", ".", "for"],
        None,
    ),
    (  # the note alone
        "Bank bot advice on a disputed charge; eight-week window given.",
        ["Bank bot advice on a disputed charge", "eight-week window given"],
        [],
        None,
    ),
    (  # cut within the running text, a tag left behind
        "Opening of a fairy tale; a king is named. Next: , / had. Text: lived a ki\n</explana",
        ["Opening of a fairy tale", "a king is named"],
        [",", "had"],
        "lived a ki",
    ),
    (  # cut after the name of a field
        "Opening of a fairy tale; a king is named. Next: , / had. Text:",
        ["Opening of a fairy tale", "a king is named"],
        [",", "had"],
        "",
    ),
    (  # cut within the next tokens
        "Shell help; the signal's number due. Next: 9 / -",
        ["Shell help", "the signal's number due"],
        ["9", "-"],
        None,
    ),
    (
        "Shell help; the signal's number due. Next:",
        ["Shell help", "the signal's number due"],
        [],
        None,
    ),
    (  # cut within the note
        "Gentle advice on a lost passport; asks if the",
        ["Gentle advice on a lost passport", "asks if the"],
        [],
        None,
    ),
    (  # several semicolons
        "Recipe in steps; flour in; butter next; oven still cold. Next: the / butter. Text: Add",
        ["Recipe in steps", "flour in", "butter next", "oven still cold"],
        ["the", "butter"],
        "Add",
    ),
    (  # the note twice
        "Joke about a goat; punchline due. Joke about a goat; punchline due. Next: a. Text: so the",
        ["Joke about a goat", "punchline due", "Joke about a goat", "punchline due"],
        ["a"],
        "so the",
    ),
    (  # all of it twice: what follows the first text is running text
        "Joke; end due. Next: a / b. Text: so the Joke; end due. Next: c / d. Text: so the",
        ["Joke", "end due"],
        ["a", "b"],
        "so the Joke; end due. Next: c / d. Text: so the",
    ),
    (  # quotations in the note
        'Letter to "Aunt May" on a sofa; says “thank you”. Next: for / .. Text: thank you',
        ['Letter to "Aunt May" on a sofa', "says “thank you”"],
        ["for", "."],
        "thank you",
    ),
    (  # a semicolon within a quotation parts nothing
        'Rule "say yes; never no" is given; obeyed. Next: Yes. Text: [assistant] Yes',
        ['Rule "say yes; never no" is given', "obeyed"],
        ["yes"],
        "[assistant] Yes",
    ),
    (  # an inch, and another in the running text: no quotation reaches over the fields
        'Screen of 15" wanted; size given. Next: screen / monitor. Text: I want a 15" or 17"',
        ['Screen of 15" wanted', "size given"],
        ["screen", "monitor"],
        'I want a 15" or 17"',
    ),
    (  # marks as next tokens
        "Python function that adds; body begins. Next: \\n / : / ): . Text: def add(a, b)",
        ["Python function that adds", "body begins"],
        ["\\n", ":", "):"],
        "def add(a, b)",
    ),
    (
        "JSON object half written; a key follows. Next: ' / '} / ,. Text: {'name': 'Ada'",
        ["JSON object half written", "a key follows"],
        ["'", "'}", ","],
        "{'name': 'Ada'",
    ),
    (
        "Path on a server; folder named. Next: / / etc / bin. Text: cd /usr",
        ["Path on a server", "folder named"],
        ["/", "etc", "bin"],
        "cd /usr",
    ),
    (  # German, French, Japanese
        "Beschwerde über einen Laptop; nennt den Schaden. Next: ist / war. Text: der Bildschirm",
        ["Beschwerde über einen Laptop", "nennt den Schaden"],
        ["ist", "war"],
        "der Bildschirm",
    ),
    (
        "Réponse polie sur un vol; s’excuse déjà. Next: pour / de. Text: Je suis désolé",
        ["Réponse polie sur un vol", "s’excuse déjà"],
        ["pour", "de"],
        "Je suis désolé",
    ),
    (
        "旅行についての質問；答えを待つ。 Next: は / の. Text: 東京",
        ["旅行についての質問", "答えを待つ"],
        ["は", "の"],
        "東京",
    ),
    (  # the running text looks like fields
        "Exam sheet; the answer field begins. Next: Paris / \\n. Text: Question: capital? Next: x",
        ["Exam sheet", "the answer field begins"],
        ["paris", "\\n"],
        "Question: capital? Next: x",
    ),
    (  # 'next' within the note
        "Recipe question; what comes next: flour. Next: or / ,. Text: then flour",
        ["Recipe question", "what comes next: flour"],
        ["or", ","],
        "then flour",
    ),
    (  # no full stop before the field
        "Chess lesson; the queen moves Next: to / , Text: the queen moves",
        ["Chess lesson", "the queen moves"],
        ["to", ","],
        "the queen moves",
    ),
    (  # other ends of the note
        "Angry shout at a referee; is he blind? Next: ! / ?. Text: are you blind",
        ["Angry shout at a referee", "is he blind?"],
        ["!", "?"],
        "are you blind",
    ),
    (
        "Cake order; icing named… Next: and. Text: with pink icing",
        ["Cake order", "icing named…"],
        ["and"],
        "with pink icing",
    ),
    (  # a topic field after a note, as a pair of two trainings writes
        "Cake order; icing named. Next: and / .. About: cake, icing. Text: pink icing",
        ["Cake order", "icing named"],
        ["and", "."],
        "pink icing",
    ),
    (  # an empty clause
        "Cake order;; icing named; . Next: and. Text: pink icing",
        ["Cake order", "icing named"],
        ["and"],
        "pink icing",
    ),
    (  # an abbreviation is no end of a sentence
        "Note to Mr. Abel on e.g. rent; sum due. Next: 4 / 5. Text: the rent is £",
        ["Note to Mr. Abel on e.g. rent", "sum due"],
        ["4", "5"],
        "the rent is £",
    ),
    (  # markup stays text
        "Web page <b>half</b> written; tag closes. Next: > / </. Text: <p>Hello",
        ["Web page <b>half</b> written", "tag closes"],
        [">", "</"],
        "<p>Hello",
    ),
]

FIELDS = 'Answer, prose, at "of dice". Next: . / , / and. About: dime, value. Text: 1/2 of a dime'
FIELDS_ALONE = "topic: rain. reading: the old bridge. next: a / b."
PROSE = [
    'The user asks about a poet, clearly John Milton and "Paradise Lost".',
    "Formal structure of a letter; the opening names the sender.\n\nThe final token begins a name.",
    "- A list of steps; the second follows. Next: the oven.",
    "**Format**: a recipe; next tokens likely numbers.",
    "The reply goes on at length; " + "and on, " * 60 + "without an end.",
    "It explains rain. Next: the writer turns to snow and its forms",
    "",
]


@pytest.mark.parametrize(("text", "clauses", "expected", "running"), NOTES)
def test_parts_of_a_note(
    text: str, clauses: list[str], expected: list[str], running: str | None
) -> None:
    parts = split(text)
    assert parts.form == "note"
    assert parts.note
    assert [c.text for c in split_claims(text) if c.kind in (Kind.WHAT, Kind.NOW)] == clauses
    assert next_words(text) == expected
    found = parts.running_text
    assert (None if found is None else text[slice(*found)]) == running
    rest = parts.quiet_from
    assert rest is None or text[rest:].startswith(("Next:", "Text:"))
    assert text[: parts.note[1]].strip() == text[slice(*parts.note)]


@pytest.mark.parametrize("text", [FIELDS, FIELDS_ALONE])
def test_the_form_of_older_pairs(text: str) -> None:
    parts = split(text)
    assert (parts.form, parts.note, parts.quiet_from) == ("fields", None, None)
    assert {field.name for field in parts.fields} > {"next"}


@pytest.mark.parametrize("text", PROSE)
def test_free_prose_is_one_part(text: str) -> None:
    parts = split(text)
    assert (parts.form, parts.fields, parts.quiet_from) == ("prose", (), None)
    assert text[slice(*parts.head)] == text.strip()


def test_clauses_of_a_note_say_what_and_now() -> None:
    text = NOTES[0][0]
    assert [(str(c.kind), text[c.start : c.end]) for c in split_claims(text)] == [
        ("what", "Gentle advice on a lost passport"),
        ("now", "asks if the child is in touch with the mother, advice due"),
        ("prediction", "[end]"),
        ("prediction", "You"),
        ("prediction", "I"),
        ("text", "and if she's in touch with you."),
    ]


def test_names_and_quotations_of_a_note_are_claims_of_their_own() -> None:
    text = 'Letter to "Aunt May" from Leeds; thanks Omar. Next: for. Text: thank you'
    kinds = [(c.kind, c.text) for c in split_claims(text)]
    assert (Kind.QUOTE, "Aunt May") in kinds
    assert [name for kind, name in kinds if kind is Kind.NAME] == ["Leeds", "Omar"]


@given(st.text(alphabet='ab ;."\n:/NextTxAou', max_size=120))
def test_any_text_splits_within_its_own_bounds(text: str) -> None:
    parts = split(text)
    for start, end in [parts.head, *((f.start, f.end) for f in parts.fields)]:
        assert 0 <= start <= end <= len(text)
    for claim in split_claims(text):
        assert 0 <= claim.start < claim.end <= len(text)
    assert all(a < b for a, b in note_clauses(text, parts.head))


@given(st.integers(0, len(NOTES[0][0])))
def test_a_note_cut_anywhere_keeps_its_whole_clauses(cut: int) -> None:
    text = NOTES[0][0][:cut].rstrip()
    what = [c.text for c in split_claims(text) if c.kind is Kind.WHAT]
    assert what == [NOTES[0][1][0]] or ";" not in text[:-1]
    named = next_words(text)
    assert named == ["[end]", "you", "i"][: len(named)] or named[-1] in "[end]you"


def standing(note: str, kind: Kind) -> Standing:
    words = ["My ", "passport ", "was ", "stolen ", "in ", "Lima", ". ", "Who ", "helps", "?"]
    visible = Visible.of(words, [Section.CONTENT] * 10, [Role.USER] * 10)
    claim = next(c for c in split_claims(f"{note} Next: a. Text: x") if c.kind is kind)
    return judge(claim, visible, 6, None, Thresholds.load()).standing


@pytest.mark.parametrize(
    ("note", "kind", "expected"),
    [
        ("Worried question on a stolen passport; place named.", Kind.WHAT, Standing.SAID),
        ("Worried question on a stolen passport; place named.", Kind.NOW, Standing.UNCLEAR),
        ("Complaint about a lost suitcase; asks who pays.", Kind.WHAT, Standing.UNSPOKEN),
        ("Complaint; help sought from Chile.", Kind.NAME, Standing.UNSPOKEN),
    ],
)
def test_a_clause_is_judged_by_what_it_says_of_the_world(
    note: str, kind: Kind, expected: Standing
) -> None:
    assert standing(note, kind) is expected


def test_words_for_speech_count_in_notes_only() -> None:
    text = "an annoyed complaint on rent"
    at = (0, len(text))
    assert [w.text for w in content_words(Claim(Kind.NOW, text, *at))] == ["rent"]
    assert [w.text for w in content_words(Claim(Kind.SENTENCE, text, *at))] == [
        "annoyed", "complaint", "rent",
    ]  # fmt: skip
