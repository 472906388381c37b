"""A chat service as the teacher: many questions at a time, each paid for once.

The services' own clients (``anthropic``, ``openai``: requirements-teachers.txt) speak to them and
try again what passes. Redirects are off: a redirected request would carry the key along. Raw
answers are kept, so that a better clean-up costs nothing. Two vectors with the same prefix share
one paid answer.
"""

from __future__ import annotations

import json
import os
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nla_core.data.files import explained, sha256_json
from nla_core.errors import Cancelled, NLAError
from precompute.train.questions import SHOWN_CHARACTERS, VERSION, cleaned, question
from precompute.train.teachers import (
    Label,
    LabelRequest,
    Provider,
    StructuredTeacher,
    labels_from,
)

BASE_URLS = {
    Provider.ANTHROPIC: "https://api.anthropic.com",
    Provider.OPENAI: "https://api.openai.com/v1",
}
KEY_NAMES = {Provider.ANTHROPIC: "ANTHROPIC_API_KEY", Provider.OPENAI: "OPENAI_API_KEY"}
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
NO_KEY = "none"
"""Sent where a server of one's own needs no key; the clients insist on one."""
CHARACTERS_A_TOKEN = 3.5
ANSWER_TOKENS = 90
"""What an answer usually has: two or three snippets of at most twenty words."""
QUESTION_CHARACTERS = 1300
"""The wording around a prefix, about."""


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class ChatClient:
    """Ask ``model`` one message at a time; safe to use from many threads at once.

    ``sdk`` is the service's own package and ``service`` its client, which holds the key.
    """

    provider: Provider
    model: str
    base_url: str
    max_tokens: int
    tries: int
    sdk: Any = field(repr=False)
    service: Any = field(repr=False)

    @classmethod
    def from_environment(
        cls,
        provider: Provider,
        model: str,
        base_url: str | None = None,
        *,
        max_tokens: int = 200,
        tries: int = 7,
        timeout_s: float = 60.0,
    ) -> ChatClient:
        """A client with the provider's key.

        Raises NLAError if the key is missing, malformed or would travel unencrypted, and where the
        provider's package is not installed.
        """
        name = KEY_NAMES[provider]
        key = os.environ.get(name, "").strip() or None
        url = (base_url or BASE_URLS[provider]).rstrip("/")
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise NLAError(
                f"'{url}' is not the address of a chat service",
                why="It has to be https://HOST, perhaps with a path",
                fix=f"Leave --base-url out for {BASE_URLS[provider]}",
            )
        if key is None and base_url is None:
            raise NLAError(
                f"There is no key for {provider}",
                why=f"the environment variable {name} is not set",
                fix=f"Set {name}, or use --teacher structured or --teacher local",
            )
        if key is not None and not all("!" <= c <= "~" for c in key):
            raise NLAError(
                f"The key in {name} cannot be sent",
                why="it holds a space, a control character or one that is not ASCII",
                fix=f"Set {name} to the key alone",
            )
        if key is not None and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise NLAError(
                f"The key in {name} would travel unencrypted",
                why=f"{url} is neither https nor this machine",
                fix=f"Use an https address, or unset {name} if the service needs no key",
            )
        sdk, make = _client_of(provider)
        service = make(
            api_key=key or NO_KEY,
            base_url=url,
            max_retries=tries - 1,
            timeout=timeout_s,
            http_client=sdk.DefaultHttpxClient(follow_redirects=False),
        )
        return cls(provider, model, url, max_tokens, tries, sdk, service)

    def ask(self, message: str) -> Reply:
        """The service's answer; the client has tried again what passes. Raises NLAError."""
        try:
            return self._reply(message)
        except self.sdk.APIStatusError as error:
            trouble = f"HTTP {error.status_code}: {self._shown(_told(error))}"
            if error.status_code < 500 and error.status_code not in (408, 409, 429):
                raise self._refused(error.status_code, trouble) from None
        except self.sdk.APIError as error:
            cause = error.__cause__ or error
            trouble = self._shown(f"{type(cause).__name__}: {cause}")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            trouble = self._shown(f"an answer of unknown form: {error!r}")
        raise NLAError(
            f"{self.base_url} keeps failing",
            why=f"after up to {self.tries} tries, the last trouble was {trouble}",
            fix="Run the same command again later; the answers that came so far are kept",
        )

    def _reply(self, message: str) -> Reply:
        """Raises what the client does, and for a reply of another form what reading it does."""
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": message}],
        }
        if self.provider is Provider.ANTHROPIC:
            reply = self.service.messages.create(**asked, max_tokens=self.max_tokens)
            text = "".join(part.text for part in reply.content if part.type == "text")
            names = ("input_tokens", "output_tokens")
        else:
            # OpenAI itself has retired the older name, which other servers still expect.
            own = self.base_url == BASE_URLS[Provider.OPENAI]
            asked["max_completion_tokens" if own else "max_tokens"] = self.max_tokens
            reply = self.service.chat.completions.create(**asked)
            text = reply.choices[0].message.content or ""
            names = ("prompt_tokens", "completion_tokens")
        if not isinstance(text, str):
            raise TypeError("the answer's content is not a text")
        return Reply(text, *(int(getattr(reply.usage, name, 0) or 0) for name in names))

    def _refused(self, status: int, trouble: str) -> NLAError:
        name = KEY_NAMES[self.provider]
        fix = {
            401: f"Check the key in {name}",
            403: f"Check what the key in {name} may use",
            404: "Check --teacher-model and --base-url",
        }.get(status, "Check --teacher-model and the account")
        return NLAError(
            f"{self.base_url} refuses the request for model '{self.model}'",
            why=trouble,
            fix=f"{fix}, then run the same command again; the answers that came so far are kept",
        )

    def _shown(self, text: str) -> str:
        """Short enough for a sentence, without the key."""
        text = " ".join(text.replace(self.service.api_key, "[key]").split())
        return text if len(text) <= 300 else text[:297] + "..."


