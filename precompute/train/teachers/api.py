"""A chat service as the teacher: many questions at a time, each paid for once.

Knows concurrency, the ledger of answers and what the work will cost. Knows nothing of HTTP and of
the wording. The decision a reader would question: the key of a question leaves the seed out; two
vectors with the same prefix share one paid answer.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from nla_core.errors import Cancelled
from precompute.train.teachers.answers import labels_from
from precompute.train.teachers.base import Label, LabelRequest
from precompute.train.teachers.chat_client import ChatClient
from precompute.train.teachers.ledger import Ledger, key_of
from precompute.train.teachers.structured import StructuredTeacher
from precompute.train.teachers.wording import SHOWN_CHARACTERS, VERSION, question

CHARACTERS_A_TOKEN = 3.5
ANSWER_TOKENS = 90
"""What an answer usually has: two or three snippets of at most twenty words."""
QUESTION_CHARACTERS = 1300
"""The wording around a prefix, about."""


class ApiTeacher:
    """See Teacher. ``price_in`` and ``price_out`` are a million tokens' prices, in any currency."""

    name = "api"

    def __init__(
        self,
        client: ChatClient,
        ledger: Ledger,
        stand_in: StructuredTeacher,
        *,
        workers: int = 8,
        price_in: float | None = None,
        price_out: float | None = None,
    ) -> None:
        self._client, self.ledger, self._stand_in = client, ledger, stand_in
        self._workers = workers
        self._prices = (price_in, price_out)

    def config(self) -> dict[str, Any]:
        return {"name": self.name, **self._identity(), "wording": VERSION}

    def label(self, requests: Sequence[LabelRequest]) -> list[Label]:
        return labels_from(requests, self._ask, name=self.name, stand_in=self._stand_in)

    def forecast(self, prefix_characters: Sequence[int]) -> str | None:
        n = len(prefix_characters)
        if not n:
            return None
        shown = sum(min(length, SHOWN_CHARACTERS) for length in prefix_characters)
        tokens_in = (shown + QUESTION_CHARACTERS * n) / CHARACTERS_A_TOKEN
        tokens_out = ANSWER_TOKENS * n
        most_out = self._client.max_tokens * n
        text = (
            f"About {n:,} questions to {self._client.base_url}, model {self._client.model}: an "
            f"estimated {tokens_in:,.0f} tokens in (by counting characters), {tokens_out:,.0f} "
            f"out and at most {most_out:,.0f}. "
        )
        price_in, price_out = self._prices
        if price_in is None or price_out is None:
            return text + "No price is known: give --price-in and --price-out (a million tokens)."
        cost = (tokens_in * price_in + tokens_out * price_out) / 1e6
        most = (tokens_in * price_in + most_out * price_out) / 1e6
        return (
            text
            + f"At {price_in:g} and {price_out:g} a million tokens, that is about {cost:,.2f}, "
            f"and {most:,.2f} if every answer were as long as it may be. This is an estimate; "
            "questions that must be asked again come on top."
        )

    def report(self) -> str | None:
        """The service's own count over all answers kept, those of earlier runs included."""
        tokens_in, tokens_out = self.ledger.input_tokens, self.ledger.output_tokens
        text = f"{len(self.ledger):,} answers, {tokens_in:,} tokens in, {tokens_out:,} out"
        price_in, price_out = self._prices
        if price_in is None or price_out is None:
            return text
        return f"{text}: {(tokens_in * price_in + tokens_out * price_out) / 1e6:,.2f}"

    def _identity(self) -> dict[str, Any]:
        client = self._client
        return {
            "provider": str(client.provider),
            "base_url": client.base_url,
            "model": client.model,
            "max_tokens": client.max_tokens,
        }

    def _ask(self, requests: Sequence[LabelRequest], attempt: int) -> list[str]:
        """Answers in order; those that are in the ledger are not asked for again."""
        questions = [question(request) for request in requests]
        keys = [key_of(**self._identity(), message=q, attempt=attempt) for q in questions]
        missing = {
            key: q for key, q in zip(keys, questions, strict=True) if self.ledger.get(key) is None
        }
        stop = threading.Event()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="teacher") as pool:
            futures = [pool.submit(self._one, key, q, stop) for key, q in missing.items()]
            failed: BaseException | None = None
            try:
                for future in as_completed(futures):
                    error = future.exception()
                    if error is not None and not isinstance(error, Cancelled):
                        failed = failed or error
                        stop.set()
            except BaseException:  # an interrupt: let no further question go out
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if failed is not None:
            raise failed
        return [self.ledger.get(key) or "" for key in keys]

    def _one(self, key: str, message: str, stop: threading.Event) -> None:
        reply = self._client.ask(message, stop)
        self.ledger.add(key, reply.text, reply.input_tokens, reply.output_tokens)
