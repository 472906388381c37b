"""Questions about marks, answers to them, and the annotated corpus that they become."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from nla_core.errors import NLAError
from precompute.cli import main
from precompute.train.annotate import (
    _TOKEN,
    EVERY,
    SHORTEST,
    import_answers,
    marks_of,
    read_questions,
)
from precompute.train.notes import AnnotatedDocument, document_of, is_annotated, read_annotated
from precompute.train.questions import note_of
from tests.train.conftest import WORDS
from tests.train.fake_chat import Service

NOTE = "Words about foxes and rain; the next of them is due."


def _sentences(seed: int, n: int) -> str:
    rng = random.Random(seed)
    return " ".join(" ".join(rng.choices(WORDS, k=9)) + "." for _ in range(n))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Conversations and plain texts."""
    lines: list[dict[str, Any]] = [
        {
            "doc_id": f"chat-{i}",
            "source": "made",
            "messages": [
                {"role": "user", "content": _sentences(i, 3)},
                {"role": "assistant", "content": _sentences(100 + i, 8)},
            ],
        }
        for i in range(3)
    ]
    lines.append({"doc_id": "text-é", "source": "made", "text": _sentences(7, 10)})
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.fixture
def questions(tmp_path: Path, corpus: Path) -> Path:
    assert _export(corpus, tmp_path / "questions.jsonl") == 0
    return tmp_path / "questions.jsonl"


def _export(corpus: Path, out: Path, *more: str) -> int:
    return main(
        ["train", "annotate", "--export", "--corpus", str(corpus), "--out", str(out), *more]
    )


def _import(answers: Path, questions: Path, *more: str) -> int:
    files = ["--import", str(answers), "--questions", str(questions)]
    return main(
        ["train", "annotate", *files, "--out", str(answers.with_name("annotated.jsonl")), *more]
    )


def _asked(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _answers(path: Path, asked: list[dict[str, Any]]) -> Path:
    """One good answer a question."""
    lines = [{"export": q["export"], "id": q["id"], "note": f"{q['id']} {NOTE}"} for q in asked]
    return _write(path, lines)


def _write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


# ---- marks and questions -------------------------------------------------------------------------


def _text(text: str, doc_id: str = "d") -> AnnotatedDocument:
    return AnnotatedDocument(doc_id, "made", text, ())


def test_marks_are_some_tokens_apart_and_reach_the_end() -> None:
    text = _sentences(1, 30)
    ends = [end for _, end in marks_of(_text(text), seed=0, max_tokens=10_000)]
    steps = [len(_TOKEN.findall(text[a:b])) for a, b in zip(ends, ends[1:], strict=False)]
    assert len(ends) > 8
    assert all(EVERY[0] <= step <= EVERY[1] for step in steps[:-1])
    assert SHORTEST <= steps[-1] <= EVERY[1]
    assert len(text) - ends[-1] <= len(" ".join(WORDS[:SHORTEST])) + SHORTEST
    at_sentences = sum(text[end - 1] == "." for end in ends)
    assert 0 < at_sentences < len(ends)


def test_marks_follow_from_seed_and_text() -> None:
    documents = [_text(_sentences(2, 20), f"d{i}") for i in range(4)]
    found = [marks_of(one, seed=0, max_tokens=400) for one in documents]
    assert found == [marks_of(one, seed=0, max_tokens=400) for one in documents]
    assert len({tuple(marks) for marks in found}) == 4
    assert found != [marks_of(one, seed=1, max_tokens=400) for one in documents]


def test_no_mark_lies_beyond_the_tokens_that_are_read() -> None:
    text = _sentences(3, 40)
    ends = [end for _, end in marks_of(_text(text), seed=0, max_tokens=100)]
    assert len(_TOKEN.findall(text[: ends[-1]])) <= 100


@pytest.mark.parametrize("text", ["short one", "。" * 3, "x"])
def test_a_text_with_hardly_a_word_has_no_mark(text: str) -> None:
    assert marks_of(_text(text), seed=0, max_tokens=100) == []


def test_another_script_has_marks_too() -> None:
    text = "料理の手順についての文章です。" * 20
    marks = marks_of(_text(text), seed=0, max_tokens=1000)
    assert len(marks) >= 2


def test_a_question_shows_the_text_up_to_its_mark(questions: Path, corpus: Path) -> None:
    given = {line["doc_id"]: line for line in _asked(corpus)}
    asked = _asked(questions)
    assert len({line["export"] for line in asked}) == 1
    assert len({line["id"] for line in asked}) == len(asked) > 12
    assert {line["turn"] for line in asked} == {0, 1}
    for line in asked:
        one = given[line["doc_id"]]
        turns = [one["text"]] if "text" in one else [m["content"] for m in one["messages"]]
        shown = line["question"].split("\n-----\n")[1]
        assert shown.endswith(turns[line["turn"]][: line["end"]])
        if "messages" in one:
            assert shown.startswith(f"[user] {turns[0][:20]}")
            assert ("[assistant]" in shown) == (line["turn"] == 1)
        assert "11 to 22 words" in line["question"]


def test_the_same_export_is_the_same_file(questions: Path, corpus: Path, tmp_path: Path) -> None:
    assert _export(corpus, tmp_path / "again.jsonl") == 0
    assert (tmp_path / "again.jsonl").read_bytes() == questions.read_bytes()
    assert _export(corpus, tmp_path / "other.jsonl", "--seed", "1") == 0
    assert _asked(tmp_path / "other.jsonl")[0]["export"] != _asked(questions)[0]["export"]


def test_plain_text_can_be_exported(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(_sentences(4, 30), encoding="utf-8")
    assert _export(tmp_path / "a.txt", tmp_path / "q.jsonl", "--max-documents", "1") == 0
    assert len(_asked(tmp_path / "q.jsonl")) > 3


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"doc_id": "a", "messages": [{"role": "bot", "content": "x"}]}], "line 1: field"),
        ([{"doc_id": "a", "text": "two words"}], "nothing to ask"),
    ],
)
def test_a_bad_corpus_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[Any], said: str
) -> None:
    out = tmp_path / "q.jsonl"
    assert _export(_write(tmp_path / "c.jsonl", lines), out) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


