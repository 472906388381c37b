"""The pairs this installation can run, and how a prompt reads in their tokens.

Knows where pairs lie (``data/nla/`` and the folders that ``NLA_PAIRS`` names), their identity, and
their tokenizer. Loads no weights. The decision a reader would question: prompts are tokenised where
they are asked for, before the queue, because a prompt that does not fit should be refused to the
person who typed it and not to a worker an hour later.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nla_core.errors import NLAError
from nla_core.runs.request import RunPrompt
from nla_core.store.mounts import PROJECT

if TYPE_CHECKING:
    from nla_core.explain import Explainer
    from nla_core.nla.layout import Piece
    from nla_core.nla.pair import Pair

PAIRS_VARIABLE: Final = "NLA_PAIRS"
"""More folders of pairs, parted as in PATH."""


def configured() -> dict[str, Path]:
    """Folders of pairs by name: those of ``NLA_PAIRS``, then all under ``data/nla/``."""
    named = [Path(part) for part in os.environ.get(PAIRS_VARIABLE, "").split(os.pathsep) if part]
    shipped = sorted(PROJECT.glob("data/nla/*/av"))
    twins = sorted(PROJECT.glob("data/nla/*-av"))
    found = {folder.name.removesuffix("-av"): folder for folder in named}
    for folder in (*(av.parent for av in shipped), *twins):
        found.setdefault(folder.name.removesuffix("-av"), folder)
    return found


@dataclass(frozen=True, slots=True)
class Tokens:
    """A pair's tokenizer, and the context its target has."""

    tokenizer: Any
    context: int

    def pieces(self, prompt: RunPrompt) -> list[Piece]:
        """One a token, as the target will read it. Raises NLAError for what cannot be rendered."""
        from nla_core.nla.layout import prompt_ids

        return prompt_ids(self.tokenizer, prompt.content)[1]

    def count(self, prompt: RunPrompt) -> int:
        """How many tokens the prompt has. Raises NLAError for what cannot be rendered."""
        return len(self.pieces(prompt))


class Pairs:
    """Pairs by name, found and read when they are first asked for. Safe to share."""

    def __init__(self, folders: Callable[[], Mapping[str, Path]] = configured) -> None:
        self._folders = folders
        self._found: dict[str, Pair] = {}
        self._tokens: dict[str, Tokens] = {}
        self._lock = threading.Lock()

    def names(self) -> Sequence[str]:
        return list(self._folders())

    def get(self, name: str) -> Pair:
        """The pair, its sidecars checked. Raises NLAError for an unknown or a broken one."""
        from nla_core.nla.pair import find_pair

        folder = self._folder(name)
        with self._lock:
            if name not in self._found:
                self._found[name] = find_pair(folder)
            return self._found[name]

    def tokens(self, name: str) -> Tokens:
        """Its tokenizer; the first call may have to fetch the target. Raises NLAError."""
        from transformers import AutoConfig

        from nla_core.nla.checkpoints import load_tokenizer
        from nla_core.nla.families import family_of
        from nla_core.nla.pair import resolve_target

        pair = self.get(name)
        with self._lock:
            if name not in self._tokens:
                base = resolve_target(pair)
                config = AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
                nested = family_of(config).text_config
                inner = getattr(config, nested) if nested else config
                self._tokens[name] = Tokens(
                    load_tokenizer(base.folder), int(inner.max_position_embeddings)
                )
            return self._tokens[name]

    def load(
        self, name: str, *, device: str, dtype: str, progress: Callable[[str], None]
    ) -> Explainer:
        """All three models; see `nla_core.runs.shelf.LoadExplainer`."""
        from nla_core.explain import Explainer

        return Explainer.load(self._folder(name), device=device, dtype=dtype, progress=progress)

    def _folder(self, name: str) -> Path:
        known = self._folders()
        if name not in known:
            raise NLAError(
                f"There is no pair “{name[:60]}” here",
                why=f"this server has {', '.join(known) or 'none'}",
                fix=f"Choose one of these, or name its folder in {PAIRS_VARIABLE}",
            )
        return known[name]
