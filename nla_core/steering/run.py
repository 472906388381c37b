"""One experiment, streamed, and one token read again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from nla_core import metrics
from nla_core.errors import Cancelled, NLAError
from nla_core.metrics import check_vectors
from nla_core.schema import HIGH_NORM_FACTOR
from nla_core.steering.experiment import Arm, Experiment, hits
from nla_core.steering.outcome import Chance, Continuation, Facts, Fidelity, Outcome
from nla_core.steering.push import Pusher, edit_direction, fidelity, random_direction

if TYPE_CHECKING:
    from torch import Tensor

    from nla_core.explain import Explainer

LONGEST: Final = 80
MOST_KEPT: Final = 64

_kept: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()
_lock = Lock()


def vector_at(explainer: Explainer, experiment: Experiment) -> Tensor:
    """``[d_model]`` block K's output at the token that was read. Raises NLAError."""
    key = (
        explainer.pair.revision,
        experiment.prompt,
        experiment.token_ids,
        experiment.read_at,
    )
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    ids = prompt_ids_of(explainer, experiment)
    if not ids:
        raise NLAError("There is no prompt", why="it has no tokens", fix="Type a text")
    at = len(ids) - 1 if experiment.read_at is None else experiment.read_at
    found = explainer.loaded.target.trace([ids[: at + 1]], top_k=1, predict_at=[[]])[0].hidden[at]
    check_vectors(found[None], name="activation")
    with _lock:
        _kept[key] = found
        while len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
    return found


def said_at(explainer: Explainer, experiment: Experiment) -> str:
    """The verbalizer's greedy reading of that token. Raises NLAError."""
    vector = vector_at(explainer, experiment)
    (made,) = explainer.loaded.verbalizer.verbalize(vector[None], seeds=[0], max_new_tokens=LONGEST)
    return made.text


def fidelity_of(explainer: Explainer, experiment: Experiment, *texts: str) -> list[Fidelity]:
    """How well each text gives that token's vector back. Raises NLAError."""
    return fidelity(explainer, texts, vector_at(explainer, experiment))


if TYPE_CHECKING:
    from nla_core.explain import Explainer

BATCH_ROWS = 64

Row = tuple[Arm, float, int]
"""What one text is of: arm, α, seed."""


def prompt_ids_of(explainer: Explainer, experiment: Experiment) -> list[int]:
    """The prompt as the target reads it. Raises NLAError where it does not fit."""
    ids = list(experiment.token_ids)
    if experiment.prompt:
        ids = list(explainer.loaded.tokenizer(experiment.prompt)["input_ids"])
    explainer.loaded.target.check_length(len(ids) + experiment.new_tokens)
    vocabulary = explainer.loaded.target.parts.embed.num_embeddings
    if max(ids, default=0) >= vocabulary:
        raise NLAError(
            "The transcript is not of this pair's target",
            why=f"it holds the token {max(ids)}, and the target knows {vocabulary:,}",
            fix="Use the pair that the dataset was made with",
        )
    at = experiment.read_at
    if at is not None and not 0 <= at < len(ids):
        raise NLAError(
            f"There is no token {at}",
            why=f"the prompt has {len(ids)}",
            fix="Read a token of the prompt",
        )
    return ids


def word_ids(tokenizer: Any, word: str, prompt: str) -> list[int]:
    """The tokens of ``word`` as it would follow ``prompt``: with a blank, unless one is there."""
    blank = "" if not prompt or prompt[-1].isspace() else " "
    return list(tokenizer(blank + word, add_special_tokens=False)["input_ids"])