# ---- answers -------------------------------------------------------------------------------------


def test_answers_become_an_annotated_corpus(questions: Path, corpus: Path, tmp_path: Path) -> None:
    asked = _asked(questions)
    answers = _answers(tmp_path / "answers.jsonl", asked[::-1])  # in any order
    assert _import(answers, questions) == 0
    out = tmp_path / "annotated.jsonl"
    assert is_annotated(out)
    documents = {one.doc_id: one for one in read_annotated(out)}
    for line in _asked(corpus):
        without = document_of(line, with_notes=False)
        one = documents.pop(line["doc_id"])
        assert (one.prompt, one.source) == (without.prompt, without.source)
        wanted = [q for q in asked if q["doc_id"] == one.doc_id]
        assert [(n.turn, n.end, n.text) for n in one.notes] == [
            (q["turn"], q["end"], f"{q['id']} {NOTE}") for q in wanted
        ]
    assert not documents
    assert set(_asked(out)[0]) == {"doc_id", "source", "messages", "notes"}


def test_questions_with_a_note_added_are_answers(questions: Path, tmp_path: Path) -> None:
    lines = [line | {"note": NOTE} for line in _asked(questions)]
    assert _import(_write(tmp_path / "answers.jsonl", lines), questions) == 0


def test_missing_answers_need_a_yes(
    questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = _asked(questions)
    answers = _answers(tmp_path / "answers.jsonl", asked[:5])
    out = tmp_path / "annotated.jsonl"
    out.write_text("what was there before")
    assert _import(answers, questions) == 2
    said = capsys.readouterr().err
    assert f"{len(asked) - 5} of {len(asked)} questions open" in said
    assert asked[5]["id"] in said
    assert "line 6" in said
    assert out.read_text() == "what was there before"
    assert _import(answers, questions, "--partial") == 0
    assert sum(len(one.notes) for one in read_annotated(out)) == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"note": "Too short."}, "expected 3 to 40 words, found 2"),
        ({"note": "word " * 41}, "expected 3 to 40 words, found 41"),
        ({"note": "one two three\nfour"}, "expected one line"),
        ({"note": "one two three\u2028four"}, "expected one line"),
        ({"note": "x" * 10_000}, "expected up to 400 characters, found 10000"),
        ({"note": " "}, "expected a text"),
        ({"note": None}, "expected a text"),
        ({"id": "0" * 16}, "no question of this export"),
        ({"id": None}, "no question of this export"),
        ({"id": []}, "no question of this export"),
        ({"export": "other"}, "it answers another export"),
        ({"export": None}, "it answers another export"),
        ([], "expected an object"),
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_a_mistake_is_named_and_nothing_is_taken(
    questions: Path, tmp_path: Path, change: Any, said: str, partial: bool
) -> None:
    path = _answers(tmp_path / "answers.jsonl", _asked(questions))
    lines = _asked(path)
    lines[2] = lines[2] | change if isinstance(change, dict) else change
    out = tmp_path / "annotated.jsonl"
    with pytest.raises(NLAError) as refused:
        import_answers(_write(path, lines), questions, out, partial=partial)
    assert refused.value.why.startswith("line 3: ")
    assert said in refused.value.why
    assert not out.exists()


def test_an_answer_may_be_given_once(questions: Path, tmp_path: Path) -> None:
    path = _answers(tmp_path / "answers.jsonl", _asked(questions))
    lines = _asked(path)
    _write(path, [*lines, lines[1]])
    with pytest.raises(NLAError, match=rf"line {len(lines) + 1}: .*line 2 answers it, too"):
        import_answers(path, questions, tmp_path / "annotated.jsonl")


