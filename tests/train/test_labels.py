"""Labels say the place, the last words, what comes next, the topic and the text, and no more."""

from __future__ import annotations

import random

import pytest

from nla_core.models.chat import prompt_ids, raw_pieces, with_answer
from precompute.train.labels import (
    Idf,
    genre,
    last_words,
    next_words,
    note_label,
    parts_of_label,
    place,
    structured_label,
    tail_text,
    tidy,
    topic_words,
    without_parts,
)
from tests.tiny import tiny_tokenizer

IDF = Idf.fit(["the quick brown fox", "rain falls on the bridge", "people say that models hold"])


def _raw(text: str):
    tokenizer = tiny_tokenizer()
    return raw_pieces(tokenizer, tokenizer(text)["input_ids"])


def _chat(question: str, answer: str):
    tokenizer = tiny_tokenizer()
    prompt = prompt_ids(tokenizer, [{"role": "user", "content": question}])
    return with_answer(tokenizer, prompt, tokenizer(answer)["input_ids"])[1]


def test_label_is_built_from_the_prefix_and_ends_with_it() -> None:
    text = "rain falls on the old stone bridge and people say that"
    label = structured_label(_raw(text), [" models", " rain", " the"], [0.5, 0.3, 0.01], IDF)
    assert label.startswith('Text, prose, at "say that". ')
    assert "Next: models / rain." in label
    tail = label.partition("Text: ")[2]
    assert tail
    assert text.endswith(tail)
    assert label.count('"') == 2


def test_fields_and_lengths_vary_with_the_generator_alone() -> None:
    pieces = _raw("quick brown foxes watch while rain falls on the old stone bridge")
    labels = [
        structured_label(pieces, [" models"], [0.5], IDF, rng=random.Random(seed))
        for seed in range(60)
    ]
    again = structured_label(pieces, [" models"], [0.5], IDF, rng=random.Random(7))
    assert labels[7] == again
    assert len({label.partition("Text: ")[2] for label in labels}) > 1
    assert 0 < sum("Next:" in label for label in labels) < 60
    assert all(label.endswith("bridge") for label in labels)


def test_place_names_speaker_and_kind() -> None:
    assert place(_raw("rain falls on the bridge")) == "Text, prose"
    assert place(_chat("rain falls", "the fox")) == "Answer, prose"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the old bridge", "prose"),
        ("for (x) { y(); }", "code"),
        ("- one\n- two\n", "list"),
        ("Mary: hello\nJohn: hi\n", "speech"),
        ("12 + 30 = 42", "numbers"),
    ],
)
def test_genre(text: str, expected: str) -> None:
    assert genre(text) == expected


def test_last_words_are_those_of_the_turn() -> None:
    assert last_words(_raw("rain falls on the old stone bridge")) == "stone bridge"
    assert last_words(_chat("rain falls", "fox")) == "fox"


def test_tail_stops_at_the_turn_and_names_the_speaker() -> None:
    assert tail_text(_chat("rain falls", "the fox"), 7) == "[assistant] the fox"


def test_tail_starts_at_a_word() -> None:
    tail = tail_text(_raw("language models hold more than they tell people"), 7)
    assert "language models hold more than they tell people".endswith(tail)
    words = ["language", "models", "hold", "more", "than", "they", "tell", "people"]
    assert all(word in words for word in tail.split())


def test_next_words_are_distinct_and_likely() -> None:
    assert next_words([" a", "a", " b", " c"], [0.4, 0.3, 0.2, 0.01]) == ["a", "b"]
    assert next_words(["x"], [0.001]) == ["x"]
    assert next_words(["<|im_end|>"], [0.9]) == ["[end]"]


def test_topic_words_leave_out_the_tail() -> None:
    pieces = _raw("quick brown foxes watch while rain falls on the old stone bridge")
    topic = topic_words(pieces, "stone bridge", IDF)
    assert topic
    assert not {"stone", "bridge"} & set(topic)


def test_tidy_makes_one_line_that_can_be_quoted() -> None:
    assert tidy(' a"b\n\tc ') == "a'b\\n\\tc"


# ---- parts ---------------------------------------------------------------------------------------

NOTE = "Complaint about rain; Next train home being named."


def test_both_forms_are_split_into_their_parts() -> None:
    pieces = _raw("rain falls on the old stone bridge and people say that")
    structured = structured_label(pieces, [" models"], [0.5], IDF)
    place_, next_, about, text = parts_of_label(structured)
    assert place_ == 'Text, prose, at "say that".'
    assert next_ == "Next: models."
    assert about.startswith("About: ")
    assert text.startswith("Text: ")
    noted = note_label(NOTE, pieces, [" models", "."], [0.5, 0.3])
    assert parts_of_label(noted)[:2] == [NOTE, "Next: models / .."]
    assert parts_of_label(note_label(NOTE, pieces, [], []))[0] == NOTE
    for label in (structured, noted):
        assert " ".join(parts_of_label(label)) == label


@pytest.mark.parametrize("word", [" Text:", " Next:", " About:", "."])
def test_words_that_look_like_names_of_parts_stay_where_they_are(word: str) -> None:
    pieces = _raw("people say Text: that rain falls on the bridge")
    label = note_label(NOTE, pieces, [word, " a"], [0.5, 0.3])
    parts = parts_of_label(label)
    assert len(parts) == 3
    assert parts[1] == f"Next: {word.strip()} / a."
    assert " ".join(parts) == label


@pytest.mark.parametrize("label", ["A recipe in steps.\nEnds on flour.", "fox dog", "料理の手順"])
def test_a_label_of_another_form_is_one_part(label: str) -> None:
    assert parts_of_label(label) == [label]
    assert without_parts(label, 0.9, random.Random(0)) == label


def test_parts_are_left_out_by_chance_and_never_all() -> None:
    label = f"{NOTE} Next: models. Text: people say that"
    parts = parts_of_label(label)
    assert len(parts) == 3
    assert without_parts(label, 0.0, random.Random(0)) == label
    found = [without_parts(label, 0.5, random.Random(seed)) for seed in range(400)]
    assert found == [without_parts(label, 0.5, random.Random(seed)) for seed in range(400)]
    orders = {" ".join(p for p, keep in zip(parts, keeps, strict=True) if keep) for keeps in (
        (1, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)
    )}  # fmt: skip
    assert set(found) == orders
    often = [without_parts(label, 0.99, random.Random(seed)) for seed in range(50)]
    assert sum(text in parts for text in often) > 45
