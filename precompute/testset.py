"""``testset``: record the held-out vectors a pair is measured on, and the statistics they give.

Knows how prompts become test vectors, gold labels and floors, and the files they are kept in. Knows
nothing of AV and AR. The decision a reader would question: the set is recorded once, vectors
included, so that every later figure of a pair is of the same 500 or more vectors; floors are
recorded as errors, one an item, so that measuring a pair needs neither the bank nor the re-reading.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nla_core.errors import EXIT_OK, NLAError
from nla_core.metrics import mse_nrm
from nla_core.models.chat import Piece, prompt_ids, with_answer
from nla_core.models.checkpoints import load_causal_lm, load_tokenizer, resolve
from nla_core.models.devices import pick_device, pick_dtype
from nla_core.models.pair import REFERENCE_FILE, Reference, no_target, pair_halves, pair_home
from nla_core.models.sidecar import load_sidecar
from nla_core.models.target import Answer, Target, Trace
from nla_core.schema import EARLY_POSITIONS, HIGH_NORM_FACTOR, Section
from precompute.corpus import Prompt, read_corpus
from precompute.evaluation.floors import bank_floors, tail_errors
from precompute.output import say, write_result
from precompute.train.examples import Examples
from precompute.train.labels import Idf, structured_label
from precompute.train.record import require_data

HELP = (
    "Let the target answer the prompts of a corpus and record some positions of each as the test "
    "set of a pair: vectors, gold labels, floors (a bank's nearest vectors, the target re-reading "
    "the last tokens) and the reference statistics behind FVE. The prompts must not have been "
    "trained on."
)
EXAMPLE = (
    "python -m precompute testset --nla data/nla/smollm2-135m-L20 --corpus data/prompts/facts.jsonl"
)
FOLDER = "testset"
ANSWER_TOKENS = 48


@dataclass(frozen=True, slots=True)
class TestSet:
    """``rows[i]`` is ``hidden[i]``, and each floor's ``[i]`` is its ``mse_nrm``.

    ``rows``: prompt_id (the document), category, position, role, token_ids (up to the position),
    label, context, top_tokens (the target's five likeliest next, likeliest first) and next_token
    (what really came, None at the end of the text). ``hidden`` is ``[n, d_model]`` raw float32.
    ``tails`` are the errors of the target re-reading the last k tokens, by k.

    Sets of older versions lack role, next_token, ``nearest_8`` and ``tails``; they stay readable.
    """

    __test__ = False  # not a test class, whatever its name

    rows: pd.DataFrame
    hidden: Tensor
    floors: dict[str, Tensor]
    bank_n: int
    tails: dict[int, Tensor] = field(default_factory=dict)

    def head(self, n: int) -> TestSet:
        """The first ``n`` items."""
        return TestSet(
            self.rows.iloc[:n],
            self.hidden[:n],
            {name: errors[:n] for name, errors in self.floors.items()},
            self.bank_n,
            {k: errors[:n] for k, errors in self.tails.items()},
        )

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows.to_parquet(folder / "items.parquet", compression="zstd")
        tensors = {"hidden": self.hidden.half().contiguous()}
        tensors |= {f"floor.{k}": v.float().contiguous() for k, v in self.floors.items()}
        tensors |= {f"tail.{k}": v.float().contiguous() for k, v in self.tails.items()}
        save_file(tensors, folder / "vectors.safetensors", {"bank_n": str(self.bank_n)})

    @classmethod
    def load(cls, folder: Path) -> TestSet:
        """Raises NLAError where the pair has no recorded test set."""
        path = folder / "vectors.safetensors"
        try:
            rows = pd.read_parquet(folder / "items.parquet")
            tensors = {k: v.float() for k, v in load_file(path).items()}
            with safe_open(path, "pt") as handle:
                bank_n = int(handle.metadata()["bank_n"])
        except FileNotFoundError as error:
            raise NLAError(
                f"No recorded test set in {folder}",
                why=str(error),
                fix="Record one: python -m precompute testset --nla DIR --corpus FILE",
            ) from None
        hidden = tensors["hidden"]
        floors = {k[6:]: v for k, v in tensors.items() if k.startswith("floor.")}
        # Older sets hold the vectors that a floor predicts, [n, d], where newer ones hold errors.
        floors = {k: mse_nrm(v, hidden) if v.dim() == 2 else v for k, v in floors.items()}
        tails = {int(k[5:]): v for k, v in tensors.items() if k.startswith("tail.")}
        return cls(rows, hidden, floors, bank_n, tails)


def record(
    prompts: list[Prompt], target: Target, *, per_prompt: int, bank: Examples | None
) -> TestSet:
    """Answer the prompts greedily, pick positions by a hash of the prompt id, label and look up."""
    tokenizer = target.tokenizer
    idf = Idf.fit(" ".join(m["content"] for m in p.messages) for p in prompts)
    rows: list[dict[str, Any]] = []
    kept: list[Tensor] = []
    for start in range(0, len(prompts), 8):
        part = prompts[start : start + 8]
        rendered = [prompt_ids(tokenizer, p.messages) for p in part]
        answers = target.answer(
            [ids for ids, _ in rendered],
            seeds=[0] * len(part),
            max_new_tokens=ANSWER_TOKENS,
            temperature=0.0,
        )
        whole = [with_answer(tokenizer, r, a.ids) for r, a in zip(rendered, answers, strict=True)]
        traces = target.trace([ids for ids, _ in whole])
        for prompt, text, answer, trace in zip(part, whole, answers, traces, strict=True):
            for position in _positions(prompt, text[1], trace, per_prompt):
                rows.append(_row(prompt, text, answer, trace, position, tokenizer, idf))
                kept.append(trace.hidden[position])
        say(f"{min(start + 8, len(prompts))}/{len(prompts)} prompts")
    # What is measured later is what is recorded: floors are of the vectors as kept, in float16.
    hidden = torch.stack(kept).half().float()
    token_ids = [row["token_ids"] for row in rows]
    floors: dict[str, Tensor] = {}
    if bank is not None:
        last = [ids[-1] for ids in token_ids]
        floors = bank_floors(hidden, last, bank.hidden, bank.rows["token_id"].tolist())
    say("re-reading the last tokens of each")
    tails = tail_errors(target, token_ids, hidden)
    return TestSet(pd.DataFrame(rows), hidden, floors, len(bank.rows) if bank else 0, tails)


def usable_positions(pieces: list[Piece], trace: Trace) -> list[int]:
    """Content positions past the first ones, no attention sinks."""
    norms = trace.hidden.norm(dim=-1)
    return [
        i
        for i in range(EARLY_POSITIONS, len(pieces))
        if pieces[i].section is Section.CONTENT
        and pieces[i].text
        and norms[i] <= HIGH_NORM_FACTOR * norms.median()
    ]


def _positions(prompt: Prompt, pieces: list[Piece], trace: Trace, count: int) -> list[int]:
    """Some usable positions; which, the prompt's id decides."""
    usable = usable_positions(pieces, trace)
    digest = hashlib.sha256(prompt.id.encode()).digest()
    rng = random.Random(int.from_bytes(digest[:8], "big"))
    return sorted(rng.sample(usable, min(count, len(usable))))


def _row(
    prompt: Prompt,
    text: tuple[list[int], list[Piece]],
    answer: Answer,
    trace: Trace,
    position: int,
    tokenizer: Any,
    idf: Idf,
) -> dict[str, Any]:
    ids, pieces = text
    top = [tokenizer.decode([i]) for i in trace.top_ids[position].tolist()]
    came = None
    if position + 1 < len(ids):
        came = tokenizer.decode([ids[position + 1]])
    elif answer.finish == "stop":
        came = top[0]  # greedy: the stop token, which is not kept with the answer
    seen = pieces[: position + 1]
    return {
        "prompt_id": prompt.id,
        "category": prompt.category,
        "position": position,
        "role": str(pieces[position].role),
        "token_ids": ids[: position + 1],
        "label": structured_label(seen, top, trace.top_probs[position].tolist(), idf),
        "context": "".join(p.text for p in seen),
        "top_tokens": top,
        "next_token": came,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nla", type=Path, required=True, metavar="DIR", help="the pair's folder")
    parser.add_argument("--corpus", type=Path, nargs="+", required=True, help="prompt JSON lines")
    parser.add_argument("--bank", type=Path, help="folder of `train data`, for the lookup floors")
    parser.add_argument("--per-prompt", type=int, default=4, help="positions a prompt (4)")
    parser.add_argument("--target", help="the target model, where the sidecar names none")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")


def main(args: argparse.Namespace) -> int:
    """Write ``testset/`` and ``reference.safetensors`` into the pair's folder (twins: the AV's)."""
    home = writable_home(args.nla)
    sidecar = load_sidecar(pair_halves(args.nla)[0])
    spec = args.target or sidecar.base_model
    if not spec:
        raise no_target(sidecar)
    base = resolve(spec)
    if args.bank:
        require_data(args.bank, base, sidecar.layer)
    device = pick_device(args.device)
    model = load_causal_lm(base.folder, dtype=pick_dtype(device, args.dtype), device=device)
    target = Target(model, load_tokenizer(base.folder), sidecar.layer)
    prompts = list(read_corpus(args.corpus).prompts)
    bank = _load_bank(args.bank) if args.bank else None
    tests = record(prompts, target, per_prompt=args.per_prompt, bank=bank)
    tests.save(home / FOLDER)
    reference = Reference.of(tests.hidden)
    reference.save(home / REFERENCE_FILE)
    print(f"{len(tests.rows)} vectors of {len(prompts)} prompts, rawvar {reference.rawvar:.4f}")
    errors = tests.floors | {f"tail_{k}": values for k, values in tests.tails.items()}
    floors = {k: 1.0 - float(v.mean()) / reference.rawvar for k, v in errors.items()}
    for name, value in floors.items():
        print(f"{name:>12}  FVE {value:.3f}")
    write_result(args, {"n": len(tests.rows), "rawvar": reference.rawvar, "floors": floors})
    return EXIT_OK


def writable_home(nla: Path) -> Path:
    """Where the pair keeps its test set; NLAError for a pair that only the hub's cache holds."""
    home = pair_home(nla)
    if home != nla and home.parent != nla.parent:
        raise NLAError(
            f"{nla} is a pair on the hub, not a folder of yours",
            why="A test set belongs beside its pair, and the hub's cache is cleared and replaced",
            fix=f"Fetch both halves (`hf download {nla} --local-dir {nla.name}`, and its -ar twin "
            f"likewise) and give --nla {nla.name}",
        )
    return home


def _load_bank(folder: Path) -> Examples:
    parts = [Examples.load(folder / split) for split in ("ar", "av")]
    return Examples(pd.concat([p.rows for p in parts]), torch.cat([p.hidden for p in parts]))
