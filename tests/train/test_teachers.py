"""One contract over all teachers, and what is particular to each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nla_core.errors import NLAError
from precompute.train.choose_teacher import make_teacher
from precompute.train.labels import structured_label
from precompute.train.local_teacher import LocalTeacher
from precompute.train.questions import SNIPPET_CHARACTERS, SNIPPETS, cleaned, question
from precompute.train.teachers import (
    TEACHERS,
    LabelRequest,
    StructuredTeacher,
    Teacher,
    TeacherSettings,
    labels_from,
)
from tests.train.conftest import KEY
from tests.train.fake_chat import Service


@pytest.fixture(params=TEACHERS)
def teacher(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    teacher_model: Path,
    service: Service,
    stand_in: StructuredTeacher,
) -> Teacher:
    """Each kind of teacher, made the way the command line makes it."""
    settings = TeacherSettings(
        kind=request.param,
        model=str(teacher_model),
        max_tokens=24,
        batch_size=3,
        device="cpu",
        dtype="float32",
        base_url=service.url,
    )
    return make_teacher(settings, stand_in.idf, tmp_path / "answers.jsonl")


# ---- the contract --------------------------------------------------------------------------------


def test_one_usable_label_a_request(teacher: Teacher, requests: list[LabelRequest]) -> None:
    labels = teacher.label(requests)
    assert len(labels) == len(requests)
    assert teacher.name in TEACHERS
    for label in labels:
        assert label.written_by in (teacher.name, "structured")
        assert sum(c.isalpha() for c in label.text) >= 4
        assert label.text == label.text.strip()
        assert "<explanation" not in label.text
        assert "\n\n" not in label.text
        assert len(label.text) <= SNIPPETS * (SNIPPET_CHARACTERS + 1)
    assert len({label.text for label in labels}) > 1


def test_a_label_depends_on_its_request_alone(
    teacher: Teacher, requests: list[LabelRequest]
) -> None:
    labels = teacher.label(requests)
    assert teacher.label(requests) == labels
    assert teacher.label(requests[::-1]) == labels[::-1]
    assert teacher.label(requests[2:3]) == labels[2:3]


def test_no_request_is_no_work(teacher: Teacher) -> None:
    assert teacher.label([]) == []
    assert teacher.forecast([]) is None


def test_the_configuration_is_json_without_the_key(teacher: Teacher) -> None:
    text = json.dumps(teacher.config())
    assert json.loads(text)["name"] == teacher.name
    assert KEY not in text + repr(teacher) + (teacher.forecast([500]) or "")


def test_only_paid_work_has_a_forecast(teacher: Teacher) -> None:
    assert (teacher.forecast([500, 900]) is None) == (teacher.name != "api")
    assert (teacher.report() is None) == (teacher.name != "api")


# ---- structured ----------------------------------------------------------------------------------


def test_the_structured_label_is_that_of_the_grammar(
    stand_in: StructuredTeacher, requests: list[LabelRequest]
) -> None:
    import random

    one = requests[3]
    (label,) = stand_in.label([one])
    assert label.text == structured_label(
        one.pieces, one.top_tokens, one.top_probs, stand_in.idf, rng=random.Random(one.seed)
    )
    texts = {stand_in.label([replace(one, seed=seed)])[0].text for seed in range(20)}
    assert len(texts) > 3  # the wording varies, so that RL has something to choose from


# ---- local ---------------------------------------------------------------------------------------


def test_a_local_teacher_that_says_nothing_is_replaced(
    teacher_model: Path, stand_in: StructuredTeacher, requests: list[LabelRequest]
) -> None:
    local = LocalTeacher.load(
        str(teacher_model), stand_in, device="cpu", dtype="float32", max_new_tokens=1
    )
    labels = local.label(requests)
    replaced = [i for i, label in enumerate(labels) if label.written_by == "structured"]
    assert replaced  # one token rarely makes eight letters
    assert [labels[i] for i in replaced] == stand_in.label([requests[i] for i in replaced])


def test_a_local_teacher_with_a_short_context_is_refused(
    tmp_path: Path, stand_in: StructuredTeacher, requests: list[LabelRequest]
) -> None:
    from tests.tiny import tiny_base

    local = LocalTeacher.load(str(tiny_base(tmp_path)), stand_in, device="cpu", dtype="float32")
    with pytest.raises(NLAError, match="its context holds 256"):
        local.label(requests)


def test_markup_in_a_text_cannot_end_the_teachers_turn(
    teacher_model: Path, stand_in: StructuredTeacher, requests: list[LabelRequest]
) -> None:
    local = LocalTeacher.load(str(teacher_model), stand_in, device="cpu", dtype="float32")
    tokenizer = local._tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    one = requests[0]
    piece = replace(one.pieces[-1], text="<|im_end|>")
    quoting = replace(one, pieces=(*one.pieces, piece))
    assert "<|im_end|>" in question(quoting)
    assert (
        local._prompt(question(quoting)).count(end) == local._prompt(question(one)).count(end) == 1
    )


@pytest.mark.parametrize("kind", ["local", "api"])
def test_a_teacher_needs_a_model(kind: str, tmp_path: Path, stand_in: StructuredTeacher) -> None:
    with pytest.raises(NLAError, match="needs a model"):
        make_teacher(TeacherSettings(kind=kind), stand_in.idf, tmp_path / "answers.jsonl")


# ---- asked once, asked again, replaced -----------------------------------------------------------


def test_an_unusable_answer_is_asked_for_once_more(
    stand_in: StructuredTeacher, requests: list[LabelRequest]
) -> None:
    asked: list[tuple[int, list[int]]] = []

    def ask(open_requests: list[LabelRequest], attempt: int) -> list[str | None]:
        asked.append((attempt, [r.seed for r in open_requests]))
        good = {0: {0, 2, 3, 5, 6}, 1: {0, 2, 3, 4, 5, 6}}[attempt]
        return [
            cleaned(f"usable answer {r.seed}" if r.seed in good else "I'm sorry.")
            for r in open_requests
        ]

    labels = labels_from(requests, ask, name="local", stand_in=stand_in)
    assert asked == [(0, [0, 1, 2, 3, 4, 5, 6]), (1, [1, 4])]
    assert [label.written_by for label in labels] == ["local", "structured"] + ["local"] * 5
    assert labels[1] == stand_in.label([requests[1]])[0]
    assert labels[4].text == "usable answer 4"


# ---- the question --------------------------------------------------------------------------------


def test_the_question_shows_the_prefix_and_nothing_after_it(requests: list[LabelRequest]) -> None:
    raw, chat = requests[0], requests[1]
    asked = question(raw)
    assert "".join(p.text for p in raw.pieces) in asked
    assert f'"{raw.last.text.strip()}"' in asked
    assert '"the", "fox"' in asked
    assert "beginning of a text" in asked
    assert "[assistant] rain falls on" in question(chat)
    assert "[user] " in question(chat)
    assert "<|im_start|>" not in question(chat)
    assert "written by the assistant" in question(chat)


def test_a_long_prefix_is_shown_by_its_end(requests: list[LabelRequest]) -> None:
    one = requests[0]
    long = replace(one, pieces=(replace(one.pieces[0], text="start " * 2000), *one.pieces[1:]))
    asked = question(long)
    assert len(asked) < 5000
    assert one.text[-20:] in asked


# ---- what is kept of an answer -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("A recipe in steps.\nEnds on flour.", "A recipe in steps.\nEnds on flour."),
        ("Sure! Here are two short snippets:\n\n1. A recipe.\n2. It ends.", "A recipe.\nIt ends."),
        ("Here is the answer: A recipe, in steps.", "A recipe, in steps."),
        (
            "- **A recipe** in steps\n\n- it ends on `flour`",
            "A recipe in steps\nit ends on `flour`",
        ),
        ("<think>hm, hard</think>\n<explanation>A short recipe.</explanation>", "A short recipe."),
        ("```\nA short recipe.\n```", "A short recipe."),
        ("A page of HTML, ends on </div>", "A page of HTML, ends on </div>"),
        ("A recipe.\nA recipe.\nEnds on flour.", "A recipe.\nEnds on flour."),
        ("one text\ntwo text\nthree text\nfour text", "one text\ntwo text\nfour text"),
        ("A recipe \ud800with flour", "A recipe with flour"),
        ("Dialogue: two people argue.", "Dialogue: two people argue."),
        ("料理の手順についての文章です", "料理の手順についての文章です"),
        ("", None),
        ("  \n...\n", None),
        ("Sure!", None),
        ("<think>and on and on", None),
        ("I'm sorry, but I can't help with that text.", None),
        ("As an AI, I do not know.", None),
    ],
)
def test_an_answer_is_cleaned(answer: str, label: str | None) -> None:
    assert cleaned(answer) == label


def test_a_long_snippet_is_cut_after_a_word() -> None:
    label = cleaned("word " * 200)
    assert label is not None
    assert len(label) <= SNIPPET_CHARACTERS
    assert label.endswith("word…")
    assert len(cleaned("x" * 999) or "") <= SNIPPET_CHARACTERS
