"""One token read again: its vector, and what the verbalizer says of it.

Knows how a vector is taken from a prompt. Knows no page. The decision a reader would question: no
dataset stores vectors, so the target reads the prompt again, which takes a pass; vectors are kept
for the edits that follow.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Final

from nla_core.errors import NLAError
from nla_core.metrics import check_vectors
from nla_core.steering.direction import fidelity
from nla_core.steering.experiment import Experiment
from nla_core.steering.outcome import Fidelity
from nla_core.steering.run import prompt_ids_of

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
