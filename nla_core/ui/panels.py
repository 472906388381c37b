"""What is written about a transcript as a whole.

Knows its heading, and what stands in place of one that failed. Does not know its tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nla_core.ui.html import draw, fill, join
from nla_core.ui.transcript_view import TranscriptView

FINISH: Final = {"length": "answer cut at its length limit", "none": "no answer"}


def heading(view: TranscriptView) -> None:
    facts = [view.category, f"{len(view.tokens)} tokens"] if view.tokens else [view.category]
    if view.readings:
        facts.append(f"{sum(map(len, view.readings.values()))} readings")
    if not view.failed and view.answer_finish in FINISH:
        facts.append(FINISH[view.answer_finish])
    facts += [view.prompt_id, *(f"#{tag}" for tag in view.tags)]
    draw(
        '<div class="nla-head"><h1>{title}</h1><div class="facts">{facts}</div></div>',
        title=view.title,
        facts=join([fill("<span>{fact}</span>", fact=fact) for fact in facts]),
    )


def failed_transcript(view: TranscriptView) -> None:
    """A prompt that could not be processed: its error, and the messages as they were sent."""
    draw(
        '<div class="nla-notice" role="status"><p><b>This prompt could not be processed, so there '
        "are no tokens to read.</b></p><p>{error}</p></div>",
        error=view.error or "The run did not say why.",
    )
    messages(view.messages)


def messages(said: Iterable[tuple[str, str]]) -> None:
    """(role, content) as they were sent, where there are no tokens to show."""
    for role, content in said:
        draw(
            '<div class="nla-message"><div class="role">{role}</div>'
            '<div class="said">{content}</div></div>',
            role=role.capitalize(),
            content=content,
        )
