"""Figures of the explanations as texts: variety, quotations that hold, next words that are right.

Knows texts, contexts and the target's predictions as words. Knows nothing of vectors. The decision
a reader would question: quotations are also checked against another item's context, and next words
against another item's predictions, since common words are "found" anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nla_core.analysis.claims import as_word, next_words, quotes, stands_in

LONG_QUOTE = 2
"""Words from which on a quotation says more than that a word occurs."""


@dataclass(frozen=True, slots=True)
class Quotations:
    """Counts of quoted spans in texts, and how many of them really stand in the contexts."""

    long_total: int
    long_found: int
    total: int
    found: int

    @classmethod
    def of(cls, texts: Sequence[str], contexts: Sequence[str]) -> Quotations:
        counts = [0, 0, 0, 0]
        for text, context in zip(texts, contexts, strict=True):
            for quote in quotes(text):
                is_long, holds = len(quote.split()) >= LONG_QUOTE, stands_in(quote, context)
                for at, one in enumerate((is_long, is_long and holds, True, holds)):
                    counts[at] += one
        return cls(*counts)

    @property
    def precision(self) -> float | None:
        """Share of spans of two or more words that stand in the context; None without any."""
        return self.long_found / self.long_total if self.long_total else None

    @property
    def precision_all(self) -> float | None:
        """Share of all quoted spans, single words included; None without any."""
        return self.found / self.total if self.total else None


def quote_found(text: str, context: str) -> bool | None:
    """Whether all quotations of two or more words stand in the context; None without any."""
    counts = Quotations.of([text], [context])
    return counts.long_found == counts.long_total if counts.long_total else None


@dataclass(frozen=True, slots=True)
class NextWords:
    """How the words that texts name as next compare with the target's and with what came.

    Tokens that cannot be named, such as a lone space, are left out. None where nothing could be
    judged.
    """

    named: float  # share of texts that name any word
    top_1: float | None  # of those: the target's likeliest token is among the words named
    top_5: float | None  # of all words named: share among the target's five likeliest
    real: float | None  # of those with a known next token: it is among the words named

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        top_tokens: Sequence[Sequence[str]],
        came: Sequence[str | None] | None,
    ) -> NextWords:
        """``top_tokens[i]`` are likeliest first; ``came`` is None where it was not recorded."""
        named = 0
        first: list[bool] = []
        likely: list[bool] = []
        real: list[bool] = []
        for i, text in enumerate(texts):
            words = next_words(text)
            named += bool(words)
            expected = [as_word(token) for token in top_tokens[i]]
            token = as_word(came[i] or "") if came is not None else ""
            if words:
                likely += [word in expected[:5] for word in words]
                first += [expected[0] in words] if expected[0] else []
                real += [token in words] if token else []
        return cls(named / max(1, len(texts)), *map(_share, (first, likely, real)))


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Share of different word n-grams among all: near 0 where texts repeat one template."""
    grams = [tuple(t[i : i + n]) for t in texts for i in range(len(t) - n + 1)]
    return len(set(grams)) / max(1, len(grams))


def duplicate_rate(texts: Sequence[str]) -> float:
    """Share of texts that repeat an earlier one word for word."""
    return 1.0 - len(set(texts)) / max(1, len(texts))
