"""The fast paths against slow, plain Hugging Face code, in float32, for every family."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from nla_core.models.chat import prompt_ids, with_answer
from nla_core.models.injection import build_slot, render_chat, scale_for_injection
from nla_core.models.pair import find_pair, load_half, load_pair, resolve_target
from nla_core.models.reconstructor import encode_texts
from nla_core.models.target import Target
from nla_core.models.verbalizer import strip_tags
from tests.tiny import D_MODEL, FAMILIES, LAYER, tiny_model, tiny_pair, tiny_tokenizer

PROMPTS = ["the quick brown fox", "rain", "people say that language models hold more"]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def loaded(family: str, tmp_path_factory: pytest.TempPathFactory):
    folder = tiny_pair(tmp_path_factory.mktemp(family), family)
    return load_pair(find_pair(folder), device="cpu", dtype="float32")


def _generate(model, tokenizer, *, max_new_tokens: int, **inputs) -> list[int]:
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model.generate(**inputs, generation_config=config)[0].tolist()


def plain_av(loaded):
    """The AV's model as transformers loads it: no product packed, no attention exchanged."""
    pair = loaded.pair
    base = resolve_target(pair).folder
    return load_half(pair.av_dir, base, dtype=torch.float32, device=torch.device("cpu"))


@torch.no_grad()
def _greedy(model, inputs: torch.Tensor, *, max_new_tokens: int) -> list[int]:
    """Whole forward passes, no cache: for classes whose ``generate`` takes no embeddings."""
    written: list[int] = []
    for _ in range(max_new_tokens):
        written.append(int(model(inputs_embeds=inputs, use_cache=False).logits[0, -1].argmax()))
        new = model.get_input_embeddings()(torch.tensor([[written[-1]]]))
        inputs = torch.cat([inputs, new], dim=1)
    return written


def test_verbalizer_batch_equals_one_generate_a_vector(loaded) -> None:
    verbalizer, tokenizer = loaded.verbalizer, loaded.tokenizer
    torch.manual_seed(0)
    vectors = torch.randn(7, D_MODEL)
    fast = {
        v.row: v
        for v in verbalizer.verbalize(vectors, seeds=[0] * 7, max_new_tokens=16, batch_size=4)
    }
    slot = build_slot(verbalizer.sidecar, tokenizer)
    ids = [*slot.prefix_ids, slot.marker_id, *slot.suffix_ids, *slot.prefill_ids]
    embed, plain = verbalizer.parts.embed, plain_av(loaded)
    for row, vector in enumerate(scale_for_injection(vectors, 20.0)):
        inputs = embed(torch.tensor([ids])).clone()
        inputs[0, len(slot.prefix_ids)] = vector
        if verbalizer.parts.family.text_config:
            new = _greedy(plain, inputs, max_new_tokens=16)
        else:
            new = _generate(plain, tokenizer, max_new_tokens=16, inputs_embeds=inputs)
        new = new[: new.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in new else new
        text = tokenizer.decode([*slot.prefill_ids, *new], skip_special_tokens=True)
        assert fast[row].text == strip_tags(text)[0]
    scaled = scale_for_injection(vectors, 20.0)
    logits = verbalizer._prefill(range(len(scaled)), scaled).logits
    assert float((logits[1:] - logits[0]).abs().amax(1).min()) > 1e-3, "vectors must matter"


def test_target_layer_is_hidden_states_k_plus_one(family: str) -> None:
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    sequences = [tokenizer(text)["input_ids"] for text in PROMPTS]
    traces = Target(model, tokenizer, LAYER).trace(sequences)
    for ids, trace in zip(sequences, traces, strict=True):
        output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        torch.testing.assert_close(
            trace.hidden, output.hidden_states[LAYER + 1][0], atol=1e-4, rtol=1e-4
        )
        logprobs = output.logits[0].log_softmax(-1)
        expected = -logprobs[torch.arange(len(ids) - 1), ids[1:]]
        torch.testing.assert_close(trace.surprisal[1:], expected, atol=1e-4, rtol=1e-4)
        assert torch.isnan(trace.surprisal[0])
        assert trace.top_ids[:, 0].tolist() == output.logits[0].argmax(-1).tolist()


def test_target_answers_do_not_depend_on_the_batch(family: str) -> None:
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    target = Target(model, tokenizer, LAYER)
    prompts = [render_chat(tokenizer, [{"role": "user", "content": text}]) for text in PROMPTS]
    together = target.answer(prompts, seeds=[1, 2, 3], max_new_tokens=10, temperature=0.0)
    for prompt, answer in zip(prompts, together, strict=True):
        inputs = {"input_ids": torch.tensor([prompt])}
        new = _generate(model, tokenizer, max_new_tokens=10, **inputs)[len(prompt) :]
        new = new[: new.index(2)] if 2 in new else new
        assert list(answer.ids) == new


def test_sampling_depends_on_the_row_seed_alone(loaded) -> None:
    vectors = torch.randn(4, D_MODEL, generator=torch.Generator().manual_seed(5))

    def texts(rows: list[int]) -> list[str]:
        found = loaded.verbalizer.verbalize(
            vectors[rows], seeds=[10 + r for r in rows], temperature=1.0, max_new_tokens=12
        )
        return [v.text for v in sorted(found, key=lambda v: v.row)]

    everything = texts([0, 1, 2, 3])
    assert texts([2]) == [everything[2]]
    assert texts([3, 1]) == [everything[3], everything[1]]


def test_reconstructor_batch_equals_single_and_reads_the_last_token(loaded) -> None:
    reconstructor = loaded.reconstructor
    texts = ["the fox", "rain falls on the old stone bridge and people say", "x"]
    together = reconstructor.reconstruct(texts)
    for row, text in enumerate(texts):
        torch.testing.assert_close(
            together[row], reconstructor.reconstruct([text])[0], atol=1e-4, rtol=1e-4
        )
        ids, last = encode_texts(loaded.tokenizer, reconstructor.template, [text])
        states = reconstructor.model.base_model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(
            together[row], states[0, int(last[0])].float(), atol=1e-4, rtol=1e-4
        )


def test_reconstructor_is_the_target_cut_after_block_k(family: str) -> None:
    """Given the target's own weights, the AR's body returns hidden_states[K+1]."""
    from nla_core.models.families import truncate

    model, tokenizer = tiny_model(family), tiny_tokenizer()
    ids = torch.tensor([tokenizer(PROMPTS[2])["input_ids"]])
    wanted = model(input_ids=ids, output_hidden_states=True).hidden_states[LAYER + 1]
    truncate(model, LAYER + 1)
    found = model.base_model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_layout_finds_speakers_and_characters() -> None:
    tokenizer = tiny_tokenizer()
    messages = [
        {"role": "system", "content": "people say"},
        {"role": "user", "content": "the 😀 fox"},
    ]
    ids, pieces = with_answer(
        tokenizer, prompt_ids(tokenizer, messages), tokenizer("rain é")["input_ids"]
    )
    assert "".join(p.text for p in pieces) == tokenizer.decode(ids)
    by_turn = {
        turn: "".join(p.text for p in pieces if p.turn == turn and p.section == "content")
        for turn in range(3)
    }
    assert by_turn == {0: "people say", 1: "the 😀 fox", 2: "rain é"}
    assert [p.role for p in pieces if p.section == "content" and p.turn == 0][0] == "system"
    smile = next(p for p in pieces if p.text == "😀")
    assert sum(p.chip == smile.chip for p in pieces) == 4
