"""Pairs by name, and their models: loaded when first needed, shared by threads, let go when idle.

Several threads use a pair at once, without taking turns. In inference a model holds nothing of a
call: hooks mind their own thread, caches belong to a call, and the verbalizer's prefix, which is
shared, is only read once it is there. So an edit that is steered need not wait for a run. Who does
not choose a device gets the one that has the pair already, else the first of this machine.

The size of a pair is measured after it was loaded: guessing from files would be wrong for adapters,
GGUF and casts. A limit on memory is therefore kept by letting others go first, once nobody uses
them, and by refusing a pair that does not fit alone. Prompts are tokenised before the queue, so
that one that does not fit is refused to the person who typed it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from nla_core.errors import Cancelled, NLAError
from nla_core.jobs.queue import PairKey
from nla_core.jobs.request import RunPrompt
from nla_core.jobs.settings import WorkerSettings
from nla_core.models.threads import spare_cores
from nla_core.paths import PROJECT

if TYPE_CHECKING:
    from nla_core.explain import Explainer
    from nla_core.models.chat import Piece
    from nla_core.models.pair import Pair


PAIRS_VARIABLE: Final = "NLA_PAIRS"
"""More folders of pairs, parted as in PATH."""
MEGABYTE = 1_000_000
CPU_BATCH: Final = 48
FEWEST_ROWS: Final = 16
MOST_ROWS: Final = 256
ROW_BYTES: Final = 128 * MEGABYTE
"""Memory for one position at work: its keys and values, and its share of the states of a step."""
LONGEST_LOOK: Final = 30.0
LOOK_SECONDS: Final = 1.0
"""Who waits for a pair says so this often, which is a sign of life."""


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
        from nla_core.models.chat import prompt_ids

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
        from nla_core.models.pair import find_pair

        folder = self._folder(name)
        with self._lock:
            if name not in self._found:
                self._found[name] = find_pair(folder)
            return self._found[name]

    def tokens(self, name: str) -> Tokens:
        """Its tokenizer; the first call may have to fetch the target. Raises NLAError."""
        from transformers import AutoConfig

        from nla_core.models.checkpoints import load_tokenizer
        from nla_core.models.families import family_of
        from nla_core.models.pair import resolve_target

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
        """All three models; see `nla_core.jobs.models.LoadExplainer`."""
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


class LoadState(StrEnum):
    ABSENT = "not loaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


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


class DeviceModels:
    """Shared by all threads that need the models of this device."""

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
        from nla_core.models.devices import pick_place

        return pick_place(self.device).first.type == "cpu"

    def batch_size(self) -> int:
        """How many positions to decode together: as many as the memory left beside a pair takes."""
        import torch

        from nla_core.models.devices import pick_place

        device = pick_place(self.device).first
        if device.type != "cuda":
            return CPU_BATCH
        free, _ = torch.cuda.mem_get_info(device)
        return min(MOST_ROWS, max(FEWEST_ROWS, free // ROW_BYTES))

    def pace(self, explainer: Explainer) -> float:
        """Tokens a second, measured now; see `nla_core.jobs.estimate`."""
        from nla_core.jobs.estimate import tokens_per_second

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

        Raises NLAError where it cannot be loaded, or is another one, Cancelled where `retire` was
        called while this waited. Whoever uses one pair must not ask for a second meanwhile: with
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
        """Unload what was not used for the idle time; return what that was."""
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
        """Mark these models replaced; waiting callers raise Cancelled."""
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
            from nla_core.models.devices import free

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


class ModelCache:
    """The models of this process, by device. Safe from any thread."""

    def __init__(
        self, pairs: Pairs, settings: WorkerSettings, load: LoadExplainer | None = None
    ) -> None:
        self.pairs, self.settings = pairs, settings
        self._load = load or pairs.load
        self._devices: dict[str, DeviceModels] = {}
        self._lock = threading.Lock()
        self._keeper: threading.Thread | None = None

    def of(self, device: str) -> DeviceModels:
        """The device's models, the same for all who ask."""
        with self._lock:
            return self._device(device)

    def renewed(self, device: str) -> DeviceModels:
        """Replace the models of a device by an empty set; current users keep theirs."""
        with self._lock:
            old = self._devices.pop(device, None)
            new = self._device(device)
        if old is not None:
            old.retire()
        return new

    def ready(self, name: str) -> bool:
        """Whether that pair is loaded somewhere. May raise NLAError for an unknown pair."""
        here = self._here()
        if all(device.is_empty() for device in here):  # said without loading the model library
            return False
        key = self._key(name)
        return any(device.has(key) for device in here)

    @contextmanager
    def using(
        self, name: str, progress: Callable[[str], None] = lambda _: None
    ) -> Iterator[Explainer]:
        """The models of that pair, loaded if they are not (seconds to minutes).

        They may be in use by others, who notice nothing; while the queue is at work, whoever else
        uses them computes with one core. Raises NLAError where there is no such
        pair, or it cannot be loaded; see `nla_core.jobs.models.DeviceModels.using`.
        """
        key = self._key(name)
        with ExitStack() as held:
            explainer = None
            while explainer is None:
                try:
                    device = self._nearest(key)
                    explainer = held.enter_context(device.using(key, name, progress))
                except Cancelled:  # it was replaced meanwhile
                    continue
            spare_cores()
            try:
                yield explainer
            finally:
                self._keep_watch()

    def _key(self, name: str) -> PairKey:
        pair = self.pairs.get(name)
        return pair.pair_id, pair.revision

    def _device(self, device: str) -> DeviceModels:
        if device not in self._devices:
            asked = self.settings
            self._devices[device] = DeviceModels(
                self._load,
                device=device,
                dtype=asked.dtype,
                memory_mb=asked.memory_mb,
                idle_s=asked.idle_unload_s,
            )
        return self._devices[device]

    def _here(self) -> list[DeviceModels]:
        """The devices of this machine, in the order of the settings."""
        with self._lock:
            return [self._device(name) for name in self.settings.device_names]

    def _nearest(self, key: PairKey) -> DeviceModels:
        here = self._here()
        for wanted in (LoadState.READY, LoadState.LOADING):
            for device in here:
                if device.state(key).state is wanted:
                    return device
        return here[0]

    # ---- where no worker looks -------------------------------------------------------------------

    def _keep_watch(self) -> None:
        with self._lock:
            if not self.settings.idle_unload_s or self._keeper is not None:
                return
            self._keeper = threading.Thread(target=self._keep, name="models-idle", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        """Unload idle models until none is left."""
        pause = threading.Event()
        while True:
            pause.wait(min(LONGEST_LOOK, self.settings.idle_unload_s))
            for device in self._here():
                device.unload_idle()
            with self._lock:
                if all(device.is_empty() for device in self._devices.values()):
                    self._keeper = None  # under the lock: who comes after this makes another
                    return
