"""The AV on vLLM: whole prompts as embeddings, each with its vector in place.

Knows vLLM's ``prompt_embeds`` and sampling parameters, as its documentation describes them. Knows
nothing of scores. NOT RUN HERE: vLLM needs a GPU that the project was not developed on; the
contract test (tests/nla/test_verbalizer.py) runs wherever vLLM can be imported, and says so where
it cannot. The decision a reader would question: the prefix is not shared. vLLM caches prefixes by
token ids, which prompts of embeddings do not have.

The model folder needs full weights: ``python -m precompute export`` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nla_core.errors import Cancelled, NLAError
from nla_core.nla.injection import build_slot, scale_for_injection
from nla_core.nla.sidecar import Sidecar
from nla_core.nla.verbalizer import CLOSE_TAG, Verbalization, strip_tags
from nla_core.schema import Finish


class VllmVerbalizer:
    """A `Verbalizer`; ``embed`` maps token ids ``[T]`` to embeddings ``[T, d_model]``."""

    def __init__(
        self,
        engine: Any,
        make_params: Callable[..., Any],
        embed: Callable[[Tensor], Tensor],
        tokenizer: Any,
        sidecar: Sidecar,
    ) -> None:
        self.engine, self.make_params = engine, make_params
        self.tokenizer, self.sidecar = tokenizer, sidecar
        self.slot = build_slot(sidecar, tokenizer)
        ids = [*self.slot.prefix_ids, self.slot.marker_id, *self.slot.suffix_ids]
        with torch.inference_mode():
            self._prompt = embed(torch.tensor([*ids, *self.slot.prefill_ids])).detach().cpu()

    @classmethod
    def load(
        cls, folder: Path, sidecar: Sidecar, *, dtype: str = "auto", **options: Any
    ) -> VllmVerbalizer:
        """Full weights from ``folder``; ``options`` go to ``vllm.LLM``.

        Raises NLAError where vLLM is not installed.
        """
        try:
            from vllm import LLM, SamplingParams
        except ImportError as error:
            raise NLAError(
                "vLLM is not installed",
                why=str(error),
                fix="pip install vllm on a machine with a GPU, or use the built-in verbalizer",
            ) from None
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from nla_core.nla.families import parts_of

        # Through the model's own module, which scales embeddings where its family does.
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        engine = LLM(model=str(folder), dtype=dtype, enable_prompt_embeds=True, **options)
        return cls(engine, SamplingParams, parts_of(model).embed, tokenizer, sidecar)

    def verbalize(
        self,
        vectors: Tensor,
        *,
        seeds: Sequence[int],
        temperature: float = 0.0,
        max_new_tokens: int = 80,
        batch_size: int = 256,
        cancelled: Callable[[], bool] = lambda: False,
        wanted: Callable[[int], bool] = lambda _: True,
    ) -> Iterator[Verbalization]:
        """See `Verbalizer`. Cancelling and ``wanted`` are looked at between batches only."""
        scaled = scale_for_injection(vectors, self.sidecar.injection_scale)
        for start in range(0, len(scaled), batch_size):
            if cancelled():
                raise Cancelled
            rows = [r for r in range(start, min(start + batch_size, len(scaled))) if wanted(r)]
            made = self.engine.generate(
                [{"prompt_embeds": self._with(scaled[row])} for row in rows],
                [self._params(seeds[row], temperature, max_new_tokens) for row in rows],
                use_tqdm=False,
            )
            for row, output in zip(rows, made, strict=True):
                if wanted(row):
                    yield self._verbalization(row, output.outputs[0])

    def _with(self, vector: Tensor) -> Tensor:
        """The prompt's embeddings ``[T, d_model]`` with this vector at the marker."""
        prompt = self._prompt.clone()
        prompt[len(self.slot.prefix_ids)] = vector.to(prompt)
        return prompt

    def _params(self, seed: int, temperature: float, max_new_tokens: int) -> Any:
        """Nothing of the checkpoint's generation config: no top-k, top-p or penalties."""
        return self.make_params(
            temperature=temperature,
            seed=seed,
            max_tokens=max_new_tokens,
            top_p=1.0,
            top_k=-1,
            repetition_penalty=1.0,
            stop=[CLOSE_TAG],
            include_stop_str_in_output=True,
        )

    def _verbalization(self, row: int, output: Any) -> Verbalization:
        stops = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        ids = tuple(int(i) for i in output.token_ids if i not in stops)
        text = self.tokenizer.decode([*self.slot.prefill_ids, *ids], skip_special_tokens=True)
        body, closed = strip_tags(text)
        return Verbalization(row, body, Finish.CLOSED if closed else Finish.CUT, len(ids), ids)
