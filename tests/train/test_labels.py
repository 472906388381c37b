"""Labels say the last token, its tail, what comes next and the topic, and nothing else."""

from __future__ import annotations

from nla_core.nla.layout import prompt_ids, raw_pieces, with_answer
from precompute.train.labels import Idf, next_words, structured_label, tail_text, tidy, topic_words
from tests.tiny import tiny_tokenizer

IDF = Idf.fit(["the quick brown fox", "rain falls on the bridge", "people say that models hold"])


def _raw(text: str):
    tokenizer = tiny_tokenizer()
    return raw_pieces(tokenizer, tokenizer(text)["input_ids"])


def test_label_is_built_from_the_prefix() -> None:
    pieces = _raw("rain falls on the old stone bridge and people say that")
    label = structured_label(pieces, [" models", " rain", " the"], [0.5, 0.3, 0.01], IDF)
    assert label.startswith('At "that": "')
    assert "people say that" in label
    assert "Next: models / rain." in label
    assert label.count('"') == 4


def test_tail_stops_at_the_turn_and_names_the_speaker() -> None:
    tokenizer = tiny_tokenizer()
    prompt = prompt_ids(tokenizer, [{"role": "user", "content": "rain falls"}])
    _, pieces = with_answer(tokenizer, prompt, tokenizer("the fox")["input_ids"])
    tail = tail_text(pieces)
    assert tail == "[assistant] the fox"


def test_tail_starts_at_a_word() -> None:
    tail = tail_text(_raw("language models hold more than they tell people"))
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