def test_half_a_file_of_answers(questions: Path, tmp_path: Path) -> None:
    path = _answers(tmp_path / "answers.jsonl", _asked(questions))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(NLAError, match="is not JSON"):
        import_answers(path, questions, tmp_path / "annotated.jsonl", partial=True)
    path.write_text("\n")
    with pytest.raises(NLAError, match="is empty"):
        import_answers(path, questions, tmp_path / "annotated.jsonl", partial=True)


@pytest.mark.parametrize("change", ["cut", "edited", "other", "not questions"])
def test_questions_that_were_changed_are_refused(questions: Path, change: str) -> None:
    lines = _asked(questions)
    if change == "cut":
        _write(questions, lines[:-1])
    elif change == "edited":
        lines[0]["end"] -= 1
        _write(questions, lines)
    elif change == "other":
        _write(questions, [line | {"export": "0" * 64} for line in lines])
    else:
        _write(questions, [{"doc_id": "a", "text": "b"}, 3])
    with pytest.raises(NLAError, match="not what was exported|not questions"):
        read_questions(questions)


# ---- teachers answer -----------------------------------------------------------------------------


def _answer(questions: Path, out: Path, service: Service, *more: str) -> int:
    arguments = ["train", "annotate", "--answer", "--questions", str(questions), "--out", str(out)]
    teacher = ["--teacher", "api", "--teacher-model", "some-model", "--base-url", service.url]
    return main([*arguments, *teacher, "--workers", "1", *more])


def test_a_service_answers_the_same_questions(
    questions: Path, tmp_path: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, out = _asked(questions), tmp_path / "answers.jsonl"
    bad = asked[3]["question"]
    service.otherwise = lambda handler, message: handler.answer(
        "I'm sorry." if message == bad else f'Sure! Here is the note: "{NOTE}"'
    )
    assert _answer(questions, out, service) == 2
    assert "nobody agreed to the cost" in capsys.readouterr().err
    assert service.seen == []
    assert _answer(questions, out, service, "--yes") == 0
    assert sorted(service.messages) == sorted([bad] + [line["question"] for line in asked])
    assert [line["id"] for line in _asked(out)] == [q["id"] for i, q in enumerate(asked) if i != 3]
    assert {line["note"] for line in _asked(out)} == {NOTE}
    assert _import(out, questions) == 2
    assert _import(out, questions, "--partial") == 0


def test_answering_goes_on_where_it_was_stopped(
    questions: Path, tmp_path: Path, service: Service
) -> None:
    asked = _asked(questions)
    out = _answers(tmp_path / "answers.jsonl", asked[:4])
    before = out.read_text()
    with out.open("a") as stream:
        stream.write('{"export": "half a li')
    service.otherwise = lambda handler, _: handler.answer(NOTE)
    assert _answer(questions, out, service, "--yes") == 0
    assert out.read_text().startswith(before)
    assert len(service.seen) == len(asked) - 4
    assert _import(out, questions) == 0


def test_a_last_answer_without_a_line_end_is_kept(
    questions: Path, tmp_path: Path, service: Service
) -> None:
    out = _answers(tmp_path / "answers.jsonl", _asked(questions))
    out.write_bytes(out.read_bytes().rstrip(b"\n"))
    assert _answer(questions, out, service, "--yes") == 0
    assert service.seen == []
    assert _import(out, questions) == 0


def test_a_local_model_answers_the_same_questions(
    questions: Path, tmp_path: Path, teacher_model: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    arguments = ["train", "annotate", "--answer", "--questions", str(questions), "--out", str(out)]
    teacher = ["--teacher", "local", "--teacher-model", str(teacher_model), "--device", "cpu"]
    teacher += ["--dtype", "float32", "--teacher-tokens", "12", "--teacher-temperature", "1"]
    assert main([*arguments, *teacher]) == 0
    known = {line["id"] for line in _asked(questions)}
    assert {line["id"] for line in _asked(out)} <= known


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--answer", "--questions", "q.jsonl"], "--answer needs a language model"),
        (["--answer"], "--questions is not given"),
        (["--import", "a.jsonl"], "--questions is not given"),
        (["--export"], "--corpus is not given"),
        (["--import", "none.jsonl", "--questions", "none.jsonl"], "cannot be read"),
    ],
)
def test_what_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flags: list[str], said: str
) -> None:
    assert main(["train", "annotate", *flags, "--out", str(tmp_path / "x")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (f'Sure! Here is the note: "{NOTE}"', NOTE),
        (f"<think>hm</think>\n{NOTE}\n\nThat is it.", NOTE),
        ("", ""),
        ("I cannot do that with this text.", ""),
        ("wording " * 60, ""),  # cut in the middle: not a note
    ],
)
def test_a_note_is_taken_out_of_an_answer(answer: str, note: str) -> None:
    assert note_of(answer) == note
