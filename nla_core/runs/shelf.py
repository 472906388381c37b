"""Models of one device: loaded when they are first needed, let go when nobody asks for them.

Knows which pairs are loaded, how large they are, and how that is told to a page. Knows no run. The
decision a reader would question: the size of a pair is measured after it was loaded, so a limit on
memory is kept by letting others go first and refusing a pair that does not fit alone; guessing
from files would be wrong for adapters, GGUF and casts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from nla_core.errors import NLAError
from nla_core.runs.schedule import PairKey

if TYPE_CHECKING:
    from nla_core.explain import Explainer, Wanted
    from nla_core.nla.layout import Prompt
    from nla_core.nla.verbalizer import Verbalization
    from nla_core.readings import Reading, Transcript
    from nla_core.runs.remote_link import WorkerLost

MEGABYTE = 1_000_000


class LoadState(StrEnum):
    ABSENT = "not loaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class RunExplainer(Protocol):
    """What a run needs of `nla_core.explain.Explainer`, wherever its models are."""

    def transcribe(
        self,
        prompts: Sequence[Prompt],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        cancelled: Callable[[], bool],
    ) -> list[Transcript | NLAError]: ...

    def content_positions(self, transcript: Transcript) -> list[int]: ...

    def explain_each(
        self,
        wanted: Sequence[Wanted],
        *,
        temperature: float,
        max_new_tokens: int,
        batch_size: int,
        score_size: int | None,
        cancelled: Callable[[], bool],
        still_wanted: Callable[[int], bool],
        on_text: Callable[[int, Verbalization], None],
    ) -> Iterator[tuple[int, Reading]]: ...


class Models(Protocol):
    """Where a worker thread has its models: on a device of its own, or on another machine.

    ``serves`` is the one pair it can have, or None: any. What is not reached takes no work.
    """

    @property
    def device(self) -> str: ...

    @property
    def serves(self) -> PairKey | None: ...

    def reach(self) -> bool: ...

    def state(self, key: PairKey) -> ModelState: ...

    def has(self, key: PairKey) -> bool: ...

    def get(
        self, key: PairKey, name: str, progress: Callable[[str], None] = ...
    ) -> RunExplainer: ...

    def pace(self, explainer: Any) -> float: ...

    def unload_idle(self) -> list[PairKey]: ...

    def lost(self, error: WorkerLost) -> None: ...


class LoadExplainer(Protocol):
    """Loads the pair of that name; NLAError says what is missing."""

    def __call__(
        self, name: str, *, device: str, dtype: str, progress: Callable[[str], None]
    ) -> Explainer: ...


@dataclass(frozen=True, slots=True)
class ModelState:
    """``note`` is what is being done, or why it failed; ``megabytes`` what it holds."""

    state: LoadState
    note: str = ""
    megabytes: int = 0
    load_s: float = 0.0


@dataclass(slots=True)
class _Loaded:
    explainer: Explainer
    megabytes: int
    used: float


class Shelf:
    """Used by one worker; its states are read from any thread."""

    serves: PairKey | None = None

    def __init__(
        self, load: LoadExplainer, *, device: str, dtype: str, memory_mb: int, idle_s: float
    ) -> None:
        self._load, self.device, self.dtype = load, device, dtype
        self._memory_mb, self._idle_s = memory_mb, idle_s
        self._loaded: dict[PairKey, _Loaded] = {}
        self._states: dict[PairKey, ModelState] = {}
        self._lock = threading.Lock()

    def reach(self) -> bool:
        return True

    def lost(self, error: WorkerLost) -> None:
        """Models of this process are never away."""

    def pace(self, explainer: Explainer) -> float:
        """Tokens a second, measured now; see `nla_core.runs.pace`."""
        from nla_core.runs.pace import tokens_per_second

        return tokens_per_second(explainer)

    def state(self, key: PairKey) -> ModelState:
        with self._lock:
            return self._states.get(key, ModelState(LoadState.ABSENT))

    def has(self, key: PairKey) -> bool:
        with self._lock:
            return key in self._loaded

    def get(
        self, key: PairKey, name: str, progress: Callable[[str], None] = lambda _: None
    ) -> Explainer:
        """The pair, loaded if it is not. Raises NLAError where it cannot be, or is another one."""
        with self._lock:
            found = self._loaded.get(key)
            if found is not None:
                found.used = time.monotonic()
                return found.explainer
        return self._fetch(key, name, progress)

    def unload_idle(self) -> list[PairKey]:
        """Let go what was not used for the idle time; what that was."""
        limit = time.monotonic() - self._idle_s
        with self._lock:
            idle = [key for key, held in self._loaded.items() if held.used < limit]
        return self._drop(idle) if self._idle_s else []

    def clear(self) -> None:
        self._drop(list(self._loaded))

    def _fetch(self, key: PairKey, name: str, progress: Callable[[str], None]) -> Explainer:
        began = time.monotonic()

        def note(text: str) -> None:
            self._say(key, ModelState(LoadState.LOADING, text))
            progress(text)

        note("Waiting for the model library")
        try:
            if self._memory_mb:  # make room first: two pairs at once are what does not fit
                self._drop([other for other in list(self._loaded) if other != key])
            explainer = self._load(name, device=self.device, dtype=self.dtype, progress=note)
            found = (explainer.pair.pair_id, explainer.pair.revision)
            if found != key:
                raise NLAError(
                    f"The pair {name} is not the one that was asked for",
                    why=f"its revision is {found[1]}, the run was made for {key[1]}",
                    fix="Start the run again with the pair as it is now",
                )
            size = megabytes_of(explainer)
            if self._memory_mb and size > self._memory_mb:
                raise NLAError(
                    f"The pair {name} does not fit",
                    why=f"it takes {size:,} MB and memory_mb is {self._memory_mb:,}",
                    fix="Raise memory_mb in NLA_RUN_WORKER, or use a smaller pair",
                )
        except BaseException as error:
            self._say(key, ModelState(LoadState.FAILED, str(error)))
            raise
        with self._lock:
            self._loaded[key] = _Loaded(explainer, size, time.monotonic())
        self._say(key, ModelState(LoadState.READY, megabytes=size, load_s=time.monotonic() - began))
        return explainer

    def _drop(self, keys: list[PairKey]) -> list[PairKey]:
        if keys:
            from nla_core.memory import free

            with self._lock:
                for key in keys:
                    self._loaded.pop(key, None)
                    self._states.pop(key, None)
            free()
        return keys

    def _say(self, key: PairKey, state: ModelState) -> None:
        with self._lock:
            self._states[key] = state


def megabytes_of(explainer: Explainer) -> int:
    """What the three models hold, each tensor once."""
    loaded = explainer.loaded
    sizes: dict[int, int] = {}
    for model in (loaded.target.model, loaded.verbalizer.model, loaded.reconstructor.model):
        for tensor in _tensors(model):
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    return sum(sizes.values()) // MEGABYTE


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.parameters()
    yield from model.buffers()
