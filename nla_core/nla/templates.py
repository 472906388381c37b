"""Prompt templates of a sidecar: how their fields are filled in, and how they stay portable.

Knows the braces of templates. Knows nothing of tokenizers or models. The decision a reader would
question: the published contract fills templates with ``str.format``, which fails on a lone brace;
filling here gives the same text wherever ``str.format`` works, and takes a lone brace as itself
where it does not, so that sidecars written by hand load as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

VECTOR_FIELDS = ("injection_char", "vector", "concept")
"""Names by which AV templates call the vector's place; the published one comes first."""
_BRACES = re.compile(r"\{\{|\}\}|\{(\w+)\}|[{}]")


def fill(template: str, values: Mapping[str, str]) -> str:
    """``template`` with its fields replaced; ``{{`` and ``}}`` become single braces.

    Values are put in as they are: braces in them mean nothing. A field that ``values`` does not
    name stays as it stands.
    """

    def put(match: re.Match[str]) -> str:
        found = match[0]
        if match[1] is not None:
            return values.get(match[1], found)
        return found[0]

    return _BRACES.sub(put, template)


def fill_vector(template: str, marker: str) -> str:
    """An AV template with ``marker`` where the vector goes, by whichever name it has there."""
    return fill(template, dict.fromkeys(VECTOR_FIELDS, marker))


def portable(template: str, field: str, aliases: tuple[str, ...] = ()) -> str:
    """The template as ``str.format(**{field: ...})`` needs it, with the same result as ``fill``.

    ``aliases`` are renamed to ``field``; every other brace is doubled.
    """

    def write(match: re.Match[str]) -> str:
        if match[1] in (field, *aliases):
            return "{" + field + "}"
        if match[1] is not None:
            return "{{" + match[1] + "}}"
        return match[0][0] * 2

    return _BRACES.sub(write, template)