def _client_of(provider: Provider) -> tuple[Any, Any]:
    """The provider's package and its client class. Raises NLAError where it is not installed."""
    try:
        if provider is Provider.ANTHROPIC:
            import anthropic

            return anthropic, anthropic.Anthropic
        import openai

        return openai, openai.OpenAI
    except ImportError:
        raise NLAError(
            f"--provider {provider} needs the package '{provider}'",
            why="It is not installed",
            fix="Install it with `pip install -r requirements-teachers.txt`",
        ) from None


def _told(error: Any) -> str:
    """What the service says of a refusal."""
    body = error.body
    inner = body.get("error", body) if isinstance(body, dict) else body
    said = inner.get("message") if isinstance(inner, dict) else inner
    return str(said or error.message)


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
        def ask(asked: Sequence[LabelRequest], attempt: int) -> list[str | None]:
            answers = self.answers([question(r) for r in asked], [r.seed for r in asked], attempt)
            return [cleaned(answer) for answer in answers]

        return labels_from(requests, ask, name=self.name, stand_in=self._stand_in)

    def forecast(self, prefix_characters: Sequence[int]) -> str | None:
        return self.estimate(
            [min(length, SHOWN_CHARACTERS) + QUESTION_CHARACTERS for length in prefix_characters]
        )

    def estimate(self, characters: Sequence[int]) -> str | None:
        n = len(characters)
        if not n:
            return None
        tokens_in = sum(characters) / CHARACTERS_A_TOKEN
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

    def answers(self, messages: Sequence[str], seeds: Sequence[int], attempt: int = 0) -> list[str]:
        """See Writer; what is in the ledger is not asked for again, whatever its seed."""
        keys = [key_of(**self._identity(), message=m, attempt=attempt) for m in messages]
        missing = {
            key: m for key, m in zip(keys, messages, strict=True) if self.ledger.get(key) is None
        }
        stop = threading.Event()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="teacher") as pool:
            futures = [pool.submit(self._one, key, m, stop) for key, m in missing.items()]
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
        if stop.is_set():
            raise Cancelled
        reply = self._client.ask(message)
        self.ledger.add(key, reply.text, reply.input_tokens, reply.output_tokens)


class Ledger:
    """The answers of one file by key; appending is safe from many threads of one process."""

    def __init__(self, path: Path) -> None:
        """Read what is there. Raises NLAError where a line but the last is damaged."""
        self.path = path
        self._lock = threading.Lock()
        self._answers: dict[str, str] = {}
        self.input_tokens = self.output_tokens = 0
        if path.is_file():
            self._read()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> str | None:
        return self._answers.get(key)

    def add(self, key: str, text: str, input_tokens: int, output_tokens: int) -> None:
        """Keep one answer; it is on disk when this returns."""
        line = json.dumps(
            {
                "key": key,
                "text": text,
                "input_tokens": input_tokens,
                "output_tokens": output_tokens,
            }
        )
        with self._lock, explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            self._take(json.loads(line))

    def _take(self, row: Mapping[str, Any]) -> None:
        self._answers[row["key"]] = row["text"]
        self.input_tokens += int(row["input_tokens"])
        self.output_tokens += int(row["output_tokens"])

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole, _, torn = data.rpartition(b"\n")
        if torn:
            # The next line must not be appended to half of one.
            os.truncate(self.path, len(data) - len(torn))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, LookupError, TypeError) as error:
                raise NLAError(
                    f"{self.path}, line {number} is not an answer",
                    why=f"{type(error).__name__}: {error}",
                    fix="Delete this line; its question is then asked again",
                ) from None


def key_of(**question: Any) -> str:
    """The key of a question: a hash of all that its answer depends on."""
    return sha256_json(question)
