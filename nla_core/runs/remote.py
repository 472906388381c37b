"""A pair that is loaded on another machine, as the queue's worker sees it: an explainer over HTTP.

Knows how each call becomes a job and how its lines become results. Knows no queue and no socket.
The decision a reader would question: rows that somebody gives up are named to the worker in a
request of their own, because the stream of the job only flows towards the page; where that request
is lost, they are made for nothing.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from nla_core.errors import NLAError
from nla_core.nla.verbalizer import Verbalization
from nla_core.readings import Reading, Transcript, content_positions
from nla_core.runs import remote_wire as wire
from nla_core.runs.remote_link import Address, WorkerLost
from nla_core.runs.remote_wire import Identity, Kind
from nla_core.schema import Finish

if TYPE_CHECKING:
    from nla_core.nla.layout import Prompt
    from nla_core.readings import Want


class RemoteExplainer:
    """Stands in for `nla_core.explain.Explainer` where a run is worked on."""

    def __init__(self, address: Address, identity: Identity) -> None:
        self.address, self.pair = address, identity

    def transcribe(
        self,
        prompts: Sequence[Prompt],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Transcript | NLAError]:
        """See `nla_core.explain.Explainer.transcribe`; raises WorkerLost besides."""
        job = wire.TranscribeJob(
            job=secrets.token_hex(8),
            pair=self.pair.key,
            prompts=tuple(p if isinstance(p, str) else tuple(p) for p in prompts),
            seeds=tuple(seeds),
            temperature=temperature,
            max_new_tokens=max_new_tokens,
        )
        return [
            NLAError(**line["refused"])
            if "refused" in line
            else wire.transcript_of(line["transcript"])
            for line in self.address.lines(wire.TRANSCRIBE, job.to_json(), cancelled)
        ]

    def content_positions(self, transcript: Transcript) -> list[int]:
        return content_positions(transcript)

    def explain_each(
        self,
        wanted: Sequence[Want],
        *,
        temperature: float,
        max_new_tokens: int,
        batch_size: int,
        score_size: int | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        still_wanted: Callable[[int], bool] = lambda _: True,
        on_text: Callable[[int, Verbalization], None] = lambda index, text: None,
    ) -> Iterator[tuple[int, Reading]]:
        """See `nla_core.explain.Explainer.explain_each`; raises WorkerLost besides."""
        job = wire.ExplainJob(
            job=secrets.token_hex(8),
            pair=self.pair.key,
            rows=tuple(wire.Row(w.position, w.sample, w.seed, w.norm) for w in wanted),
            vectors=torch.stack([w.vector for w in wanted]),
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            score_size=score_size or max(1, batch_size // 4),
        )
        left = set(range(len(wanted)))

        def over() -> bool:
            if cancelled():
                return True
            gone = {row for row in left if not still_wanted(row)}
            if gone:
                left.difference_update(gone)
                self._drop(job.job, gone)
            return False

        for line in self.address.lines(wire.EXPLAIN, job.to_json(), over):
            if line["kind"] == Kind.TEXT:
                row = line["row"]
                on_text(row, Verbalization(row, line["text"], Finish(line["finish"]), line["n"]))
            else:
                left.discard(line["row"])
                yield line["row"], wire.reading_of(line["reading"])

    def _drop(self, job: str, rows: set[int]) -> None:
        with contextlib.suppress(WorkerLost, NLAError):  # they are made for nothing then
            self.address.ask(wire.DROP, {"job": job, "rows": sorted(rows)})
