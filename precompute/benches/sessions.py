"""A browser's side of a Streamlit session, without a browser: open a page, act, wait for answers.

Knows Streamlit's websocket and its messages, and which widgets a run has drawn. Does not know this
project's pages or what is timed. The decision a reader would question: only the widget that was
acted on is sent, where a browser sends all that were ever touched; pages of this project set theirs
from the address before they draw them, so the others change nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect

from nla_core.errors import NLAError

TIMEOUT: Final = 120.0
"""Seconds after which an answer is no longer waited for."""

_DONE: Final = (
    ForwardMsg.FINISHED_SUCCESSFULLY,
    ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY,
)


@dataclass(frozen=True, slots=True)
class Widget:
    """``kind`` is its element's name in the protocol; ``options`` the labels of pills."""

    id: str
    kind: str
    fragment: str
    options: tuple[str, ...] = ()


@dataclass(slots=True)
class Session:
    """One open session. ``widgets`` are those drawn so far on this page, by their key."""

    socket: ClientConnection
    widgets: dict[str, Widget] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)  # url path -> page hash
    page: str = ""
    query: str = ""
    exceptions: list[str] = field(default_factory=list)

    async def open(self, page: str, query: str = "") -> float:
        """Go to a page by its url path, as a link does; seconds until it has been drawn."""
        message = BackMsg()
        self.query = query
        self.widgets.clear()
        if page in self.pages:
            self.page = self.pages[page]
        else:
            message.rerun_script.page_name = page
        return await self._run(message)

    async def press(self, key: str, event: str, value: Any) -> float:
        """Fire a component's trigger; seconds until the answer has been drawn."""
        widget = self._widget(key)
        message = BackMsg()
        state = message.rerun_script.widget_states.widgets.add()
        state.id = f"$$STREAMLIT_INTERNAL_KEY_{widget.id}__events"
        state.json_trigger_value = json.dumps([{"event": event, "value": value}])
        return await self._run(message, widget.fragment)

    async def type(self, key: str, text: str) -> float:
        """Give a text field another value."""
        widget = self._widget(key)
        message = BackMsg()
        state = message.rerun_script.widget_states.widgets.add()
        state.id, state.string_value = widget.id, text
        return await self._run(message, widget.fragment)

    async def choose(self, key: str, *labels: str) -> float:
        """Choose among pills, or let go of what was chosen."""
        widget = self._widget(key)
        message = BackMsg()
        state = message.rerun_script.widget_states.widgets.add()
        state.id = widget.id
        state.string_array_value.data.extend(labels)
        return await self._run(message, widget.fragment)

    def options(self, key: str) -> tuple[str, ...]:
        return self._widget(key).options

    def _widget(self, key: str) -> Widget:
        if key not in self.widgets:
            raise NLAError(
                f"The page has no widget {key!r}",
                why=f"it has {', '.join(self.widgets) or 'none'}",
                fix="Look at the page in a browser; the benchmark follows its widgets by key",
            )
        return self.widgets[key]

    async def _run(self, message: BackMsg, fragment: str = "") -> float:
        asked = message.rerun_script
        asked.query_string, asked.fragment_id = self.query, fragment
        asked.page_script_hash = self.page
        start = time.perf_counter()
        await self.socket.send(message.SerializeToString())
        try:
            async with asyncio.timeout(TIMEOUT):
                while True:
                    data = await self.socket.recv()
                    arrived = time.perf_counter()
                    answer = ForwardMsg()
                    answer.ParseFromString(data if isinstance(data, bytes) else data.encode())
                    if self._heard(answer):
                        return arrived - start
        except TimeoutError:
            raise NLAError(
                "The app did not answer",
                why=f"a run was not finished after {TIMEOUT:.0f} s",
                fix="Ask for fewer sessions, or look into what the server is doing",
            ) from None

    def _heard(self, answer: ForwardMsg) -> bool:
        """Take in one message; whether it ends the run."""
        match answer.WhichOneof("type"):
            case "script_finished":
                return answer.script_finished in _DONE
            case "navigation":
                self.pages = {
                    p.url_pathname: p.page_script_hash for p in answer.navigation.app_pages
                }
                self.page = answer.navigation.page_script_hash
            case "page_info_changed":
                self.query = answer.page_info_changed.query_string
            case "delta":
                self._drawn(answer)
        return False

    def _drawn(self, answer: ForwardMsg) -> None:
        if answer.delta.WhichOneof("type") != "new_element":
            return
        element = answer.delta.new_element
        kind = element.WhichOneof("type") or ""
        content: Any = getattr(element, kind, None)
        if kind == "exception":
            self.exceptions.append(f"{content.type}: {content.message}")
        if name := getattr(content, "id", ""):
            key = name.split("-", 2)[-1]  # $$ID-<hash>-<key>
            options = (
                tuple(option.content for option in getattr(content, "options", ()))
                if (kind == "button_group")
                else ()
            )
            self.widgets[key] = Widget(name, kind, answer.delta.fragment_id, options)


@asynccontextmanager
async def session(address: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Session]:
    """A session with the server at ``address`` (http://host:port); nothing is drawn yet."""
    url = address.replace("http://", "ws://") + "/_stcore/stream"
    async with connect(
        url,
        origin=address,  # type: ignore[arg-type]
        subprotocols=["streamlit"],  # type: ignore[list-item]
        additional_headers=headers,
        max_size=None,
        ping_interval=None,
    ) as socket:
        yield Session(socket)
