"""``testset``: record the held-out vectors a pair is measured on, and the statistics they give.

Knows how prompts become test vectors, gold labels and floors, and the files they are kept in. Knows
nothing of AV and AR. The decision a reader would question: the set is recorded once, vectors
included, so that every later figure of a pair is of the same 500 or more vectors; the floors that
need a bank of training vectors are recorded as what they predicted, not as the bank.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nla_core.errors import EXIT_OK, NLAError
from nla_core.metrics import scale_to_sqrt_d
from nla_core.nla.checkpoints import load_causal_lm, load_tokenizer, resolve
from nla_core.nla.devices import pick_device, pick_dtype
from nla_core.nla.layout import prompt_ids, with_answer
from nla_core.nla.pair import REFERENCE_FILE, Reference, no_target, pair_halves, pair_home
from nla_core.nla.sidecar import load_sidecar
from nla_core.nla.target import Target
from nla_core.schema import EARLY_POSITIONS, HIGH_NORM_FACTOR, Section
from precompute.corpus import Prompt, read_corpus
from precompute.output import write_result
from precompute.train.examples import Examples
from precompute.train.labels import Idf, structured_label

HELP = (
    "Let the target answer the prompts of a corpus and record some positions of each as the test "
    "set of a pair: vectors, gold labels, floors and the reference statistics behind FVE. The "
    "prompts must not have been trained on."
)
EXAMPLE = (
    "python -m precompute testset --nla data/nla/smollm2-135m-L20 --corpus data/prompts/facts.jsonl"
)
FOLDER = "testset"
ANSWER_TOKENS = 48


@dataclass(frozen=True, slots=True)
class TestSet:
    """``rows[i]`` (prompt_id, category, position, token_ids, label, context) is ``hidden[i]``.

    ``hidden`` is ``[n, d_model]`` raw float32; ``floors`` hold what each lookup would predict.
    """

    __test__ = False  # not a test class, whatever its name

    rows: pd.DataFrame
    hidden: Tensor
    floors: dict[str, Tensor]
    bank_n: int

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows.to_parquet(folder / "items.parquet", compression="zstd")
        tensors = {"hidden": self.hidden.half().contiguous()}
        tensors |= {f"floor.{k}": v.half().contiguous() for k, v in self.floors.items()}
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
        floors = {k[6:]: v for k, v in tensors.items() if k.startswith("floor.")}
        return cls(rows, tensors["hidden"], floors, bank_n)


def record(
    prompts: list[Prompt], target: Target, *, per_prompt: int, bank: Examples | None
) -> TestSet:
    """Answer the prompts greedily, pick positions by a hash of the prompt id, label and look up."""
    tokenizer = target.tokenizer
    idf = Idf.fit(" ".join(m["content"] for m in p.messages) for p in prompts)
    rows: list[dict[str, object]] = []
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
        for prompt, (ids, pieces), trace in zip(part, whole, traces, strict=True):
            norms = trace.hidden.norm(dim=-1)
            usable = [
                i
                for i in range(EARLY_POSITIONS, len(ids))
                if pieces[i].section is Section.CONTENT
                and pieces[i].text
                and norms[i] <= HIGH_NORM_FACTOR * norms.median()
            ]
            digest = hashlib.sha256(prompt.id.encode()).digest()
            rng = random.Random(int.from_bytes(digest[:8], "big"))
            for position in sorted(rng.sample(usable, min(per_prompt, len(usable)))):
                top = [tokenizer.decode([i]) for i in trace.top_ids[position].tolist()]
                seen = pieces[: position + 1]
                rows.append(
                    {
                        "prompt_id": prompt.id,
                        "category": prompt.category,
                        "position": position,
                        "token_ids": ids[: position + 1],
                        "label": structured_label(
                            seen, top, trace.top_probs[position].tolist(), idf
                        ),
                        "context": "".join(p.text for p in seen),
                        "top_tokens": top,
                    }
                )
                kept.append(trace.hidden[position])
        sys.stderr.write(f"{min(start + 8, len(prompts))}/{len(prompts)} prompts\n")
    hidden = torch.stack(kept)
    floors = _floors(hidden, [int(r["token_ids"][-1]) for r in rows], bank) if bank else {}  # type: ignore[index]
    return TestSet(pd.DataFrame(rows), hidden, floors, len(bank.rows) if bank else 0)


def _floors(hidden: Tensor, last_ids: list[int], bank: Examples) -> dict[str, Tensor]:
    """What a lookup by last token, and the nearest training vector itself, would predict."""
    vectors = scale_to_sqrt_d(bank.hidden)
    mean = vectors.mean(0)
    ids = torch.tensor(bank.rows["token_id"].tolist())
    by_token = [vectors[ids == i].mean(0) if (ids == i).any() else mean for i in last_ids]
    nearest = (scale_to_sqrt_d(hidden) @ vectors.T).argmax(1)
    return {"last_token": torch.stack(by_token), "nearest_1": vectors[nearest]}


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
    write_result(args, {"n": len(tests.rows), "rawvar": reference.rawvar})
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
