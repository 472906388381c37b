"""Control lanes: texts that should score badly, or that keep only one part of an explanation.

Knows how each lane's texts are made from the explanations. Knows nothing of scores. The decision a
reader would question: random words are drawn from the explanations' own words, as often as they
occur there, so that the lane tells wrong content from wrong vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from nla_core.analysis.claims import only_quotes, without_quotes

SEED = 0


def control_lanes(texts: Sequence[str], documents: Sequence[str]) -> dict[str, list[str]]:
    """Name -> one text an item; ``documents[i]`` is the document that item ``i`` comes from."""
    return {
        "empty": ["" for _ in texts],
        "random_words": random_words(texts),
        "shuffled_words": shuffled_words(texts),
        "another_explanation": [texts[i] for i in others(documents)],
        "without_quotes": [without_quotes(text) for text in texts],
        "only_quotes": [only_quotes(text) for text in texts],
    }


def random_words(texts: Sequence[str]) -> list[str]:
    """As many words as each text has, drawn from all texts' words."""
    rng = random.Random(SEED)
    pool = [word for text in texts for word in text.split()]
    counts = [len(text.split()) for text in texts]
    return [" ".join(rng.choices(pool, k=count)) if count else "" for count in counts]


def shuffled_words(texts: Sequence[str]) -> list[str]:
    """Each text's own words in another order."""
    rng = random.Random(SEED)
    result = []
    for text in texts:
        words = text.split()
        rng.shuffle(words)
        result.append(" ".join(words))
    return result


def others(documents: Sequence[str]) -> list[int]:
    """For each item another one, half the set away, of another document if there is one."""
    n = len(documents)
    result = []
    for i in range(n):
        candidates = [(i + n // 2 + step) % n for step in range(n)]
        result.append(next((j for j in candidates if documents[j] != documents[i]), candidates[0]))
    return result
