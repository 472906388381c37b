"""Groups of samples: several explanations of each vector, and how well the AR gets back from them.

Knows seeds, the order of samples and that the same text needs the AR only once. Knows nothing of
what is learned from them. The decision a reader would question: a sample's seed hangs on run, step,
vector and number, never on its place in a batch, so a resumed run draws the same texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from nla_core.metrics import mse_nrm
from nla_core.models.reconstructor import Reconstructor
from nla_core.models.verbalizer import Verbalizer
from nla_core.readings import derive_seed
from nla_core.schema import Finish


@dataclass(frozen=True, slots=True)
class Sample:
    """One explanation of vector ``row``; ``token_ids`` as drawn, without the stop token."""

    row: int
    sample: int
    seed: int
    text: str
    finish: Finish
    token_ids: tuple[int, ...]

    @property
    def usable(self) -> bool:
        """Whole and not empty: anything else has failed at its task."""
        return self.finish is Finish.CLOSED and bool(self.text)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How texts are drawn. ``group`` is the number of samples a vector."""

    group: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 80
    seed: int = 0


def draw(
    verbalizer: Verbalizer,
    hidden: Tensor,
    rows: Sequence[int],
    how: Sampling,
    *,
    step: int = 0,
    batch_size: int = 128,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Sample]:
    """``how.group`` samples of each ``hidden[row]``, group after group in the order of ``rows``.

    Raises NLAError for unusable vectors, Cancelled between decode steps.
    """
    wanted = [(row, number) for row in rows for number in range(how.group)]
    seeds = [derive_seed(how.seed, step, row, number) for row, number in wanted]
    texts = verbalizer.verbalize(
        hidden[[row for row, _ in wanted]].float(),
        seeds=seeds,
        temperature=how.temperature,
        max_new_tokens=how.max_new_tokens,
        batch_size=batch_size,
        cancelled=cancelled,
    )
    done = {
        text.row: Sample(*wanted[text.row], seeds[text.row], text.text, text.finish, text.token_ids)
        for text in texts
    }
    return [done[place] for place in range(len(wanted))]


def rebuild(reconstructor: Reconstructor, texts: Sequence[str], *, batch_size: int = 64) -> Tensor:
    """``[n, d]`` float32: what the AR makes of each text; equal texts are read once."""
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    rebuilt = reconstructor.reconstruct(list(number), batch_size=batch_size)
    return rebuilt[[number[text] for text in texts]]


def errors(
    reconstructor: Reconstructor, hidden: Tensor, samples: Sequence[Sample], *, batch_size: int = 64
) -> Tensor:
    """``[n]`` mse_nrm of what the AR makes of each sample, cut ones included, float32."""
    predicted = rebuild(reconstructor, [s.text for s in samples], batch_size=batch_size)
    return mse_nrm(predicted, hidden[[s.row for s in samples]])
