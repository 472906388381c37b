"""An annotated corpus: from marks to labelled tokens, and what is refused."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from nla_core.errors import NLAError
from nla_core.models.chat import Piece
from nla_core.schema import Role, Section
from precompute.cli import main
from precompute.train import notes
from precompute.train.corpus import Window
from precompute.train.examples import Examples, labelable
from precompute.train.notes import AnnotatedDocument, document_of, read_annotated, window_of
from tests.tiny import tiny_base, tiny_tokenizer
from tests.train.conftest import WORDS

TEXT = "rain falls on the old stone bridge and people say that language models hold more"
WEATHER = "Plain description of weather; rain over a bridge being set out."
SPEECH = "Plain description of weather and talk; what people say begins."


def _document(*marks: tuple[int, int, str], **prompt: Any) -> AnnotatedDocument:
    listed = [{"turn": turn, "end": end, "note": note} for turn, end, note in marks]
    return document_of({"doc_id": "d", "notes": listed, **(prompt or {"text": TEXT})})


def _window(document: AnnotatedDocument, max_tokens: int = 256) -> Window:
    return window_of(document, tiny_tokenizer(), max_tokens)


def _text_to(window: Window, position: int, turn: int = 0) -> str:
    """What stands in ``turn`` up to and with the token at ``position``."""
    return "".join(
        p.text
        for p in window.pieces[: position + 1]
        if p.section is Section.CONTENT and p.turn == turn
    )


def _labelled(window: Window, note: str) -> list[int]:
    return [position for position, text in (window.notes or {}).items() if text == note]


# ---- marks to tokens -----------------------------------------------------------------------------


def test_a_note_labels_the_token_of_its_mark_and_a_few_after_it() -> None:
    end = TEXT.index(" and people")
    window = _window(_document((0, end, WEATHER)))
    marked = _labelled(window, WEATHER)
    assert marked == list(range(marked[0], marked[0] + notes.REACH))
    assert _text_to(window, marked[0]) == TEXT[:end]


def test_a_mark_inside_a_token_is_that_of_the_token() -> None:
    end = TEXT.index("bridge") + 1
    window = _window(_document((0, end, WEATHER)))
    first = _labelled(window, WEATHER)[0]
    assert len(_text_to(window, first - 1)) < end <= len(_text_to(window, first))


def test_a_nearer_note_wins_and_reach_ends_with_the_text() -> None:
    first, second = TEXT.index(" people"), TEXT.index(" say")
    window = _window(_document((0, first, WEATHER), (0, second, SPEECH), (0, len(TEXT), "Last.")))
    marked = _labelled(window, SPEECH)
    assert _text_to(window, marked[0]) == TEXT[:second]
    assert max(_labelled(window, WEATHER)) < marked[0]
    assert _labelled(window, "Last.") == [len(window.ids) - 1]


def test_the_first_tokens_get_a_note_that_is_true_of_any_text() -> None:
    window = _window(_document((0, len(TEXT), WEATHER)))
    opening = [p for p, note in (window.notes or {}).items() if note.startswith("Opening words")]
    assert opening == list(range(notes.OPENING))
    early = _window(_document((0, 1, WEATHER)))
    assert not any(note.startswith("Opening") for note in (early.notes or {}).values())


def test_in_a_chat_a_note_stays_in_its_turn() -> None:
    asked, answered = "rain falls on the bridge", "people say that language models hold more"
    window = _window(
        _document(
            (0, len(asked), WEATHER),
            (1, 6, SPEECH),
            messages=[
                {"role": "user", "content": asked},
                {"role": "assistant", "content": answered},
            ],
        )
    )
    assert window.is_chat
    (last,) = _labelled(window, WEATHER)
    assert _text_to(window, last) == asked
    first, *_ = _labelled(window, SPEECH)
    assert _text_to(window, first, turn=1) == "people"
    assert {window.pieces[p].turn for p in _labelled(window, SPEECH)} == {1}
    assert all(window.pieces[p].section is Section.CONTENT for p in window.notes or {})


def test_marks_hold_where_the_template_strips_a_message() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['content']", "message['content'] | trim"
    )
    content = "\n  rain falls on the old bridge \n\n"
    document = _document(
        (0, content.index(" on"), WEATHER),
        (0, len(content), SPEECH),
        messages=[
            {"role": "user", "content": content},
            {"role": "assistant", "content": "people say"},
        ],
    )
    window = window_of(document, tokenizer, 256)
    assert _text_to(window, _labelled(window, WEATHER)[0]) == "rain falls"
    assert [_text_to(window, p) for p in _labelled(window, SPEECH)] == [content.strip()]


def test_a_window_is_cut_and_marks_beyond_it_are_left_out() -> None:
    document = _document((0, TEXT.index(" on"), WEATHER), (0, len(TEXT), SPEECH))
    whole, cut = _window(document), _window(document, 8)
    assert len(cut.ids) == len(cut.pieces) == 8
    assert cut.ids == whole.ids[:8]
    assert _labelled(cut, WEATHER)
    assert not _labelled(cut, SPEECH)
    beyond = _window(_document((0, len(TEXT), SPEECH)), 8)
    assert beyond.notes == {}
    assert labelable(beyond) == []


def test_only_tokens_with_a_note_are_labelled() -> None:
    window = _window(_document((0, TEXT.index(" and people"), WEATHER)))
    assert labelable(window) == _labelled(window, WEATHER)


@pytest.mark.parametrize("role", list(Role))
def test_the_opening_names_who_speaks(role: Role) -> None:
    chat = _document(
        (1, 3, WEATHER),
        messages=[{"role": "system", "content": "be"}, {"role": "user", "content": "rain"}],
    )
    said = notes.beginning(Piece(0, 0, "be", role, Section.CONTENT, 0), chat)
    wanted = {"user": "user's message", "assistant": "reply", "system": "system prompt"}[role]
    assert f"of a {wanted};" in said


# ---- files ---------------------------------------------------------------------------------------


def _line(doc_id: str = "a", **changed: Any) -> dict[str, Any]:
    note = {"turn": 0, "end": 10, "note": WEATHER}
    return {"doc_id": doc_id, "source": "mine", "text": TEXT, "notes": [note], **changed}


def _write(path: Path, *lines: Any) -> Path:
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    data = text.encode("utf-8")
    path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.xz"])
def test_a_file_is_read_whole(tmp_path: Path, name: str) -> None:
    other = "Wetterbericht auf Deutsch; Regen über Köln wird angesagt."
    german = _line("b", text="Über Köln regnet es.", notes=[{"turn": 0, "end": 9, "note": other}])
    path = _write(tmp_path / name, _line(), german)
    assert notes.is_annotated(path)
    first, second = read_annotated(path)
    assert (first.doc_id, first.source, first.prompt) == ("a", "mine", TEXT)
    assert second.notes == (notes.Note(0, 9, other),)


def test_a_byte_order_mark_and_blank_lines_are_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(_line()).encode() + b"\n\n")
    assert notes.is_annotated(path)
    assert len(read_annotated(path)) == 1


def _noted(**changed: Any) -> dict[str, Any]:
    return _line(notes=[{"turn": 0, "end": 10, "note": WEATHER, **changed}])


def _marks(*ends: int) -> dict[str, Any]:
    return _line(notes=[{"turn": 0, "end": end, "note": WEATHER} for end in ends])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (_noted(end=len(TEXT) + 1), f"'notes[0].end': expected 1 to {len(TEXT)}"),
        (_noted(end=0), "'notes[0].end': expected 1 to"),
        (_noted(end=True), "'notes[0].end': expected 1 to"),
        (_noted(turn=1), "'notes[0].turn': expected 0 to 0, found 1"),
        (_noted(turn=-1), "'notes[0].turn'"),
        (_noted(turn="0"), "'notes[0].turn'"),
        (_marks(10, 10), "'notes[1]': its mark does not come after the one before"),
        (_marks(10, 20, 15), "'notes[2]': its mark does not come after the one before"),
        (_noted(note=" "), "'notes[0].note': expected a text"),
        (_noted(note=7), "'notes[0].note': expected a text"),
        (_noted(note="x" * 10_000), "expected up to 400 characters, found 10000"),
        (_noted(note="one\ntwo"), "'notes[0].note': expected one line"),
        (_noted(note="one\u2028two"), "'notes[0].note': expected one line"),
        (_line(notes=[]), "'notes': expected a list of at least one note"),
        (_line(notes=[WEATHER]), "'notes[0]': expected an object"),
        (_line(notes=None), "'notes': expected a list"),
        (_line(doc_id=""), "'doc_id': expected a text"),
        (_line(text=""), "'text': expected a text"),
        (_line(messages=[]), "expected either 'text' or 'messages'"),
        ({"doc_id": "a", "notes": []}, "expected either 'text' or 'messages'"),
        (_line("first"), "'doc_id': 'first' stands in line 1 too"),
        ([], "expected an object"),
    ],
)
def test_a_mistake_is_named_by_line_and_nothing_is_taken(
    tmp_path: Path, line: Any, said: str
) -> None:
    path = _write(tmp_path / "a.jsonl", _line("first"), line, _line("last"))
    with pytest.raises(NLAError) as refused:
        read_annotated(path)
    assert refused.value.why.startswith("line 2: ")
    assert said in refused.value.why
    assert "1 lines" in refused.value.what
    assert "nothing was taken" in refused.value.fix


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (json.dumps(_line("b")).encode()[:60], "is not JSON"),
        (b'{"doc_id": "\xff"}', "is not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_a_line_that_is_not_json(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "half.jsonl"
    path.write_bytes(json.dumps(_line()).encode() + b"\n" + data)
    with pytest.raises(NLAError) as refused:
        read_annotated(path)
    assert refused.value.why.startswith("line 2: ")
    assert said in refused.value.why


def test_half_an_archive_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl.xz", *(_line(f"d{i}") for i in range(200)))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(NLAError, match="cannot be read as an annotated corpus"):
        read_annotated(path)


def test_an_empty_file_and_many_mistakes(tmp_path: Path) -> None:
    with pytest.raises(NLAError, match="is empty"):
        read_annotated(_write(tmp_path / "none.jsonl"))
    with pytest.raises(NLAError, match=r"has 15 lines.*line 10.*and 5 more"):
        read_annotated(_write(tmp_path / "a.jsonl", *(_noted(end=0) for _ in range(15))))


def test_other_files_are_not_annotated(tmp_path: Path) -> None:
    assert not notes.is_annotated(_write(tmp_path / "a.jsonl", {"doc_id": "a", "text": "b"}))
    assert not notes.is_annotated(_write(tmp_path / "a.txt", _line()))
    assert not notes.is_annotated(tmp_path / "none.jsonl")


def test_splits_are_a_matter_of_the_id_alone() -> None:
    found = [notes.split_of(f"doc-{i}") for i in range(2000)]
    assert found == [notes.split_of(f"doc-{i}") for i in range(2000)]
    assert set(found) == set(notes.SPLITS)
    assert 0.06 < found.count("val") / len(found) < 0.10


# ---- train data ----------------------------------------------------------------------------------


def _corpus(path: Path, n: int = 40) -> Path:
    lines = []
    for i in range(n):
        text = " ".join(WORDS[(i * 7 + k * 3) % 30] for k in range(30))
        ends = [k for k, c in enumerate(text) if c == " "][9::6]
        listed = [{"turn": 0, "end": end, "note": f"Words, text {i}; mark {end}."} for end in ends]
        prompt: dict[str, Any] = {"text": text}
        if i % 2:
            prompt = {"messages": [{"role": "user", "content": text}]}
        lines.append({"doc_id": f"d{i}", "source": "made", **prompt, "notes": listed})
    return _write(path, *lines)


def _data(tmp_path: Path, corpus: Path, *more: str) -> int:
    base = tmp_path / "base"
    if not base.is_dir():
        tiny_base(base)
    model = ["--target", str(base), "--layer", "2", "--device", "cpu", "--dtype", "float32"]
    out = ["--out", str(tmp_path / "data")]
    return main(["train", "data", "--corpus", str(corpus), *out, *model, *more])


def test_the_label_of_a_vector_is_its_note(tmp_path: Path) -> None:
    assert _data(tmp_path, _corpus(tmp_path / "a.jsonl")) == 0
    for split in notes.SPLITS:
        rows = Examples.load(tmp_path / "data" / split).rows
        assert len(rows) > 5
        assert {notes.split_of(doc_id) for doc_id in rows["doc_id"]} == {split}
        for doc_id, label in zip(rows["doc_id"], rows["label"], strict=True):
            assert label.startswith((f"Words, text {doc_id[1:]}; mark ", "Opening words of a "))
            assert " Text: " in label
        assert rows["is_chat"].any()
        assert not rows["is_chat"].all()


@pytest.mark.parametrize(
    ("lines", "flags", "said"),
    [
        ([_line("good"), _noted(end=9999)], (), "line 2"),
        ([_line("good")], (), "too small for its splits"),
        ([_line("good")], ("--teacher", "local", "--teacher-model", "x"), "holds its own labels"),
    ],
)
def test_data_refuses_and_leaves_no_examples(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lines: list[Any],
    flags: tuple[str, ...],
    said: str,
) -> None:
    assert _data(tmp_path, _write(tmp_path / "a.jsonl", *lines), *flags) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "data").glob("*/part-*"))
