"""Models of one device: loaded when they are first needed, let go when nobody asks for them.

Knows which pairs are loaded, who uses them, how large they are, and how that is told to a page.
Knows no run. The decision a reader would question: several threads use a pair at once, without
taking turns. In inference a model holds nothing of a call: hooks mind their own thread, caches
belong to a call, and the verbalizer's prefix, which is shared, is only read once it is there. So an
edit that is steered need not wait for a run.

The size of a pair is measured after it was loaded: guessing from files would be wrong for adapters,
GGUF and casts. A limit on memory is therefore kept by letting others go first, once nobody uses
them, and by refusing a pair that does not fit alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from nla_core.errors import Cancelled, NLAError
from nla_core.runs.schedule import PairKey

if TYPE_CHECKING:
    from nla_core.explain import Explainer, Wanted
    from nla_core.nla.layout import Prompt
    from nla_core.nla.verbalizer import Verbalization
    from nla_core.readings import Reading, Transcript
    from nla_core.runs.remote_link import WorkerLost

MEGABYTE = 1_000_000
LOOK_SECONDS: Final = 1.0
"""Who waits for a pair says so this often, which is a sign of life."""


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

    def using(
        self, key: PairKey, name: str, progress: Callable[[str], None] = ...
    ) -> AbstractContextManager[RunExplainer]: ...

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
    used: float  # when somebody last let go of it
    users: int = 0


class Shelf:
    """Shared by all threads that need the models of this device."""

    serves: PairKey | None = None

    def __init__(
        self, load: LoadExplainer, *, device: str, dtype: str, memory_mb: int, idle_s: float
    ) -> None:
        self._load, self.device, self.dtype = load, device, dtype
        self._memory_mb, self._idle_s = memory_mb, idle_s
        self._loaded: dict[PairKey, _Loaded] = {}
        self._states: dict[PairKey, ModelState] = {}
        self._loading: PairKey | None = None
        self._next: PairKey | None = None  # waits for room: others let it go first
        self._retired = False
        self._changed = threading.Condition()

    @property
    def is_cpu(self) -> bool:
        """Whether whoever uses these models does the arithmetic with the cores."""
        from nla_core.nla.placement import pick_place

        return pick_place(self.device).first.type == "cpu"

    def reach(self) -> bool:
        return True

    def lost(self, error: WorkerLost) -> None:
        """Models of this process are never away."""

    def pace(self, explainer: Explainer) -> float:
        """Tokens a second, measured now; see `nla_core.runs.pace`."""
        from nla_core.runs.pace import tokens_per_second

        return tokens_per_second(explainer)

    def state(self, key: PairKey) -> ModelState:
        with self._changed:
            return self._states.get(key, ModelState(LoadState.ABSENT))

    def has(self, key: PairKey) -> bool:
        with self._changed:
            return key in self._loaded

    @contextmanager
    def using(
        self, key: PairKey, name: str, progress: Callable[[str], None] = lambda _: None
    ) -> Iterator[Explainer]:
        """The pair, loaded if it is not, and kept for as long as it is used.

        Raises NLAError where it cannot be loaded, or is another one, Cancelled where the shelf was
        given up while this waited. Whoever uses one pair must not ask for a second meanwhile: with
        a limit on memory they might wait for each other.
        """
        held = self._take(key, name, progress)
        try:
            yield held.explainer
        finally:
            with self._changed:
                held.users -= 1
                held.used = time.monotonic()
                self._changed.notify_all()

    def unload_idle(self) -> list[PairKey]:
        """Let go what was not used for the idle time; what that was."""
        limit = time.monotonic() - self._idle_s
        with self._changed:
            idle = [k for k, held in self._loaded.items() if not held.users and held.used < limit]
            if self._idle_s:
                self._drop(idle)
        return self._freed(idle) if self._idle_s else []

    def is_empty(self) -> bool:
        """Whether nothing is loaded or being loaded."""
        with self._changed:
            return not self._loaded and self._loading is None

    def retire(self) -> None:
        """It is replaced: who waits for something here waits for nothing."""
        with self._changed:
            self._retired = True
            self._changed.notify_all()

    def _take(self, key: PairKey, name: str, progress: Callable[[str], None]) -> _Loaded:
        def note(text: str) -> None:
            self._say(key, ModelState(LoadState.LOADING, text))
            progress(text)

        with self._changed:
            try:
                while (held := self._loaded.get(key)) is None or self._next not in (None, key):
                    if held is None and self._may_load(key):
                        break
                    if held is None and self._memory_mb:
                        self._next = self._next or key
                        self._say_waiting(key)
                    progress("waiting")
                    self._changed.wait(LOOK_SECONDS)
                    if self._retired:
                        raise Cancelled
            finally:
                if self._next == key:
                    self._next = None
            if held is not None:
                held.users += 1
                return held
            self._loading = key
            others = [other for other in self._loaded if other != key] if self._memory_mb else []
            self._drop(others)
        try:
            self._freed(others)
            return self._fetch(key, name, note)
        finally:
            with self._changed:
                self._loading = None
                self._changed.notify_all()

    def _may_load(self, key: PairKey) -> bool:
        """Whether nothing else is being loaded, and what has to go for this is not used."""
        if self._loading is not None or self._next not in (None, key):
            return False
        return not self._memory_mb or not any(held.users for held in self._loaded.values())

    def _say_waiting(self, key: PairKey) -> None:
        if self._loading != key:  # else whoever loads it says how far that is
            note = "waiting until another pair is no longer in use"
            self._states[key] = ModelState(LoadState.LOADING, note)

    def _fetch(self, key: PairKey, name: str, note: Callable[[str], None]) -> _Loaded:
        began = time.monotonic()
        note("Waiting for the model library")
        try:
            explainer = self._load(name, device=self.device, dtype=self.dtype, progress=note)
            found = (explainer.pair.pair_id, explainer.pair.revision)
            if found != key:
                raise NLAError(
                    f"The pair {name} is not the one that was asked for",
                    why=f"its revision is {found[1]}, and {key[1]} was asked for",
                    fix="Start the server again, and ask for the pair as it is now",
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
        took = time.monotonic() - began
        with self._changed:
            held = self._loaded[key] = _Loaded(explainer, size, time.monotonic(), users=1)
            self._states[key] = ModelState(LoadState.READY, megabytes=size, load_s=took)
        return held

    def _drop(self, keys: list[PairKey]) -> None:
        for key in keys:
            self._loaded.pop(key, None)
            self._states.pop(key, None)

    def _freed(self, keys: list[PairKey]) -> list[PairKey]:
        if keys:
            from nla_core.memory import free

            free()
        return keys

    def _say(self, key: PairKey, state: ModelState) -> None:
        with self._changed:
            self._states[key] = state


def megabytes_of(explainer: Explainer) -> int:
    """What the three models hold, each tensor once."""
    loaded = explainer.loaded
    sizes: dict[int, int] = {}
    for model in (loaded.target.model, loaded.verbalizer.model, loaded.reconstructor.model):
        for tensor in _tensors(model):
            # What is packed keeps a shape that has no address of its own.
            sizes[tensor.data_ptr() or id(tensor)] = tensor.numel() * tensor.element_size()
    return sum(sizes.values()) // MEGABYTE


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.parameters()
    yield from model.buffers()
