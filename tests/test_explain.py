"""Explainer on a whole tiny pair: streaming, ids, flags, cancelling, bad input."""

from __future__ import annotations

import pytest
import torch

from nla_core.errors import Cancelled, NLAError
from nla_core.explain import Explainer
from nla_core.readings import Transcript
from tests.tiny import tiny_pair

PROMPT = [{"role": "user", "content": "the quick 😀 brown fox"}]
OTHER = [{"role": "system", "content": "rain"}, {"role": "user", "content": "people say"}]


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    return Explainer.load(tiny_pair(tmp_path_factory.mktemp("pair")), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def transcripts(explainer: Explainer) -> list[Transcript]:
    return _transcribe(explainer, [PROMPT, OTHER])


def _transcribe(explainer: Explainer, prompts, max_new_tokens: int = 8) -> list[Transcript]:
    made = explainer.transcribe(
        prompts, seeds=[1] * len(prompts), max_new_tokens=max_new_tokens, temperature=0.0
    )
    assert all(isinstance(t, Transcript) for t in made)
    return made  # type: ignore[return-value]


def test_transcript_holds_prompt_and_answer(transcripts: list[Transcript]) -> None:
    first = transcripts[0]
    assert [m["role"] for m in first.messages] == ["user", "assistant"]
    assert first.hidden.shape == (len(first.tokens), 32)
    text = "".join(t.text for t in first.tokens if t.role == "user" and t.section == "content")
    assert text == PROMPT[0]["content"]
    assert first.tokens[0].surprisal is None
    assert all(t.surprisal is not None and t.surprisal >= 0 for t in first.tokens[1:])
    assert all(0 <= t.norm_pct <= 100 for t in first.tokens)
    answer = [t for t in first.tokens if t.role == "assistant" and t.section == "content"]
    assert len(answer) == first.n_answer_tokens


def test_ids_are_stable_and_depend_on_the_text(
    explainer: Explainer, transcripts: list[Transcript]
) -> None:
    again = _transcribe(explainer, [OTHER, PROMPT])
    assert again[1].transcript_id == transcripts[0].transcript_id
    assert len({t.transcript_id for t in transcripts}) == 2


def test_one_reading_a_character(explainer: Explainer, transcripts: list[Transcript]) -> None:
    positions = explainer.content_positions(transcripts[0])
    chips = [transcripts[0].tokens[p].chip for p in positions]
    assert len(chips) == len(set(chips))
    assert all(transcripts[0].tokens[p].section == "content" for p in positions)
    smile = next(t for t in transcripts[0].tokens if t.text == "😀")
    assert smile.position + 3 in positions
    assert smile.position not in positions


def test_readings_do_not_depend_on_batches(
    explainer: Explainer, transcripts: list[Transcript]
) -> None:
    positions = [explainer.content_positions(t)[:6] for t in transcripts]

    def run(batch_size: int) -> dict[tuple[int, int], str]:
        found = explainer.explain(transcripts, positions, max_new_tokens=10, batch_size=batch_size)
        return {(i, r.position): r.explanation for i, r in found}

    assert run(64) == run(3)
    assert len(run(64)) == sum(map(len, positions))


def test_scores_and_flags_agree(explainer: Explainer, transcripts: list[Transcript]) -> None:
    positions = [explainer.content_positions(t) for t in transcripts]
    for _, reading in explainer.explain(transcripts, positions, max_new_tokens=6):
        assert reading.mse_nrm == pytest.approx(2 * (1 - reading.cosine), abs=1e-5)
        expected = 1 - reading.mse_nrm / explainer.pair.rawvar
        assert reading.fve == pytest.approx(expected, abs=1e-5)
        assert ("low_fidelity" in reading.flags) == (reading.fve < 0)
        assert ("early" in reading.flags) == (reading.position < 20)
        assert ("cut" in reading.flags) == (reading.finish == "cut")


def test_samples_differ_in_seed_and_id(explainer: Explainer, transcripts: list[Transcript]) -> None:
    found = [
        r
        for _, r in explainer.explain(
            transcripts[:1], [[9]], samples=3, temperature=1.0, max_new_tokens=6
        )
    ]
    assert sorted(r.sample for r in found) == [0, 1, 2]
    assert len({r.seed for r in found}) == 3
    assert len({explainer.reading_id(transcripts[0].transcript_id, r) for r in found}) == 3


def test_cancel_keeps_what_came_and_stops(
    explainer: Explainer, transcripts: list[Transcript]
) -> None:
    positions = [explainer.content_positions(t) for t in transcripts]
    got: list[int] = []
    progress: list[tuple[int, int]] = []
    stream = explainer.explain(
        transcripts,
        positions,
        max_new_tokens=6,
        batch_size=2,
        cancelled=lambda: len(got) >= 2,
        on_progress=lambda done, total: progress.append((done, total)),
    )

    def consume() -> None:
        for _, reading in stream:
            got.append(reading.position)

    with pytest.raises(Cancelled):
        consume()
    assert 2 <= len(got) < sum(map(len, positions))
    assert progress[0] == (0, sum(map(len, positions)))


def test_one_bad_prompt_does_not_cost_the_others(explainer: Explainer) -> None:
    endless = [{"role": "user", "content": "fox " * 400}]
    made = explainer.transcribe([endless, PROMPT], seeds=[0, 0], max_new_tokens=4, temperature=0.0)
    assert isinstance(made[0], NLAError)
    assert "256" in made[0].why
    assert isinstance(made[1], Transcript)


def test_position_out_of_range(explainer: Explainer, transcripts: list[Transcript]) -> None:
    with pytest.raises(NLAError, match="Position 9999"):
        list(explainer.explain(transcripts[:1], [[9999]]))


def test_short_memory_halves_the_batch_and_loses_no_reading(
    explainer: Explainer, transcripts: list[Transcript], monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = [explainer.content_positions(t)[:7] for t in transcripts]
    expected = {
        (i, r.position): r.explanation
        for i, r in explainer.explain(transcripts, positions, max_new_tokens=8, batch_size=8)
    }
    honest, tried = explainer.loaded.verbalizer._prefill, []

    def prefill(rows, scaled):
        tried.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return honest(rows, scaled)

    monkeypatch.setattr(explainer.loaded.verbalizer, "_prefill", prefill)
    again = Explainer(explainer.loaded)
    found = list(again.explain(transcripts, positions, max_new_tokens=8, batch_size=8))
    assert {(i, r.position): r.explanation for i, r in found} == expected
    assert len(found) == len(expected)
    assert tried[:3] == [8, 4, 2]
    tried.clear()
    list(again.explain(transcripts, positions, max_new_tokens=8, batch_size=8))
    assert max(tried) == 2, "what did not fit once is not tried again"


def test_short_memory_halves_the_prompts(
    explainer: Explainer, transcripts: list[Transcript], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = explainer.loaded.target.answer

    def answer(prompts, **options):
        if len(prompts) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return honest(prompts, **options)

    monkeypatch.setattr(explainer.loaded.target, "answer", answer)
    made = _transcribe(Explainer(explainer.loaded), [PROMPT, OTHER])
    assert [t.transcript_id for t in made] == [t.transcript_id for t in transcripts]


def test_a_single_row_that_does_not_fit_is_refused(
    explainer: Explainer, transcripts: list[Transcript], monkeypatch: pytest.MonkeyPatch
) -> None:
    def prefill(rows, scaled):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(explainer.loaded.verbalizer, "_prefill", prefill)
    with pytest.raises(NLAError, match="single row"):
        list(Explainer(explainer.loaded).explain(transcripts[:1], [[3, 4]], batch_size=4))


def test_a_vector_without_a_direction_costs_its_position(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = _transcribe(explainer, [PROMPT])
    content = explainer.content_positions(whole)
    honest = explainer.loaded.target.trace
    bad = {content[1]: float("nan"), content[3]: 0.0, content[4]: float("inf")}

    @torch.inference_mode()
    def trace(*args: object, **options: object) -> object:
        found = honest(*args, **options)  # type: ignore[arg-type]
        for position, value in bad.items():
            found[0].hidden[position] = value
        found[0].surprisal[content[2]] = float("nan")
        found[0].top_probs[content[2]] = float("nan")
        return found

    monkeypatch.setattr(explainer.loaded.target, "trace", trace)
    (made,) = _transcribe(explainer, [PROMPT])
    assert made.unreadable == set(bad)
    assert made.transcript_id == whole.transcript_id
    assert all(t.norm == t.norm_pct == 0 for t in made.tokens if t.position in bad)
    unsure = made.tokens[content[2]]
    assert (unsure.surprisal, unsure.top_tokens, unsure.top_probs) == (None, (), ())
    totals = []
    readings = explainer.explain(
        [made], [content], max_new_tokens=4, on_progress=lambda done, total: totals.append(total)
    )
    assert sorted(r.position for _, r in readings) == [p for p in content if p not in bad]
    assert set(totals) == {len(content) - len(bad)}

    bad |= dict.fromkeys(content, float("nan"))
    (refused,) = explainer.transcribe([PROMPT], seeds=[1], max_new_tokens=8, temperature=0.0)
    assert isinstance(refused, NLAError)
    assert "NaN" in str(refused)


def test_a_text_is_read_token_by_token(explainer: Explainer) -> None:
    read = list(explainer.read("the quick brown fox", max_new_tokens=6))
    assert "".join(token.text for token, _ in sorted(read, key=lambda r: r[0].position))
    assert all(token.position == reading.position for token, reading in read)
    answered = list(explainer.read(PROMPT, answer_tokens=4, max_new_tokens=6))
    assert {token.role for token, _ in answered} == {"user", "assistant"}
    (one,) = explainer.read(PROMPT, positions=[read[0][0].position], max_new_tokens=6)
    assert one[0].position == read[0][0].position


def test_reading_a_text_can_be_cancelled(explainer: Explainer) -> None:
    with pytest.raises(Cancelled):
        list(explainer.read(PROMPT, cancelled=lambda: True))


def test_vectors_are_explained_like_their_tokens(
    explainer: Explainer, transcripts: list[Transcript]
) -> None:
    hidden = transcripts[0].hidden[5:8].numpy()
    read = dict(explainer.explain_vectors(hidden, max_new_tokens=6))
    by_token = {
        reading.position: reading
        for _, reading in explainer.explain(transcripts[:1], [[5, 6, 7]], max_new_tokens=6)
    }
    assert [read[row].explanation for row in range(3)] == [
        by_token[position].explanation for position in (5, 6, 7)
    ]
    assert [read[row].position for row in range(3)] == [0, 1, 2]
    texts = [read[row].explanation for row in range(3)]
    assert explainer.score(texts, hidden) == pytest.approx([read[row].fve for row in range(3)])
    assert explainer.reconstruct(texts).shape == (3, 32)
    assert list(explainer.explain_vectors(hidden[:0])) == []


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (torch.ones(32), r"\[32\]"),
        (torch.ones(2, 31), r"\[2, 31\]"),
        (torch.zeros(2, 32), "2 vector"),
        (torch.full((1, 32), float("nan")), "1 vector"),
        ("words", "not vectors"),
        ([[1.0] * 32, [1.0]], "not vectors"),
    ],
)
def test_what_is_not_a_row_of_vectors_is_refused(
    explainer: Explainer, vectors: object, said: str
) -> None:
    with pytest.raises(NLAError, match=said):
        list(explainer.explain_vectors(vectors))


def test_as_many_texts_as_vectors(explainer: Explainer) -> None:
    with pytest.raises(NLAError, match="1 texts cannot be scored against 2 vectors"):
        explainer.score(["one"], torch.ones(2, 32))
