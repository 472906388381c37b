"""What is opened once a process: datasets, searches over them, the sentence encoder, models.

Pages and the JSON API share all of it, and two threads that ask at once get the same value. No
cache of Streamlit's is used, since the API has no session. Nothing here goes stale, because a
version of a dataset never changes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from nla_core.analysis.themes import BACKGROUND_READINGS, Background
from nla_core.data.dataset import Dataset
from nla_core.embed import MiniLM
from nla_core.errors import NLAError

if TYPE_CHECKING:
    from nla_core.analysis.concepts import Concept, Corpus
    from nla_core.analysis.derived import StoredScores
    from nla_core.data.search import Search
    from nla_core.explain import Explainer
    from nla_core.jobs.models import ModelCache
    from nla_core.jobs.runner import JobRunner
    from nla_core.steering.runner import Desk

LOG = logging.getLogger(__name__)
V = TypeVar("V")


class Kept(Generic[V]):
    """Up to ``most`` values, each made once for its key; the one unused for longest goes first.

    Making one holds up only those who want the same. An exception is raised to all who wait for the
    value and not kept: whoever asks later tries again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._making: dict[Hashable, Future[V]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        while True:
            with self._lock:
                if key in self._values:
                    self._values.move_to_end(key)
                    return self._values[key]
                making = self._making.get(key)
                if making is None:
                    own = self._making[key] = Future()
                    break
            with contextlib.suppress(CancelledError):  # whoever made it was stopped: try again
                return making.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            if isinstance(error, Exception):
                own.set_exception(error)
            else:  # a page that is left, not a failure of the value
                own.cancel()
            raise
        with self._lock:
            self._values[key] = value
            del self._making[key]
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        own.set_result(value)
        return value


_DATASETS: Final = Kept[Dataset](16)
_SEARCHES: Final = Kept["Search"](4)
_BACKGROUNDS: Final = Kept[Background](16)
_ENCODERS: Final = Kept[MiniLM](1)
_MODELS: Final = Kept["ModelCache"](1)
_CORPORA: Final[Kept[Corpus]] = Kept(1)
_SCORES: Final[Kept[StoredScores]] = Kept(8)
_RUNNERS: Final = Kept["JobRunner"](1)
_DESKS: Final = Kept["Desk"](1)


def dataset(root: Path, version: str) -> Dataset:
    """That version, opened. Raises NLAError as ``Dataset.open`` does."""
    return _DATASETS.get((root, version), lambda: Dataset.open(root, version))


def search(of: Dataset) -> Search:
    """The search over that version; the first call opens or builds its files."""
    from nla_core.data.search import Search

    def make() -> Search:
        return Search.over(of, encoder().embed, encoder().name)

    return _SEARCHES.get((of.root, of.version), make)


def background(of: Dataset) -> Background:
    """In what share of that version's explanations a word stands."""
    return _BACKGROUNDS.get(
        (of.root, of.version),
        lambda: Background.of(of.some_explanations(BACKGROUND_READINGS)),
    )


def scores(of: Dataset, concepts: tuple[Concept, ...]) -> StoredScores:
    """How near every reading and text of that version is to each concept.

    Read where they are stored for this very watchlist, else computed (half a minute for the demo,
    less from the second watchlist on).
    """
    from nla_core.analysis.concepts import ConceptScores, Corpus, Matcher, concepts_key
    from nla_core.analysis.derived import StoredScores
    from nla_core.analysis.semantic import EmbedOnce
    from nla_core.models.threads import spare_cores

    def make() -> StoredScores:
        try:
            return StoredScores.open(of, concepts)
        except NLAError:  # not stored: computed
            spare_cores()
            embed = EmbedOnce(encoder().embed)
        if of.explanation_vectors().shape[1] != encoder().dimension:
            raise NLAError(
                "The concepts cannot be held against this dataset",
                why=f"its vectors are not of the encoder {encoder().name}",
                fix="Publish the dataset again with this version's encoder",
            )
        corpus = _CORPORA.get((of.root, of.version), lambda: Corpus.of(of, embed))
        found = ConceptScores.of(corpus, Matcher.of(concepts, embed), embed)
        return StoredScores.computed(corpus, found, concepts, encoder().name)

    return _SCORES.get((of.root, of.version, concepts_key(concepts)), make)


def models() -> ModelCache:
    """The models of this process. Raises NLAError for settings that cannot be read."""
    from nla_core.jobs.models import ModelCache, Pairs
    from nla_core.jobs.settings import WorkerSettings

    return _MODELS.get("models", lambda: ModelCache(Pairs(), WorkerSettings.from_environment()))


def explainer(pair_id: str) -> AbstractContextManager[Explainer]:
    """The models of a pair that lies on this machine, for a ``with``: those of the queue.

    Raises NLAError where there is no such pair, or it cannot be loaded (seconds to minutes).
    """
    return models().using(pair_id)


def steering() -> Desk:
    """Steering experiments of this process, with the models of ``explainer``."""
    from nla_core.steering.runner import Desk

    return _DESKS.get("desk", lambda: Desk(models()))


def encoder() -> MiniLM:
    """The sentence encoder; its weights are read when it is first used."""
    return _ENCODERS.get("encoder", MiniLM)


def resume_runs() -> threading.Thread:
    """Go on with runs that a former server left, in the background. For the start of a server."""

    def resume() -> None:
        from nla_core.data.dataset import runs_home
        from nla_core.jobs.store import folders

        try:
            if any(folder.has_news() for folder in folders(runs_home())):
                runner()
        except NLAError as error:
            LOG.warning("The queue of runs was not taken up: %s", error)

    thread = threading.Thread(target=resume, name="runs-resume", daemon=True)
    thread.start()
    return thread


def runner() -> JobRunner:
    """The queue of on-demand runs, started when it is first asked for.

    Raises NLAError for settings that cannot be read, and where another process works on the folder.
    """
    from nla_core.data.dataset import runs_home
    from nla_core.jobs.runner import JobRunner
    from nla_core.jobs.settings import Limits

    def make() -> JobRunner:
        cache = models()
        made = JobRunner(
            runs_home(),
            pairs=cache.pairs,
            embedder=encoder(),
            limits=Limits.from_environment(),
            settings=cache.settings,
            model_cache=cache,
        )
        made.start()
        return made

    return _RUNNERS.get("runner", make)
