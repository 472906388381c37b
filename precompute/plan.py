"""What a run will do, decided before it starts: settings, seeds, shards, and one hash over all.

Everything that can change a row belongs to the hash, the versions of torch and transformers too:
after an upgrade a run starts over instead of mixing rows that nobody can reproduce. The flags that
`run` and `plan` share are here, so that `plan --help` loads no engine and no model library.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nla_core.data.files import sha256_json
from nla_core.errors import NLAError
from nla_core.schema import SCHEMA_VERSION
from precompute.corpus import Corpus, Prompt

NUMERIC_PACKAGES = ("torch", "transformers")


@dataclass(frozen=True, slots=True)
class Settings:
    """``max_new_tokens`` and ``temperature`` are the answer's, ``explanation_*`` the AV's."""

    max_new_tokens: int = 48
    temperature: float = 0.0
    samples: int = 1
    explanation_tokens: int = 80
    explanation_temperature: float = 0.0
    batch_size: int = 64
    shard_size: int = 8
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            expected = "0 or more; 0 reads a conversation as it stands"
            raise _bad_setting("max_new_tokens", self.max_new_tokens, expected)
        for name in ("samples", "explanation_tokens", "batch_size", "shard_size"):
            if getattr(self, name) < 1:
                raise _bad_setting(name, getattr(self, name), "1 or more")
        for name in ("temperature", "explanation_temperature"):
            if not 0 <= getattr(self, name) <= 10:
                raise _bad_setting(name, getattr(self, name), "0 (greedy) to 10")
        if not 0 <= self.seed < 2**31:
            raise _bad_setting("seed", self.seed, "0 or more and below 2^31")
        if self.samples > 1 and self.explanation_temperature == 0:
            raise NLAError(
                f"{self.samples} samples of each explanation would all be the same",
                why="the explanation temperature is 0, which is greedy",
                fix="Add --explanation-temperature 0.7, or leave --samples at 1",
            )


def _bad_setting(name: str, found: object, expected: str) -> NLAError:
    flag = "--" + name.replace("_", "-")
    return NLAError(f"{flag} {found} is out of range", why=f"Expected {expected}", fix="Change it")


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive prompts of the sorted corpus; ``index`` counts from 1.

    ``given_up`` are ids of prompts that are not worked on, since workers died over them.
    """

    index: int
    prompts: tuple[Prompt, ...]
    given_up: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"shard-{self.index:05d}"


@dataclass(frozen=True, slots=True)
class Plan:
    """``pair`` is `Pair.describe()`; ``corpus`` and ``settings`` are what the manifest records."""

    pair: Mapping[str, Any]
    corpus: Mapping[str, Any]
    settings: Settings
    shards: tuple[Shard, ...]
    software: Mapping[str, str]

    def config(self) -> dict[str, Any]:
        """Everything that decides a row, as JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "pair": dict(self.pair),
            "corpus": dict(self.corpus),
            "settings": {**asdict(self.settings), **self.software},
            "shards": [[prompt.id for prompt in shard.prompts] for shard in self.shards],
        }

    @property
    def config_hash(self) -> str:
        return sha256_json(self.config())[:12]


def make_plan(
    corpus: Corpus, *, pair: Mapping[str, Any], settings: Settings, name: str, limit: int | None
) -> Plan:
    """Cut the corpus (or its first ``limit`` prompts) into shards."""
    if limit is not None and limit < 1:
        raise _bad_setting("limit", limit, "1 or more")
    prompts = corpus.first(limit).prompts
    size = settings.shard_size
    return Plan(
        pair=pair,
        corpus={
            "name": name,
            "n_prompts": len(prompts),
            "files": [{"name": file, "sha256": digest} for file, digest in corpus.files],
        },
        settings=settings,
        shards=tuple(
            Shard(1 + start // size, prompts[start : start + size])
            for start in range(0, len(prompts), size)
        ),
        software={package: version(package) for package in NUMERIC_PACKAGES},
    )


def prompt_seeds(shard: Shard, seed: int) -> Sequence[int]:
    """One seed a prompt, from the run's seed and the prompt's id alone.

    So an answer does not change when its prompt moves to another shard.
    """
    keys = (f"{seed}/{prompt.id}".encode() for prompt in shard.prompts)
    return [int.from_bytes(hashlib.sha256(key).digest()[:4], "big") >> 1 for key in keys]


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    """What is to be explained, and with which pair."""
    parser.add_argument(
        "--nla", type=Path, required=True, metavar="DIR", help="the NLA pair (av/ and ar/)"
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, nargs="+", metavar="FILE", help="prompt JSONL files"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only the first N prompts, by id (to try it out)"
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Everything that decides what is made of a prompt."""
    default = {field.name: field.default for field in fields(Settings)}
    for name, kind, text in (
        ("max_new_tokens", int, "longest answer of the target, in tokens"),
        ("temperature", float, "sampling temperature of the answers; 0 is greedy"),
        ("samples", int, "explanations for each token"),
        ("explanation_tokens", int, "longest explanation, in tokens; longer ones are cut, flagged"),
        ("explanation_temperature", float, "sampling temperature of the explanations"),
        ("batch_size", int, "vectors explained at once"),
        ("shard_size", int, "prompts in one shard, the unit that is kept when a run is killed"),
        ("seed", int, "seed of everything that is sampled"),
    ):
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=kind,
            default=default[name],
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, or split: over all GPUs (default: auto)"
    )
    parser.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16 or float16 (default: auto)"
    )
