"""Text or messages in, token readings out: target, AV and AR in one streamed, cancellable call.

Knows how the three models of a pair work together and what a reading holds. Knows nothing of files,
datasets or pages. The decision a reader would question: transcribing (one pass of the target) and
explaining (a generated text a token) are two calls, because the first takes a second and shows the
tokens, and the second takes minutes and is where people choose positions, watch and cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nla_core import metrics
from nla_core.errors import Cancelled, NLAError
from nla_core.models.chat import Piece, Prompt, as_said, prompt_ids, with_answer
from nla_core.models.checkpoints import Progress
from nla_core.models.devices import fitting, free, is_out_of_memory, smaller
from nla_core.models.pair import LoadedPair, Pair, find_pair, load_pair
from nla_core.models.target import Answer, Trace
from nla_core.models.verbalizer import Verbalization
from nla_core.readings import (
    Reading,
    Token,
    Transcript,
    Want,
    Wanted,
    WantedVector,
    content_positions,
    derive_seed,
    reading_id,
    short_hash,
)
from nla_core.schema import (
    EARLY_POSITIONS,
    HIGH_NORM_FACTOR,
    LOW_FIDELITY_FVE,
    Finish,
    Flag,
)

__all__ = ["TOP_K", "Explainer", "Reading", "Token", "Transcript", "Wanted", "WantedVector"]

TOP_K = 5


class Explainer:
    """A loaded pair, ready to transcribe prompts and to explain their tokens."""

    def __init__(self, loaded: LoadedPair) -> None:
        self.loaded = loaded
        self._most: dict[str, int] = {}  # prompts and readings at a time, where memory was short

    @classmethod
    def load(
        cls,
        pair_dir: Path | str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        progress: Progress = lambda _: None,
    ) -> Explainer:
        """Find and load a pair; NLAError names what is missing or disagrees."""
        pair = find_pair(pair_dir)
        return cls(load_pair(pair, device=device, dtype=dtype, progress=progress))

    @property
    def pair(self) -> Pair:
        return self.loaded.pair

    def transcribe(
        self,
        prompts: Sequence[Prompt],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Transcript | NLAError]:
        """Let the target answer each prompt and trace the whole; 0 new tokens: read as it stands.

        A prompt that cannot be processed gives its NLAError in its place; the others go on, fewer
        at a time where memory is short. Raises Cancelled between the tokens of the answers.
        """
        made: list[Transcript | NLAError] = []
        while len(made) < len(prompts):
            begin = len(made)

            def some(n: int, begin: int = begin) -> list[Transcript | NLAError]:
                return self._transcribe(
                    prompts[begin : begin + n],
                    seeds=seeds[begin : begin + n],
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    cancelled=cancelled,
                )

            most = min(self._most.get("prompts", len(prompts)), len(prompts) - begin)
            part, fits = fitting(some, most)
            if fits < most:
                self._most["prompts"] = fits
            made += part
        return made

    def _transcribe(
        self,
        prompts: Sequence[Prompt],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        cancelled: Callable[[], bool],
    ) -> list[Transcript | NLAError]:
        results: dict[int, Transcript | NLAError] = {}
        rendered: dict[int, tuple[list[int], list[Piece]]] = {}
        for i, messages in enumerate(prompts):
            try:
                rendered[i] = prompt_ids(self.loaded.tokenizer, messages)
                self.loaded.target.check_length(len(rendered[i][0]) + max_new_tokens)
            except NLAError as error:
                rendered.pop(i, None)
                results[i] = error
        order = list(rendered)
        answers = self.loaded.target.answer(
            [rendered[i][0] for i in order],
            seeds=[seeds[i] for i in order],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            cancelled=cancelled,
        )
        whole = [
            with_answer(
                self.loaded.tokenizer,
                rendered[i],
                answer.ids,
                turn=len(as_said(prompts[i], "")) - 1,
            )
            for i, answer in zip(order, answers, strict=True)
        ]
        traces = self.loaded.target.trace([ids for ids, _ in whole], top_k=TOP_K)
        for i, answer, (_, pieces), trace in zip(order, answers, whole, traces, strict=True):
            settings = {"seed": seeds[i], "max": max_new_tokens, "temperature": temperature}
            try:
                results[i] = self._transcript(prompts[i], answer, pieces, trace, settings)
            except NLAError as error:
                results[i] = error
        return [results[i] for i in range(len(prompts))]

    def read(
        self,
        prompt: Prompt,
        *,
        answer_tokens: int = 0,
        positions: Sequence[int] | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        max_new_tokens: int = 80,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[Token, Reading]]:
        """Explain a text, or a conversation of ``{"role", "content"}`` messages, as texts finish.

        With ``answer_tokens`` the target answers first, greedily, and its answer is read too.
        ``positions`` are token positions; by default all content tokens. Raises NLAError for a
        prompt that cannot be read, Cancelled once ``cancelled()`` is true.
        """
        (made,) = self.transcribe(
            [prompt],
            seeds=[seed],
            max_new_tokens=answer_tokens,
            temperature=0.0,
            cancelled=cancelled,
        )
        if isinstance(made, NLAError):
            raise made
        places = content_positions(made) if positions is None else positions
        for _, reading in self.explain(
            [made],
            [places],
            temperature=temperature,
            seed=seed,
            max_new_tokens=max_new_tokens,
            cancelled=cancelled,
        ):
            yield made.tokens[reading.position], reading

    def explain_vectors(
        self,
        vectors: Any,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        max_new_tokens: int = 80,
        batch_size: int = 64,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, Reading]]:
        """Explain ``[n, d_model]`` raw vectors of block K: ``(row, reading)`` as texts finish.

        ``vectors`` is anything that numpy takes. A reading's ``position`` is its row; positions in
        a text are not known here, so no reading is flagged as early. Raises NLAError for another
        shape and for zero, NaN or infinite rows, Cancelled between decode steps.
        """
        hidden = self._vectors(vectors)
        norms = hidden.norm(dim=-1).tolist()
        wanted = [
            WantedVector(EARLY_POSITIONS, 0, derive_seed(seed, row), hidden[row], norms[row])
            for row in range(len(hidden))
        ]
        for row, reading in self.explain_each(
            wanted,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            cancelled=cancelled,
        ):
            yield row, replace(reading, position=row)

    def reconstruct(self, texts: Sequence[str]) -> np.ndarray:
        """``[n, d_model]`` float32: the vectors that the AR makes of ``texts``, their direction."""
        return self.loaded.reconstructor.reconstruct(list(texts)).numpy()

    def score(self, texts: Sequence[str], vectors: Any) -> list[float]:
        """FVE of each text against its vector (``[n, d_model]``, raw), by this pair's rawvar.

        Raises NLAError where their numbers differ, and as `explain_vectors`.
        """
        hidden = self._vectors(vectors)
        if len(texts) != len(hidden):
            raise NLAError(
                f"{len(texts)} texts cannot be scored against {len(hidden)} vectors",
                why="Each text is compared with the vector in its place",
                fix="Give as many texts as vectors",
            )
        errors = metrics.mse_nrm(self.loaded.reconstructor.reconstruct(list(texts)), hidden)
        return metrics.fve(errors, self.pair.reference.rawvar).tolist()

    def _vectors(self, vectors: Any) -> Tensor:
        """``[n, d_model]`` float32, checked."""
        d_model = self.pair.d_model
        try:
            hidden = torch.as_tensor(np.asarray(vectors, dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise NLAError(
                "These are not vectors", why=str(error), fix=f"Give numbers of shape [n, {d_model}]"
            ) from None
        if hidden.dim() != 2 or hidden.shape[1] != d_model:
            raise NLAError(
                f"Vectors of shape {list(hidden.shape)} do not fit this pair",
                why=f"It reads the output of block {self.pair.layer}, {d_model} numbers a token",
                fix=f"Give an array of shape [n, {d_model}]; a single vector as [1, {d_model}]",
            )
        metrics.check_vectors(hidden, name="vector")
        return hidden

    def content_positions(self, transcript: Transcript) -> list[int]:
        """See `nla_core.readings.content_positions`."""
        return content_positions(transcript)

    def explain(
        self,
        transcripts: Sequence[Transcript],
        positions: Sequence[Sequence[int]],
        *,
        samples: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        max_new_tokens: int = 80,
        batch_size: int = 64,
        cancelled: Callable[[], bool] = lambda: False,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[tuple[int, Reading]]:
        """Explain positions of many transcripts in shared batches.

        Yields ``(index of the transcript, reading)`` as texts finish, a few at a time: each is
        scored by the AR as soon as it is whole. Where memory is short, it goes on with half as
        many rows at a time, and what was made is kept. Raises NLAError for a position out of
        range, Cancelled between decode steps; what was yielded stays valid. Positions whose vector
        has no direction (``Transcript.unreadable``) are left out.
        """
        owners, wanted = [], []
        for i, places in enumerate(positions):
            transcript = transcripts[i]
            lost = transcript.unreadable
            for position in (p for p in self._checked(transcript, places) if p not in lost):
                for sample in range(samples):
                    own = derive_seed(seed, transcript.transcript_id, position, sample)
                    owners.append(i)
                    wanted.append(Wanted(transcript, position, sample, own))
        on_progress(0, len(wanted))
        left, size = list(range(len(wanted))), min(batch_size, self._most.get("rows", batch_size))
        while left:
            numbers, came = left, set[int]()
            try:
                for index, reading in self.explain_each(
                    [wanted[i] for i in numbers],
                    temperature=temperature,
                    max_new_tokens=max_new_tokens,
                    batch_size=size,
                    cancelled=cancelled,
                ):
                    came.add(numbers[index])
                    on_progress(len(wanted) - len(numbers) + len(came), len(wanted))
                    yield owners[numbers[index]], reading
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                size = self._most["rows"] = smaller(size, error)
            left = [number for number in numbers if number not in came]
            if left:
                free()

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
        """Readings of any transcripts of this pair in shared batches: ``(index, reading)``.

        ``on_text`` hears of each text when it is whole; its score comes with the reading, by
        passes of the AR over ``score_size`` texts (a quarter of the batch). Rows that are no longer
        wanted leave between decode steps. Raises as ``explain``.
        """
        if not wanted:
            return
        vectors = torch.stack([w.vector for w in wanted])
        texts = self.loaded.verbalizer.verbalize(
            vectors,
            seeds=[w.seed for w in wanted],
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            cancelled=cancelled,
            wanted=still_wanted,
        )
        for group in _groups(_heard(texts, on_text), score_size or max(1, batch_size // 4)):
            yield from self._score(wanted, vectors, group)

    def reading_id(self, transcript_id: str, reading: Reading) -> str:
        """A name that survives a rebuild; see `nla_core.readings.reading_id`."""
        return reading_id(self.pair.pair_id, self.pair.revision, transcript_id, reading)

    def _score(
        self, asked: Sequence[Want], vectors: Tensor, texts: Sequence[Verbalization]
    ) -> Iterator[tuple[int, Reading]]:
        reference = self.pair.reference
        rows = [text.row for text in texts]
        predicted = self.loaded.reconstructor.reconstruct([text.text for text in texts])
        scores = metrics.score(
            predicted, vectors[rows], mean=reference.mean, denominator=reference.rawvar
        )
        for k, text in enumerate(texts):
            wanted = asked[text.row]
            fve = float(scores.fve[k])
            yield (
                text.row,
                Reading(
                    position=wanted.position,
                    sample=wanted.sample,
                    explanation=text.text,
                    finish=text.finish,
                    n_tokens=text.n_tokens,
                    mse_nrm=float(scores.mse_nrm[k]),
                    cosine=float(scores.cosine[k]),
                    centred_cosine=float(scores.centred_cosine[k]),
                    fve=fve,
                    flags=self._flags(wanted.position, wanted.norm, text.finish, fve),
                    seed=wanted.seed,
                ),
            )

    def _flags(self, position: int, norm: float, finish: Finish, fve: float) -> tuple[str, ...]:
        rules = {
            Flag.EARLY: position < EARLY_POSITIONS,
            Flag.HIGH_NORM: norm > HIGH_NORM_FACTOR * self.pair.reference.median_norm,
            Flag.CUT: finish is Finish.CUT,
            Flag.LOW_FIDELITY: fve < LOW_FIDELITY_FVE,
        }
        return tuple(flag for flag, holds in rules.items() if holds)

    def _checked(self, transcript: Transcript, positions: Sequence[int]) -> Sequence[int]:
        wrong = [p for p in positions if not 0 <= p < len(transcript.tokens)]
        if wrong:
            raise NLAError(
                f"Position {wrong[0]} does not exist",
                why=f"The transcript has positions 0 to {len(transcript.tokens) - 1}",
                fix="Choose positions inside the transcript",
            )
        return positions

    def _transcript(
        self,
        messages: Prompt,
        answer: Answer,
        pieces: Sequence[Piece],
        trace: Trace,
        settings: dict[str, float],
    ) -> Transcript:
        """Positions whose vector has no direction have the norm 0, and cost only themselves.

        Raises NLAError where that is true of everything there is to read.
        """
        norms = trace.hidden.norm(dim=-1).where(metrics.usable(trace.hidden), 0.0)
        percentiles = self.pair.reference.norm_percentile(norms)
        is_known = trace.surprisal.isfinite().tolist()  # not at the first token
        is_sure = trace.top_probs.isfinite().all(-1).tolist()
        decode = self.loaded.tokenizer.decode
        tokens = [
            Token(
                position=t,
                token_id=piece.token_id,
                chip=piece.chip,
                text=piece.text,
                role=piece.role,
                section=piece.section,
                turn=piece.turn,
                norm=float(norms[t]),
                norm_pct=float(percentiles[t]),
                surprisal=float(trace.surprisal[t]) if is_known[t] else None,
                top_tokens=tuple(decode([i]) for i in trace.top_ids[t].tolist() if is_sure[t]),
                top_probs=tuple(p for p in trace.top_probs[t].tolist() if is_sure[t]),
            )
            for t, piece in enumerate(pieces)
        ]
        reply = self.loaded.tokenizer.decode(answer.ids, skip_special_tokens=True)
        said = as_said(messages, reply)
        ids = [piece.token_id for piece in pieces]
        made = Transcript(
            transcript_id=short_hash([self.pair.target, said, settings, ids]),
            messages=tuple(said),
            tokens=tuple(tokens),
            hidden=trace.hidden,
            n_answer_tokens=len(answer.ids),
            answer_finish=answer.finish if answer.ids else "none",
        )
        content = content_positions(made)
        if made.unreadable.issuperset(content):
            metrics.check_vectors(trace.hidden[content], name="activation")
        return made


def _heard(
    texts: Iterator[Verbalization], on_text: Callable[[int, Verbalization], None]
) -> Iterator[Verbalization]:
    for text in texts:
        on_text(text.row, text)
        yield text


def _groups(texts: Iterator[Verbalization], size: int) -> Iterator[list[Verbalization]]:
    """Texts in groups worth one pass of the AR; what was whole before a cancel still comes out."""
    group: list[Verbalization] = []
    try:
        for text in texts:
            group.append(text)
            if len(group) == size:
                yield group
                group = []
    except Cancelled:
        if group:
            yield group
        raise
    if group:
        yield group
