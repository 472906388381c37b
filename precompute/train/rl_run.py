"""``train grpo``: the run around the steps: order, schedule, validations, checkpoints, an end.

Knows when a run validates, what it writes and when it stops. Knows nothing of what a step learns
(see grpo.py). The decision a reader would question: a checkpoint is written only after a validation
that found the policy well, so that ``out/last`` is the last good state by construction, whatever
ends the run. A killed run therefore loses the steps since its last validation.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from nla_core.errors import NLAError
from nla_core.nla.devices import pick_device, pick_dtype
from nla_core.nla.pair import Reference
from precompute.train.collapse import Limits
from precompute.train.examples import Examples
from precompute.train.grpo import Batch, Grpo, StepSettings
from precompute.train.halves import Halves
from precompute.train.journal import Journal, Shown
from precompute.train.judge import load_judge
from precompute.train.policy import load_policy
from precompute.train.record import require_data
from precompute.train.sft import schedule
from precompute.train.state import MasterWeights, load_checkpoint, save_checkpoint, say
from precompute.train.validation import Validation, validate

SHOWN_VECTORS = 2
TIMES = frozenset({"seconds", "sampled_per_s", "learned_per_s"})
"""What in a line of the log depends on the machine and not on the run."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """One run. Learning rates are peaks; ``validation`` is a number of vectors of ``val``."""

    steps: int
    lr_av: float = 1e-4
    lr_ar: float = 1e-4
    warmup: int = 10
    final_lr_share: float = 0.1
    validate_every: int = 20
    validation: int = 64
    show_every: int = 20
    seed: int = 0
    step: StepSettings = field(default_factory=StepSettings)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended; ``steps`` are those of the checkpoint that it left, as is ``last``."""

    ended: Literal["finished", "out of time", "collapsed"]
    steps: int
    start: Validation
    last: Validation
    collapsed: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "ended": self.ended,
            "steps": self.steps,
            "collapsed": list(self.collapsed),
            "start": self.start.as_dict(),
            "last": self.last.as_dict(),
        }


def run_grpo(
    halves: Halves,
    data: Path,
    out: Path,
    settings: RunSettings,
    *,
    split: str = "rl",
    sample_batch: int = 128,
    micro_batch: int = 16,
    device: str = "auto",
    dtype: str = "auto",
    minutes: float = math.inf,
) -> Outcome:
    """Run (or go on with) GRPO in ``out`` on ``data/<split>``, validated on ``data/val``.

    ``out/last/av`` and ``out/last/ar`` hold the halves of the last good checkpoint,
    ``out/log.jsonl`` a line a step, ``out/samples.txt`` texts to read. All depends on settings,
    halves and data alone: a resumed run goes through the same states. FVE is held against the
    variance of the whole split. Raises NLAError for settings nothing can be learned with, data of
    another target, halves with full weights, another run in ``out``, and a loss that is not a
    number; ``out/last`` is then as it was.
    """
    _check(settings)
    require_data(data, halves.base, halves.av.layer)
    examples, held_out = Examples.load(data / split), Examples.load(data / "val")
    rows_of_step(0, len(examples.rows), settings)
    where = pick_device(device)
    kind = pick_dtype(where, dtype)
    how = settings.step.sampling
    policy = load_policy(halves, device=where, dtype=kind, temperature=how.temperature)
    judge = load_judge(halves, device=where, dtype=kind)
    weights = {
        "av": MasterWeights(policy.parameters, settings.lr_av),
        "ar": MasterWeights(judge.task.parameters, settings.lr_ar),
    }
    grpo = Grpo(
        policy,
        judge,
        Reference.of(examples.hidden),
        weights,
        settings.step,
        sample_batch=sample_batch,
        micro_batch=micro_batch,
    )

    def save_weights(folder: Path) -> None:
        policy.save(folder / "av", halves.base.spec)
        judge.save(folder / "ar", halves.base.spec)

    def save(step: int, start: Validation, last: Validation, seconds: float) -> None:
        validations = {"start": start.as_dict(), "last": last.as_dict()}
        state = {"step": step, "settings": record, "seconds": seconds} | validations
        save_checkpoint(out, state, weights, save_weights)

    record = asdict(settings) | {"split": split, "halves": halves.fingerprint()}
    out.mkdir(parents=True, exist_ok=True)
    found = load_checkpoint(out, record, weights)
    journal = Journal(out, resumed_at=None if found is None else int(found["step"]))
    fixed = held_out.hidden[_fixed_part(len(held_out.rows), settings)]
    began = time.monotonic()
    if found is None:
        start = last = validate(grpo, fixed, how.max_new_tokens)
        done, before = 0, 0.0
        journal.write({"step": 0, "rawvar": grpo.reference.rawvar, **start.as_dict()})
        say(_described(0, settings, start))
        save(0, start, last, time.monotonic() - began)
    else:
        start, last = (Validation.from_dict(found[name]) for name in ("start", "last"))
        done, before = int(found["step"]), float(found["seconds"])

    for step in range(done, settings.steps):
        share = schedule(step, settings)
        rows = rows_of_step(step, len(examples.rows), settings)
        batch, line = grpo.step(
            examples.hidden, rows, step, settings.lr_av * share, settings.lr_ar * share
        )
        number = step + 1
        line = {"step": number, "lr_av": settings.lr_av * share} | line
        say(
            f"step {number}/{settings.steps} reward {line['reward']:.3f} fve {line['fve']:.3f} "
            f"kl {line['kl']:.4f} sampled {line['sampled_per_s']:.0f} tokens/s, "
            f"learned {line['learned_per_s']:.0f}"
        )
        out_of_time = time.monotonic() - began > minutes * 60
        due = number % settings.validate_every == 0 or number == settings.steps
        problems: list[str] = []
        if due or out_of_time:
            now = validate(grpo, fixed, how.max_new_tokens)
            problems = now.collapsed(start, settings.limits)
            say(_described(number, settings, now))
            # One that only guards the checkpoint of an interrupted run is no part of its curve.
            line |= now.as_dict() if due or problems else {}
        seconds = before + time.monotonic() - began
        journal.write(line | {"seconds": seconds} | ({"collapsed": problems} if problems else {}))
        if number % settings.show_every == 0 or number == 1 or problems:
            journal.show(number, _shown(grpo, batch, examples))
        if problems:
            say(f"collapsed at step {number}: {'; '.join(problems)}")
            return Outcome("collapsed", done, start, last, tuple(problems))
        if due or out_of_time:
            done, last = number, now
            save(done, start, last, seconds)
        if out_of_time and number < settings.steps:
            return Outcome("out of time", done, start, last)
    return Outcome("finished", done, start, last)