def steer(
    explainer: Explainer, experiment: Experiment, *, cancelled: Callable[[], bool] = lambda: False
) -> Iterator[Outcome]:
    """Run it; yields ever more complete outcomes, the last one whole.

    Raises NLAError for what cannot be run, Cancelled between decode steps.
    """
    experiment.checked()
    target, tokenizer = explainer.loaded.target, explainer.loaded.tokenizer
    ids = prompt_ids_of(explainer, experiment)
    at = len(ids) - 1 if experiment.read_at is None else experiment.read_at
    hidden = target.trace([ids], top_k=1, predict_at=[[]])[0].hidden
    metrics.check_vectors(hidden[at : at + 1], name="activation")
    direction = edit_direction(explainer.loaded.reconstructor, experiment.edits)
    original, edited = fidelity(
        explainer, [experiment.edits[0].original, experiment.edits[0].edited], hidden[at]
    )
    prompt = tokenizer.decode(ids)
    named = {word: word_ids(tokenizer, word, prompt) for word in experiment.words}
    norm = float(hidden[at].norm())
    positions = places(experiment, hidden, at, explainer.pair.reference.median_norm)
    outcome = Outcome(
        experiment,
        Facts(
            revision=explainer.pair.revision,
            norm=norm,
            along=float(direction @ hidden[at] / norm),
            original=original,
            edited=edited,
            n_edits=len(experiment.edits),
            n_prompt_tokens=len(ids),
            positions=positions,
            tokens=tuple(tuple(tokenizer.decode([i]) for i in word) for word in named.values()),
            prompt=prompt,
        ),
    )
    yield outcome

    def vector(row: Row) -> Tensor:
        arm, alpha, seed = row
        if arm == Arm.BASELINE:
            return torch.zeros_like(direction)
        chosen = direction if arm == Arm.STEERED else random_direction(len(direction), seed)
        return alpha * norm * chosen

    pusher = Pusher(target, ids, positions, experiment.every)
    if named:
        rows = _distinct(experiment)
        for part in _parts(rows, pusher.batch_rows):
            if cancelled():
                raise Cancelled
            pushed = pusher.prefill(torch.stack([vector(row) for row in part]))
            measured = {word: pusher.chance(pushed, tokens) for word, tokens in named.items()}
            found = tuple(
                Chance(arm, alpha, seed if arm == Arm.RANDOM else None, word, float(p[i]))
                for i, (arm, alpha, seed) in enumerate(part)
                for word, p in measured.items()
            )
            outcome = replace(outcome, chances=(*outcome.chances, *found))
        yield outcome
    for part in _parts(_rows(experiment), min(BATCH_ROWS, pusher.batch_rows)):
        texts = pusher.texts(
            torch.stack([vector(row) for row in part]),
            seeds=[seed for _, _, seed in part],
            new_tokens=experiment.new_tokens,
            temperature=experiment.temperature,
            cancelled=cancelled,
        )
        made = tuple(
            Continuation(arm, alpha, seed, text, hits(text, experiment.words))
            for (arm, alpha, seed), text in zip(part, texts, strict=True)
        )
        outcome = replace(outcome, continuations=(*outcome.continuations, *made))
        yield outcome


def places(experiment: Experiment, hidden: Tensor, at: int, median_norm: float) -> tuple[int, ...]:
    """Positions of the prompt where something is added; ``hidden`` is ``[T, d_model]``.

    Attention sinks are left out of "all": their vectors are many times as long and say nothing.
    """
    if experiment.place == "token":
        return (at,)
    last = len(hidden) - 1
    if experiment.place == "last":
        return (last,)
    ordinary = hidden.norm(dim=-1) <= HIGH_NORM_FACTOR * median_norm
    return tuple(ordinary.nonzero().flatten().tolist()) or (last,)


def _rows(experiment: Experiment) -> list[Row]:
    """One a text: the baseline first, then α by α, both arms of one α together."""
    rows = [(Arm.BASELINE, 0.0, seed) for seed in experiment.seeds]
    for alpha in experiment.alphas:
        for arm in (Arm.STEERED, Arm.RANDOM):
            rows += [(arm, alpha, seed) for seed in experiment.seeds]
    return rows


def _distinct(experiment: Experiment) -> list[Row]:
    """One for each different vector: random directions differ by seed, the others do not."""
    first = experiment.seeds[0]
    return [row for row in _rows(experiment) if row[0] == Arm.RANDOM or row[2] == first]


def _parts(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
