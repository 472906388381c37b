"""Who gets into the queue: a request held against the limits, before anything is stored.

Knows what each limit is compared with, and says in a refusal which one it was, its value, and what
would fit. Knows neither queue nor disk: counts are handed in. The decision a reader would question:
a request is refused as a whole and never trimmed, since half of what was asked is not an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nla_core.errors import NLAError
from nla_core.runs.request import RunPrompt, RunRequest, Which
from nla_core.runs.settings import Limits
from nla_core.runs.state import Run

SHOWN_PROBLEMS = 5


class OverLimit(NLAError):
    """One limit was exceeded; ``limit`` is its name in `Limits`."""

    def __init__(self, limit: str, what: str, *, why: str, fix: str) -> None:
        super().__init__(what, why=why, fix=fix)
        self.limit = limit


def check_request(
    request: RunRequest, limits: Limits, count: Callable[[RunPrompt], int], context: int
) -> tuple[int, ...]:
    """The length in tokens of each prompt of a request that is within the limits.

    ``count`` gives the tokens of a prompt, or raises NLAError; ``context`` is the target's. Raises
    NLAError naming the limit, or the lines of the upload that are at fault.
    """
    asked = request
    _within("prompts", len(asked.prompts), limits.prompts, "Split the upload")
    _within("samples", asked.samples, limits.samples, "Ask for fewer samples")
    _within("new_tokens", asked.target.max_tokens, limits.new_tokens, "Ask for a shorter answer")
    _within(
        "explanation_tokens",
        asked.verbalizer.max_tokens,
        limits.explanation_tokens,
        "Ask for shorter explanations",
    )
    lengths = _lengths(asked, limits, count, context)
    if asked.positions.which is Which.LIST:
        _positions_exist(asked, lengths[0])
    most = [asked.positions.most(n, asked.target.max_tokens) for n in lengths]
    readings = sum(most) * asked.samples
    fits = max(1, limits.readings // max(1, asked.samples * len(most)))
    _within(
        "readings",
        readings,
        limits.readings,
        f"Read only the last {fits} positions of each prompt, or fewer prompts",
    )
    return lengths


def check_queue(
    visitor: str, open_runs: Sequence[Run], n_stored: int | None, limits: Limits
) -> None:
    """Whether one more run of this visitor has a place. Raises NLAError.

    ``n_stored`` counts runs on the disk, and is None where the run is one of them.
    """
    own = sum(visitor in run.visitors for run in open_runs)
    _within(
        "queue_per_visitor",
        own + 1,
        limits.queue_per_visitor,
        "Wait until one of your runs is finished, or cancel one",
    )
    _within(
        "queue_total", len(open_runs) + 1, limits.queue_total, "Try again when some are finished"
    )
    if n_stored is not None:
        _within("stored_runs", n_stored + 1, limits.stored_runs, "Delete a run that is not needed")


def _lengths(
    request: RunRequest, limits: Limits, count: Callable[[RunPrompt], int], context: int
) -> tuple[int, ...]:
    lengths: list[int] = []
    problems: list[str] = []
    room = context - request.target.max_tokens
    for number, prompt in enumerate(request.prompts, start=1):
        where = prompt.where or (f"prompt {number}" if len(request.prompts) > 1 else "the prompt")
        if prompt.n_characters > limits.prompt_characters:
            problems.append(
                f"{where} has {prompt.n_characters:,} characters and the limit prompt_characters "
                f"is {limits.prompt_characters:,}"
            )
            continue
        try:
            n = count(prompt)
        except NLAError as error:
            problems.append(f"{where}: {error.what} ({error.why})")
            continue
        lengths.append(n)
        if n > limits.prompt_tokens:
            problems.append(
                f"{where} has {n:,} tokens and the limit prompt_tokens is {limits.prompt_tokens:,}"
            )
        elif n > room:
            problems.append(
                f"{where} has {n:,} tokens, and with an answer of {request.target.max_tokens} "
                f"the target's context of {context:,} leaves room for {max(0, room):,}"
            )
        elif n == 0:
            problems.append(f"{where} has no tokens")
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        raise NLAError(
            "Nothing was queued: not every prompt fits"
            if len(request.prompts) > 1
            else "Nothing was queued: the prompt does not fit",
            why="; ".join(problems[:SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else ""),
            fix="Shorten or leave out what is named",
        )
    return tuple(lengths)


def _positions_exist(request: RunRequest, n_tokens: int) -> None:
    end = n_tokens + request.target.max_tokens
    wrong = [p for p in request.positions.at if p >= end]
    if wrong:
        raise NLAError(
            f"Position {wrong[0]} does not exist",
            why=f"the prompt and its answer have positions 0 to {end - 1} at most",
            fix="Choose positions inside the text",
        )


def _within(name: str, found: int, limit: int, fix: str) -> None:
    if found > limit:
        raise OverLimit(
            name,
            f"Nothing was queued: {name.replace('_', ' ')} would be {found:,}",
            why=f"the limit {name} is {limit:,} on this server",
            fix=fix,
        )