def rows_of_step(step: int, n: int, settings: RunSettings) -> list[int]:
    """The vectors of a step: each once an epoch, in a seeded order that is new in each.

    Depends on the arguments alone. Raises NLAError where ``n`` vectors do not fill one step.
    """
    size = settings.step.vectors
    if n < size:
        raise NLAError(
            f"{n} vectors do not fill one step of {size}",
            why="The split that GRPO samples is too small",
            fix="Prepare more with `train data --rl-windows`, or lower --vectors",
        )
    epoch, place = divmod(step, n // size)
    order = random.Random(f"{settings.seed}/{epoch}").sample(range(n), n)
    return order[place * size : (place + 1) * size]


def _fixed_part(n: int, settings: RunSettings) -> list[int]:
    """Neighbours share a document: a drawn part holds as many documents as it can."""
    return random.Random(settings.seed).sample(range(n), min(n, settings.validation))


def _check(settings: RunSettings) -> None:
    how = settings.step.sampling
    if how.group < 2 or how.temperature <= 0:
        raise NLAError(
            "Nothing can be learned from these samples",
            why=f"{how.group} sample(s) a vector at temperature {how.temperature}: a group's "
            "samples are compared with each other, so there must be several that differ",
            fix="Use --samples 2 or more and a --temperature above 0",
        )


def _shown(grpo: Grpo, batch: Batch, examples: Examples) -> list[Shown]:
    """All samples of the first vectors of a step, best first."""
    group = grpo.settings.sampling.group
    shown = []
    for start in range(0, min(len(batch.samples), SHOWN_VECTORS * group), group):
        members = range(start, start + group)
        row = examples.rows.iloc[batch.samples[start].row]
        texts = [(grpo.fve(batch.errors[i]), _marked(batch, i)) for i in members]
        texts.sort(key=lambda item: -item[0])
        shown.append(Shown(str(row["context"]), str(row["label"]), texts))
    return shown


def _marked(batch: Batch, i: int) -> str:
    """A sample's text, followed by what a reader of its score must know."""
    sample = batch.samples[i]
    notes = [] if sample.usable else [f"[failed: {sample.finish}]"]
    if batch.shown[i] != sample.text:
        notes.append(f"[the AR saw only: {batch.shown[i]}]")
    return " ".join([sample.text, *notes])


def _described(step: int, settings: RunSettings, now: Validation) -> str:
    of = now.signals
    return (
        f"validation at {step}/{settings.steps}: fve {now.fve:.3f} (by the AR of the start "
        f"{now.fve_first_ar:.3f}, shuffled {now.fve_shuffled:.3f}), rank@1 {of.rank_at_1:.0%}, "
        f"distinct-3 {of.distinct_3:.2f}, duplicates {of.duplicate_rate:.0%}, cut "
        f"{of.cut_rate:.0%}, {now.tokens:.0f} tokens"
    )


def describe(outcome: Outcome, out: Path) -> str:
    """What a run came to, and what to do next."""
    start, last = outcome.start, outcome.last
    text = (
        f"{outcome.ended} after {outcome.steps} steps: FVE {start.fve:.3f} -> {last.fve:.3f}, by "
        f"the AR of the start {start.fve_first_ar:.3f} -> {last.fve_first_ar:.3f}, "
        f"{start.tokens:.0f} -> {last.tokens:.0f} tokens a text\n"
    )
    if outcome.collapsed:
        text += (
            f"Collapsed: {'; '.join(outcome.collapsed)}. {out / 'last'} holds the checkpoint of "
            f"step {outcome.steps}, from before. Raise --kl or lower --lr-av in a new --out.\n"
        )
    if outcome.ended == "out of time":
        return text + "Go on: the same command again"
    return text + (
        f"Next: python -m precompute train assemble --av {out} --ar {out} --out data/nla/my-pair"
    )
