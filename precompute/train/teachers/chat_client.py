"""One question to a chat service over HTTPS: the Anthropic Messages API, or any OpenAI-shaped one.

Knows both shapes, which failures pass and which do not, and how long to wait. Knows nothing of
labels. The decision a reader would question: the standard library's client without redirects; a
redirected request would carry the key to wherever the service points.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nla_core.errors import Cancelled, NLAError
from precompute.output import say

BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF = 60.0
LONGEST_RETRY_AFTER = 900.0
MAX_REPLY_BYTES = 4 * 1024 * 1024
PASSING = frozenset({408, 409, 425, 429, 529})
"""Status codes that are tried again, beside all from 500 on."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Provider(StrEnum):
    ANTHROPIC = "anthropic"
    OPENAI = "openai"


BASE_URLS = {
    Provider.ANTHROPIC: "https://api.anthropic.com",
    Provider.OPENAI: "https://api.openai.com/v1",
}
KEY_NAMES = {Provider.ANTHROPIC: "ANTHROPIC_API_KEY", Provider.OPENAI: "OPENAI_API_KEY"}


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    input_tokens: int
    output_tokens: int


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class ChatClient:
    """Asks ``model`` one message at a time; safe to use from many threads at once.

    ``key`` is sent and never shown: it is kept out of repr, config and messages.
    """

    provider: Provider
    model: str
    base_url: str
    key: str | None = field(repr=False)
    max_tokens: int = 200
    tries: int = 7
    timeout_s: float = 60.0
    backoff_s: float = BACKOFF_SECONDS

    @classmethod
    def from_environment(
        cls, provider: Provider, model: str, base_url: str | None = None, **settings: Any
    ) -> ChatClient:
        """With the provider's key; NLAError if it is missing, malformed or would travel openly."""
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
        return cls(provider, model, url, key, **settings)

    def ask(self, message: str, stop: threading.Event) -> Reply:
        """The service's answer. Failures that pass are tried again; ``stop`` ends the waiting.

        Raises NLAError if the service refuses or keeps failing, Cancelled once ``stop`` is set.
        """
        trouble = ""
        for attempt in range(self.tries):
            if stop.is_set():
                raise Cancelled
            wait = min(self.backoff_s * 2**attempt, LONGEST_BACKOFF) * random.uniform(0.75, 1.25)
            try:
                return self._reply(self._post(message))
            except urllib.error.HTTPError as error:
                trouble = f"HTTP {error.code}: {self._shown(_body(error))}"
                if error.code not in PASSING and error.code < 500:
                    raise self._refused(trouble) from None
                wait = max(wait, _retry_after(error.headers.get("Retry-After")))
            except (OSError, http.client.HTTPException) as error:
                # URLError, time-outs and dropped connections; none of them says more than this.
                trouble = self._shown(f"{type(error).__name__}: {error}")
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                trouble = self._shown(f"an answer of unknown form: {error!r}")
            if attempt == self.tries - 1:
                break
            say(f"{trouble}; waiting {wait:.0f} s before trying again")
            if stop.wait(wait):
                raise Cancelled
        raise NLAError(
            f"{self.base_url} keeps failing",
            why=f"after {self.tries} tries, the last trouble was {trouble}",
            fix="Run the same command again later; the labels that came so far are kept",
        )

    def _post(self, message: str) -> bytes:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": message}],
        }
        headers = {"Content-Type": "application/json", "User-Agent": "nla-explorer"}
        if self.provider is Provider.ANTHROPIC:
            path = "/v1/messages"
            body["max_tokens"] = self.max_tokens
            headers["anthropic-version"] = "2023-06-01"
            if self.key:
                headers["x-api-key"] = self.key
        else:
            path = "/chat/completions"
            # OpenAI itself has retired the older name, which other servers still expect.
            own = self.base_url == BASE_URLS[Provider.OPENAI]
            body["max_completion_tokens" if own else "max_tokens"] = self.max_tokens
            if self.key:
                headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(
            self.base_url + path, data=json.dumps(body).encode(), headers=headers, method="POST"
        )
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(request, timeout=self.timeout_s) as response:
            return bytes(response.read(MAX_REPLY_BYTES))

    def _reply(self, data: bytes) -> Reply:
        """Raises ValueError, LookupError, TypeError or AttributeError for any other shape."""
        reply = json.loads(data)
        usage = reply.get("usage") or {}
        if self.provider is Provider.ANTHROPIC:
            parts = [part["text"] for part in reply["content"] if part["type"] == "text"]
            text, names = "".join(parts), ("input_tokens", "output_tokens")
        else:
            text = reply["choices"][0]["message"]["content"] or ""
            names = ("prompt_tokens", "completion_tokens")
        if not isinstance(text, str):
            raise TypeError("the answer's content is not a text")
        return Reply(text, *(int(usage.get(name) or 0) for name in names))

    def _refused(self, trouble: str) -> NLAError:
        name = KEY_NAMES[self.provider]
        fix = {
            "HTTP 401": f"Check the key in {name}",
            "HTTP 403": f"Check what the key in {name} may use",
            "HTTP 404": "Check --teacher-model and --base-url",
        }.get(trouble[:8], "Check --teacher-model and the account")
        return NLAError(
            f"{self.base_url} refuses the request for model '{self.model}'",
            why=trouble,
            fix=f"{fix}, then run the same command again; the labels that came so far are kept",
        )

    def _shown(self, text: str) -> str:
        """Short enough for a sentence, without the key."""
        text = " ".join(text.split())
        if self.key:
            text = text.replace(self.key, "[key]")
        return text if len(text) <= 300 else text[:297] + "..."


def _body(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read(MAX_REPLY_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return text or str(error.reason)


def _retry_after(value: str | None) -> float:
    """Seconds that the service asks to wait: a number, or a date; 0 without either."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if seconds == seconds else 0.0
